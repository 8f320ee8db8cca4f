"""Hand out tasks and take labels. The rules are in `sql/annotation.sql`."""

import random
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from blocks.domain.ids import parse_task_id, task_id
from blocks.domain.metadata import show_members
from blocks.domain.model import GoodLine, LabelOutcome, OptionDetail, TaskType
from blocks.store import archive, arrays, jobs, label_batches, pages, webhook_messages
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("annotation")

# Upper bounds on the work of one claim. A claim that hits one starts at another random place the next
# time, so nothing starves.
_JOBS_MAX = 200
_VACANCIES_MAX = 5_000
_WINDOW_TASKS = 1_000
_LOOKS_MAX = 50
_OUTLOOK_TASKS_MAX = 1_000

_LEASES_RETURNED_MAX = 100  # by one claim
# A claim takes back leases that ran out just now, and older ones where it would come back empty.
_OVERDUE_S_MAX = 10.0
_FOR_EVER_S = 1e9
# The first of the two numbers of an advisory lock; the second is the annotator's.
_CLAIM_LOCK = 731


class LabelledJob(msgspec.Struct, frozen=True):
    """What an annotator needs to know of a job; of metadata only `shown_metadata` reaches them."""

    job_id: str
    task_type: TaskType
    question: str
    options: list[str]
    shown_metadata: list[str] | None = None
    instructions_digest: bytes | None = None
    option_details: list[OptionDetail] | None = None


class ClaimedTask(msgspec.Struct, frozen=True):
    """A task in an annotator's hands until `lease_expires_at`; `metadata` is what they may see of it."""

    task_id: str
    data_url: str | None
    metadata: str | None
    lease_expires_at: datetime
    job: LabelledJob
    text: str | None = None


class ClaimKey(NamedTuple):
    """The idempotency key of a claim, and the SHA-256 of what it asks for."""

    key: str
    digest: bytes


class Label(msgspec.Struct, frozen=True):
    """One annotator's answer for a task: one of its job's options."""

    task_id: str
    label: str


def return_leases(tx: Transaction, *, limit: int) -> int:
    """Take back up to `limit` leases that have run out; return how many.

    Claims take back those that ran out just now; this is for times when nobody claims.
    """
    values = {"leases_max": limit, "overdue_s_max": _FOR_EVER_S}
    return len(tx.execute(_SQL["return_leases"], values).fetchall())


def take_leases_back(tx: Transaction, annotator_no: int) -> int:
    """Take back the tasks that the annotator holds and may not label any more; return how many.

    Without a key that is good those are all of their tasks, and else the tasks of customers that they
    are not for. Other annotators can be handed them at once.
    """
    await_claims(tx, annotator_no)
    row = tx.execute(_SQL["take_leases_back"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # a sum
    tasks: int = row["tasks"]
    return tasks


def await_claims(tx: Transaction, annotator_no: int) -> None:
    """Wait for the annotator's claims that are under way, and hold off others until the commit."""
    tx.execute(_SQL["lock_claims"], {"annotator_no": annotator_no, "lock": _CLAIM_LOCK})


def claim(
    tx: Transaction,
    annotator_no: int,
    *,
    limit: int,
    lease_s: int,
    task_types: Sequence[str] | None = None,
    job_id: str | None = None,
    key: ClaimKey | None = None,
) -> list[ClaimedTask]:
    """Hand out up to `limit` tasks for `lease_s` seconds.

    They come by the priority of their jobs, and within a priority in equal shares for customers. Their
    leases keep `key`, for `leases.find_claimed`.
    """
    annotator = {"annotator_no": annotator_no}
    begin = annotator | {
        "lock": _CLAIM_LOCK,
        "leases_max": _LEASES_RETURNED_MAX,
        "overdue_s_max": _OVERDUE_S_MAX,
    }
    tx.execute_later(_SQL["begin_claim"], begin)
    survey = annotator | {
        "task_types": list(task_types) if task_types else None,
        "job_id": job_id,
        "seed": random.getrandbits(63),
        "jobs_max": _JOBS_MAX,
        "vacancies_max": _VACANCIES_MAX,
    }
    lease = {
        "lease_s": lease_s,
        "claim_key": key.key if key else None,
        "claim_digest": key.digest if key else None,
    }
    taking = _Claim(tx, annotator | lease, limit)
    found = taking.fill(survey)
    if not found and return_leases(tx, limit=_LEASES_RETURNED_MAX):
        found = taking.fill(survey)
    return found


def may_come(
    tx: Transaction, annotator_no: int, job_id: str, task_types: Sequence[str] | None = None
) -> bool | None:
    """Return whether a job may have tasks for the annotator later, who was given none just now.

    None where there is no such job, or the annotator is not for its customer. True as well where that
    would take a look at more than 1,000 tasks.
    """
    values = {
        "annotator_no": annotator_no,
        "job_id": job_id,
        "task_types": list(task_types) if task_types else None,
        "tasks_max": _OUTLOOK_TASKS_MAX,
    }
    row = tx.execute(_SQL["outlook"], values).fetchone()
    return None if row is None else bool(row["may_come"])


class _Claim:
    """A claim that is being filled, job after job."""

    def __init__(self, tx: Transaction, values: dict[str, Any], limit: int) -> None:
        self._tx = tx
        self._values = values
        self._limit = limit
        self._looks = 0
        self._holds_lanes = False
        self._rows: list[tuple[int, dict[str, Any]]] = []

    def fill(self, survey: dict[str, Any]) -> list[ClaimedTask]:
        """Take tasks of the jobs that a `survey` finds, one after the other; return them.

        Those on corrupt pages are left on the lease, so that other tasks come instead of them.
        """
        found: list[ClaimedTask] = []
        while True:
            self._take_some(survey)
            taken, self._rows = self._rows, []
            some = describe_claimed(self._tx, taken)
            found += some
            self._limit -= len(some)
            if len(some) == len(taken):
                return found

    def _take_some(self, survey: dict[str, Any]) -> None:
        claimable = self._tx.execute(_SQL["claimable_jobs"], survey).fetchall()
        for job in claimable:
            self._take_of(job)
        if claimable and not self._rows:
            self._insist(claimable)

    def _take_of(self, job: dict[str, Any]) -> None:
        """Take tasks of one job: open places first, then the next tasks of a cursor."""
        if job["vacancies"]:
            self._take(job["job_no"], "take_vacancies", own=False, start_at=0.0)
        if job["lanes"]:
            self._take(job["job_no"], "take_lane")

    def _insist(self, claimable: Sequence[dict[str, Any]]) -> None:
        """Look again, for an annotator who would come back empty.

        Wait for another claim that is just taking tasks, look at another place among many vacancies,
        and offer tasks again that the annotator has let go of.
        """
        waited_for = next((job for job in claimable if job["lanes"]), None)
        # A claim that has moved a lane over ended tasks holds it, and must not wait for another one.
        if waited_for and not self._holds_lanes:
            self._tx.execute(_SQL["await_lane"], self._values | {"job_no": waited_for["job_no"]})
            self._take(waited_for["job_no"], "take_lane")
        for job in claimable:
            # A lane that this claim has moved may have left a task vacant that needs no more places.
            for start_at in (0.0, random.random()) if job["vacancies"] or self._holds_lanes else ():  # noqa: S311
                self._take(job["job_no"], "take_vacancies", own=True, start_at=start_at)

    def _take(self, job_no: int, query: str, **more: Any) -> None:
        window = 0
        while len(self._rows) < self._limit and self._looks < _LOOKS_MAX:
            self._looks += 1
            wanted = self._limit - len(self._rows)
            bounds = {
                "job_no": job_no,
                "limit": wanted,
                "vacancies_max": _VACANCIES_MAX,
                # Mostly the next tasks are free; where they are not, look at many at once.
                "window_tasks": max(window, wanted),
            }
            rows = self._tx.execute(_SQL[query], self._values | bounds | more).fetchall()
            if not rows:
                return
            self._holds_lanes |= query == "take_lane"
            self._rows += ((job_no, row) for row in rows if row["task_no"] is not None)
            window = _WINDOW_TASKS


def describe_claimed(
    tx: Transaction, rows: Sequence[tuple[int, dict[str, Any]]]
) -> list[ClaimedTask]:
    """Return the tasks of `rows` of (job number, task number and lease) as annotators are shown them.

    Those on corrupt pages are left out.
    """
    if not rows:
        return []
    keys = [(job_no, row["task_no"]) for job_no, row in rows]
    found = tx.execute(_SQL["describe"], pages.find_runs(keys), binary=True).fetchall()
    jobs_by_no = {row["job_no"]: msgspec.convert(row, LabelledJob) for row in found}
    lines = pages.pick_whole(found, keys)
    return [
        _task(jobs_by_no[key[0]], row, lines[key])
        for key, (_, row) in zip(keys, rows, strict=True)
        if key in lines
    ]


def _task(job: LabelledJob, row: dict[str, Any], line: GoodLine) -> ClaimedTask:
    return ClaimedTask(
        task_id=task_id(job.job_id, row["task_no"]),
        data_url=line.data_url,
        metadata=show_members(line.metadata, job.shown_metadata),
        lease_expires_at=row["expires_at"],
        job=job,
        text=line.text,
    )


class _Entry(NamedTuple):
    """The `n`th label of a batch, whose task's id could be read."""

    n: int
    job_id: str
    task_no: int
    label: str


def submit(
    tx: Transaction,
    annotator_no: int,
    labels: Sequence[Label],
    *,
    jobs_done: Collection[int] = (),
) -> list[LabelOutcome]:
    """Record labels; return what became of each, in their order.

    A job whose last task has settled goes on to its delivery or its end; so do `jobs_done`, of which
    the transaction has ended a chunk's last task before.
    """
    entries = _read_entries(labels)
    rows = tx.execute(_SQL["submit_labels"], _columns(entries, annotator_no)).fetchall()
    accepted = [row for row in rows if row["label"] is not None]
    label_batches.record(tx, annotator_no, accepted)
    _hand_back(tx, annotator_no, [row for row in rows if row["label"] is None])
    outcomes = _find_accepted(entries, accepted)
    refused = [entry for entry in entries if entry.n not in outcomes]
    if refused:
        rows = tx.execute(_SQL["explain_refused"], _columns(refused, annotator_no)).fetchall()
        outcomes |= {row["n"]: LabelOutcome(row["outcome"]) for row in rows}
        ended = {
            row["n"]: (row["job_no"], row["task_no"])
            for row in rows
            if row["may_be_archived"] and row["outcome"] == LabelOutcome.ALREADY_SETTLED
        }
        archived = archive.find_options(tx, annotator_no, ended.values())
        outcomes |= {n: LabelOutcome.DUPLICATE for n, key in ended.items() if key in archived}
    webhook_messages.announce_tasks(
        tx,
        [(row["job_no"], row["job_id"], row["task_no"]) for row in accepted if _is_announced(row)],
    )
    jobs.settle(tx, {row["job_no"] for row in accepted if row["chunk_done"]} | {*jobs_done})
    return [outcomes.get(n, LabelOutcome.UNKNOWN_TASK) for n in range(len(labels))]


def _hand_back(tx: Transaction, annotator_no: int, rows: Sequence[dict[str, Any]]) -> None:
    """Leave tasks vacant that were let go of by labels that did not count, if they still need one."""
    if rows:
        values = {
            "annotator_no": annotator_no,
            "job_nos": [row["job_no"] for row in rows],
            "task_nos": [row["task_no"] for row in rows],
        }
        tx.execute(_SQL["hand_back"], values)


def _read_entries(labels: Sequence[Label]) -> list[_Entry]:
    keys = [parse_task_id(label.task_id) for label in labels]
    return [_Entry(n, *key, labels[n].label) for n, key in enumerate(keys) if key]


def _find_accepted(
    entries: Sequence[_Entry], rows: Sequence[dict[str, Any]]
) -> dict[int, LabelOutcome]:
    """Return the outcomes of accepted labels by their numbers; of equal ones the first was accepted."""
    first_of: dict[tuple[str, int, str], int] = {}
    for entry in entries:
        first_of.setdefault((entry.job_id, entry.task_no, entry.label), entry.n)
    return {
        first_of[row["job_id"], row["task_no"], row["label"]]: (
            LabelOutcome.SETTLED if row["settled"] else LabelOutcome.ACCEPTED
        )
        for row in rows
    }


def _is_announced(row: dict[str, Any]) -> bool:
    return bool(row["settled"] and row["announces"])


def list_options(tx: Transaction, job_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the options of jobs by their ids."""
    rows = tx.execute(_SQL["list_options"], {"job_ids": list(job_ids)}).fetchall()
    return {row["job_id"]: row["options"] for row in rows}


def find_not_handed_out(tx: Transaction, annotator_no: int, task_ids: Iterable[str]) -> set[str]:
    """Return those of `task_ids`, whose labels were refused as unknown, that nobody was handed yet."""
    keys = [key for key in map(parse_task_id, task_ids) if key]
    rows = tx.execute(_SQL["find_not_handed_out"], _keys(keys, annotator_no)).fetchall()
    return {task_id(row["job_id"], row["task_no"]) for row in rows}


def release(tx: Transaction, annotator_no: int, task_ids: Sequence[str]) -> set[str]:
    """Hand tasks back without a label; return the ids of those that the annotator held."""
    keys = [key for key in map(parse_task_id, task_ids) if key]
    rows = tx.execute(_SQL["release"], _keys(keys, annotator_no)).fetchall()
    return {task_id(row["job_id"], row["task_no"]) for row in rows}


def _keys(keys: Sequence[tuple[str, int]], annotator_no: int) -> dict[str, Any]:
    return {
        "annotator_no": annotator_no,
        "job_ids": [job_id for job_id, _ in keys],
        "task_nos": [task_no for _, task_no in keys],
    }


def _columns(entries: Sequence[_Entry], annotator_no: int) -> dict[str, Any]:
    """Return labels as arrays; ids of jobs and texts that they share stand once."""
    ns, job_ids, task_nos, labels = zip(*entries, strict=True) if entries else ((),) * 4
    job_nths = {job_id: nth for nth, job_id in enumerate(dict.fromkeys(job_ids), start=1)}
    label_nths = {label: nth for nth, label in enumerate(dict.fromkeys(labels), start=1)}
    return {
        "annotator_no": annotator_no,
        "job_ids": list(job_nths),
        "labels": list(label_nths),
        "ns": arrays.as_text(ns),
        "job_nths": arrays.as_text(job_nths[job_id] for job_id in job_ids),
        "task_nos": arrays.as_text(task_nos),
        "label_nths": arrays.as_text(label_nths[label] for label in labels),
    }
