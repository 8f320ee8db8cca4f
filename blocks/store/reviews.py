"""Hand out tasks under review, and take decisions on them. The rules are in `sql/reviews.sql`."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from blocks.domain.ids import task_id
from blocks.domain.model import (
    Failure,
    ReviewOutcome,
    ReviewReason,
    SettledBy,
    SkipReason,
    TaskType,
)
from blocks.store import annotation, jobs, lease_returns, leases, task_numbers, webhook_messages
from blocks.store.annotation import ClaimedTask, ClaimKey
from blocks.store.database import Transaction
from blocks.store.leases import Held, Renewed
from blocks.store.queries import load

_SQL = load("reviews")

# Upper bounds on the work of one claim, as in `annotation`.
_JOBS_MAX = 200
_REVIEWS_MAX = 5_000

WAITING_COUNTED_MAX = 1_000
"""How many tasks under review are counted at most, of one job and reason."""


class SaidLabel(msgspec.Struct, frozen=True):
    """What one annotator said of the task."""

    annotator_id: str
    """Who it was."""
    label: str
    """The option that they chose."""
    created_at: datetime
    """When they did."""


class SaidSkip(msgspec.Struct, frozen=True):
    """Why one annotator did not label the task."""

    annotator_id: str
    """Who it was."""
    reason: SkipReason
    """Why they skipped it."""
    note: str | None
    """What they added; null if nothing."""
    created_at: datetime
    """When they did."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task is under review, and what annotators have said of it."""

    job_id: str
    """The job of the task, which a claim can name."""
    reason: ReviewReason
    """Why a reviewer is to decide."""
    proposed_label: str | None
    """What the task would have settled on; null where it would have failed."""
    proposed_failure: Failure | None
    """Why it would have failed; null where it would have settled. Both are null where labels were set
    aside since, and it would collect more."""
    confidence: float | None
    """How sure that is, 0 to 1; null where it would have failed."""
    votes: dict[str, int]
    """How many labels each option has."""
    labels: list[SaidLabel]
    """The single labels, in their order."""
    skips: list[SaidSkip]
    """Why annotators have skipped it, in their order."""
    created_at: datetime
    """Since when it waits for a reviewer."""
    due_at: datetime
    """Until when; then it ends as it would have without a review."""


class ClaimedReview(NamedTuple):
    """A task in a reviewer's hands, as annotators see it, and what they said of it."""

    task: ClaimedTask
    case: Case


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which reviews a claim is to hand out; None: any."""

    task_types: Sequence[str] | None = None
    job_id: str | None = None
    reason: ReviewReason | None = None
    annotator_id: str | None = None
    """Who has labelled or skipped the task."""


ANY = Wanted()
"""Whatever is under review."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A job with a review queue, and how many tasks wait there, by reason."""

    job_id: str
    task_type: TaskType
    question: str
    waiting: dict[ReviewReason, int]


class ReviewPage(NamedTuple):
    """Some of the reviews that a reviewer holds; `last` is the id to go on after, None at the end."""

    reviews: list[ClaimedReview]
    last: str | None


class Decision(msgspec.Struct, frozen=True):
    """A reviewer's decision on a task: its `label`, or the outcome of its `failure`, or neither.

    Without both the task is sent back for one more label.
    """

    task_id: str
    label: str | None = None
    failure: int | None = None


def claim(
    tx: Transaction,
    annotator_no: int,
    *,
    limit: int,
    lease_s: int,
    wanted: Wanted = ANY,
    key: ClaimKey | None = None,
) -> list[ClaimedReview]:
    """Hand out up to `limit` tasks under review for `lease_s` seconds, or until their deadline.

    They come by the priority of their jobs, and the oldest of a job first. None is of a task that the
    reviewer has labelled or skipped. Of a long queue, a part at random is searched for the tasks of one
    annotator; so a claim may find none of a few, and a later one does.
    """
    lease_returns.await_claims(tx, annotator_no)
    survey = {
        "annotator_no": annotator_no,
        "job_id": wanted.job_id,
        "task_types": list(wanted.task_types) if wanted.task_types else None,
        "reasons": [wanted.reason] if wanted.reason else list(ReviewReason),
        "seed": random.getrandbits(63),
        "jobs_max": _JOBS_MAX,
    }
    take = _SQL["take_of_reason" if wanted.reason else "take"]
    lease = {
        "reason": wanted.reason,
        "annotator_id": wanted.annotator_id,
        "annotator_no": annotator_no,
        "lease_s": lease_s,
        "claim_key": key.key if key else None,
        "claim_digest": key.digest if key else None,
        "reviews_max": _REVIEWS_MAX,
    }
    claimable = tx.execute(_SQL["claimable_jobs"], survey).fetchall()
    rows: list[dict[str, Any]] = []
    # What is not for them may fill the first window; then another place is looked at.
    for start_at in (0.0, random.random()):  # noqa: S311 - no secret
        for job in claimable:
            if len(rows) < limit:
                values = {"job_no": job["job_no"], "limit": limit - len(rows), "start_at": start_at}
                rows += tx.execute(take, lease | values).fetchall()
        if rows:
            break
    return _describe(tx, rows)


def count_waiting(
    tx: Transaction, annotator_no: int, *, limit: int, job_id: str | None = None
) -> list[Queue]:
    """Count what waits for reviewers in up to `limit` jobs, each reason of a job up to 1,000 tasks.

    Jobs with such tasks come first. What others hold, or the reviewer has labelled, counts as well.
    """
    values = {
        "annotator_no": annotator_no,
        "job_id": job_id,
        "reasons": list(ReviewReason),
        "jobs_max": limit,
        "counted_max": WAITING_COUNTED_MAX,
    }
    rows = tx.execute(_SQL["count_waiting"], values).fetchall()
    return [msgspec.convert(row, Queue) for row in rows]


def may_come(tx: Transaction, annotator_no: int, job_id: str) -> bool | None:
    """Return whether a job may have reviews later for a reviewer who was given none just now.

    None where there is no such job, or the reviewer is not for its customer.
    """
    values = {"annotator_no": annotator_no, "job_id": job_id}
    row = tx.execute(_SQL["may_come"], values).fetchone()
    return None if row is None else bool(row["may_come"])


def find_claimed(tx: Transaction, annotator_no: int, key: ClaimKey) -> list[ClaimedReview]:
    """Return the reviews that the reviewer still holds by the claim of that key.

    Raises:
        IdempotencyConflict: the claim of that key asked for something else.
    """
    values = {"annotator_no": annotator_no, "claim_key": key.key}
    rows = tx.execute(_SQL["find_claimed"], values).fetchall()
    if any(row["claim_digest"] != key.digest for row in rows):
        raise leases.key_conflict()
    return _describe(tx, rows)


def list_page(
    tx: Transaction, annotator_no: int, *, limit: int, after: str | None
) -> ReviewPage | None:
    """Return up to `limit` of the reviews that the reviewer holds, from after the task `after` on.

    Return None if `after` is no task's id.
    """
    found = leases.find_place(tx, annotator_no, after)
    if found is None:
        return None
    values = {
        "annotator_no": annotator_no,
        "after_job_no": found[0],
        "after_place": found[1],
        "limit": limit + 1,
    }
    rows = tx.execute(_SQL["list_page"], values).fetchall()
    page = rows[:limit]
    last = leases.last_id(page) if len(rows) > limit else None
    return ReviewPage(_describe(tx, page), last)


def count_held(tx: Transaction, annotator_no: int) -> Held:
    """Count the reviews that the reviewer holds, of jobs that go on."""
    row = tx.execute(_SQL["count_held"], {"annotator_no": annotator_no}).fetchone()
    return msgspec.convert(row, Held)


def renew(
    tx: Transaction, annotator_no: int, task_ids: Sequence[str], *, lease_s: int
) -> dict[str, Renewed]:
    """Hold those reviews of `task_ids` that the reviewer holds for `lease_s` seconds from now on.

    Return them by their ids. This has to come before leases are locked.
    """
    values = {"annotator_no": annotator_no, "lease_s": lease_s}
    return leases.by_task(task_numbers.execute(tx, _SQL["renew"], task_ids, **values))


def release(tx: Transaction, annotator_no: int, task_ids: Sequence[str]) -> set[str]:
    """Hand reviews back without a decision; return the ids of those that the reviewer held.

    This has to come before leases are locked.
    """
    return set(task_numbers.execute(tx, _SQL["release"], task_ids, annotator_no=annotator_no))


class _Entry(NamedTuple):
    """The `n`th decision of a batch, whose task's id is one of ours."""

    n: int
    job_id: str
    task_no: int
    decision: Decision


def list_settled(tx: Transaction, job_no: int, from_task: int, until_task: int) -> list[int]:
    """Return the numbers, from `from_task` to before `until_task`, of tasks that reviewers settled."""
    values = {"job_no": job_no, "from_task": from_task, "until_task": until_task}
    return [row["task_no"] for row in tx.execute(_SQL["list_settled"], values)]


def find_settled_by(tx: Transaction, job_no: int, task_no: int) -> SettledBy:
    """Return who settled a task of a job that has a review queue."""
    found = list_settled(tx, job_no, task_no, task_no + 1)
    return SettledBy.REVIEW if found else SettledBy.CONSENSUS


def decide(
    tx: Transaction, annotator_no: int, decisions: Sequence[Decision]
) -> list[ReviewOutcome]:
    """Take decisions on reviews that the reviewer holds; return what became of each, in their order.

    A job whose last task has ended goes on to its delivery or its end.
    """
    numbers = task_numbers.find(tx, (decision.task_id for decision in decisions))
    entries = [
        _Entry(n, *numbers[decision.task_id], decision)
        for n, decision in enumerate(decisions)
        if decision.task_id in numbers
    ]
    rows = tx.execute(_SQL["decide"], _columns(entries, annotator_no)).fetchall()
    outcomes = {row["n"]: _outcome(row) for row in rows}
    refused = [entry for entry in entries if entry.n not in outcomes]
    if refused:
        values = _columns(refused, annotator_no)
        explained = tx.execute(_SQL["explain_refused"], values).fetchall()
        outcomes |= {row["n"]: ReviewOutcome(row["outcome"]) for row in explained}
    _go_on(tx, rows)
    return [outcomes.get(n, ReviewOutcome.UNKNOWN_TASK) for n in range(len(decisions))]


def time_out(tx: Transaction, *, limit: int) -> int:
    """Decide up to `limit` tasks by what was proposed whose deadline is over; return how many."""
    rows = tx.execute(_SQL["time_out"], {"limit": limit, "annotator_no": None}).fetchall()
    _go_on(tx, rows)
    return len(rows)


def _go_on(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Tell endpoints of tasks that have settled, and settle jobs that these were the last of."""
    settled = [
        (row["job_no"], row["job_id"], row["task_no"])
        for row in rows
        if row["announces"] and (row["decision"] or 0) > 0
    ]
    webhook_messages.announce_tasks(tx, settled)
    jobs.settle(tx, {row["job_no"] for row in rows if row["chunk_done"]})


def _outcome(row: Mapping[str, Any]) -> ReviewOutcome:
    if row["decision"] is None:
        return ReviewOutcome.SENT_BACK
    return ReviewOutcome.SETTLED if row["decision"] > 0 else ReviewOutcome.FAILED


def _describe(tx: Transaction, rows: Sequence[dict[str, Any]]) -> list[ClaimedReview]:
    """Return reviews as their reviewers are shown them, without those on corrupt pages."""
    ordered = sorted(rows, key=lambda row: (row["job_no"], row["task_no"]))
    tasks = annotation.describe_claimed(tx, [(row["job_no"], row) for row in ordered])
    if not tasks:
        return []
    values = {
        f"{name}s": [row[name] for row in ordered] for name in ("job_no", "task_no", "review_no")
    }
    found = tx.execute(_SQL["describe"], values).fetchall()
    cases = {task_id(row["job_id"], row["task_key"], row["task_no"]): _case(row) for row in found}
    return [ClaimedReview(task, cases[task.task_id]) for task in tasks]


def _case(row: dict[str, Any]) -> Case:
    skips = [each | {"reason": SkipReason.of_number(each["reason"])} for each in row["skips"]]
    votes = dict(zip(row["options"], row["votes"], strict=True))
    shown = {"skips": skips, "votes": votes} | _proposal(row)
    return msgspec.convert(row | shown, Case)


def _proposal(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rule proposes: an option or a failure; neither for one more label."""
    proposed, label, failure = row["proposed"], None, None
    if proposed is not None and proposed > 0:
        label = row["options"][proposed - 1]
    elif proposed is not None:
        failure = Failure.of_outcome(proposed)
    return {"proposed_label": label, "proposed_failure": failure}


def _columns(entries: Sequence[_Entry], annotator_no: int) -> dict[str, Any]:
    return {
        "annotator_no": annotator_no,
        "ns": [each.n for each in entries],
        "job_ids": [each.job_id for each in entries],
        "task_nos": [each.task_no for each in entries],
        "labels": [each.decision.label for each in entries],
        "failures": [each.decision.failure for each in entries],
    }
