"""Hand out tasks. The rules are in `sql/annotation.sql`."""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from blocks.domain.consensus import ALL
from blocks.domain.gold import expected_gold
from blocks.domain.ids import task_id
from blocks.domain.metadata import show_members
from blocks.domain.model import GoodLine, OptionDetail, TaskType
from blocks.store import pages, task_numbers
from blocks.store.database import Transaction
from blocks.store.lease_returns import CLAIM_LOCK, return_leases
from blocks.store.queries import load

_SQL = load("annotation")

# Upper bounds on the work of one claim. A claim that hits one starts at another random place the next
# time, so nothing starves.
_JOBS_MAX = 200
_VACANCIES_MAX = 5_000
_WINDOW_TASKS = 1_000
_LOOKS_MAX = 50
_OUTLOOK_TASKS_MAX = 1_000
_GOLD_LOOKED_AT_MAX = 100
_EARLIER_JOBS_MAX = 100  # whose counts an annotator's skill in a new one begins with

_LEASES_RETURNED_MAX = 100  # by one claim
# A claim takes back leases that ran out just now, and older ones where it would come back empty.
_OVERDUE_S_MAX = 10.0


class LabelledJob(msgspec.Struct, frozen=True):
    """What an annotator needs to know of a job; of metadata only `shown_metadata` reaches them."""

    job_id: str
    task_type: TaskType
    question: str
    options: list[str]
    shown_metadata: list[str] | None = None
    instructions_digest: bytes | None = None
    option_details: list[OptionDetail] | None = None
    sign_urls: bool = False


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
        "lock": CLAIM_LOCK,
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
    taking.count_given()
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


@dataclass
class _Given:
    """What an annotator was given of a job that has gold: `tasks`, `gold` ones among them.

    `gold_after` is where the next gold task is looked for, None where that stays.
    """

    tasks: int = 0
    gold: int = 0
    gold_after: int | None = None


class _Claim:
    """A claim that is being filled, job after job."""

    def __init__(self, tx: Transaction, values: dict[str, Any], limit: int) -> None:
        self._tx = tx
        self._values = values
        self._limit = limit
        self._looks = 0
        self._holds_lanes = False
        self._rows: list[tuple[int, dict[str, Any]]] = []
        self._given: dict[int, _Given] = {}

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
            if len(self._rows) < self._limit:
                self._take_of(job)
        if claimable and not self._rows:
            self._insist(claimable)

    def _take_of(self, job: dict[str, Any]) -> None:
        """Take tasks of one job, and gold among them where it has some."""
        if not job["is_enrolled"]:
            values = self._values | {"job_no": job["job_no"], "earlier_max": _EARLIER_JOBS_MAX}
            self._tx.execute(_SQL["enrol"], values)
        if job["has_gold"]:
            self._take_with_gold(job)
        else:
            self._take_open(job)

    def _take_open(self, job: dict[str, Any]) -> None:
        """Take tasks that need labels: open places first, then the next tasks of a cursor."""
        if job["vacancies"]:
            self._take(job, "take_vacancies", own=False, start_at=0.0)
        if job["lanes"]:
            self._take(job, "take_lane")

    def _take_with_gold(self, job: dict[str, Any]) -> None:
        """Take tasks of a job that has gold, and gold after them, which `describe_claimed` mixes."""
        start, limit = len(self._rows), self._limit
        due = _count_due_gold(job, limit - start)
        self._limit = limit - due
        self._take_open(job)
        self._limit = limit
        taken = len(self._rows) - start
        if taken < limit - start - due:  # there are no more: gold by itself would be known as such
            due = min(due, _count_due_gold(job, 2 * taken))
        found, gold_after = self._take_gold(
            job, [row["task_no"] for _, row in self._rows[start:]], due
        )
        if found < due:
            self._take_open(job)
        if tasks := len(self._rows) - start:
            given = self._given.setdefault(job["job_no"], _Given())
            given.tasks += tasks
            given.gold += found
            given.gold_after = gold_after

    def _take_gold(
        self, job: dict[str, Any], taken: Sequence[int], due: int
    ) -> tuple[int, int | None]:
        """Take up to `due` gold tasks beside those that were just `taken`.

        Return how many there were, and where the next claim looks for more, None where that stays.
        """
        if not due:
            return 0, None
        gold = {
            "job_no": job["job_no"],
            "limit": due,
            "first": min(taken, default=-1),
            "last": max(taken, default=-1),
            "gold_after": -1 if job["gold_after"] is None else job["gold_after"],
            "gold_max": min(_GOLD_LOOKED_AT_MAX, 2 * due + 4),
        }
        rows = self._tx.execute(_SQL["take_gold"], self._values | gold).fetchall()
        found = [(job["job_no"], row) for row in rows if row["task_no"] is not None]
        self._rows += found
        return len(found), rows[0]["gold_after"]

    def count_given(self) -> None:
        """Record what was given of jobs that have gold; this comes last."""
        if not self._given:
            return
        jobs = sorted(self._given.items())
        values = {
            "annotator_no": self._values["annotator_no"],
            "job_nos": [job_no for job_no, _ in jobs],
            "tasks": [given.tasks for _, given in jobs],
            "gold": [given.gold for _, given in jobs],
            "gold_after": [given.gold_after for _, given in jobs],
        }
        self._tx.execute_later(_SQL["count_given"], values)

    def _insist(self, claimable: Sequence[dict[str, Any]]) -> None:
        """Look again, for an annotator who would come back empty.

        Wait for another claim that is just taking tasks, look at another place among many vacancies,
        and offer tasks again that the annotator has let go of.
        """
        waited_for = next((job for job in claimable if job["lanes"]), None)
        # A claim that has moved a lane over ended tasks holds it, and must not wait for another one.
        if waited_for and not self._holds_lanes:
            self._tx.execute(_SQL["await_lane"], self._values | {"job_no": waited_for["job_no"]})
            self._take(waited_for, "take_lane")
        for job in claimable:
            # A lane that this claim has moved may have left a task vacant that needs no more places.
            for start_at in (0.0, random.random()) if job["vacancies"] or self._holds_lanes else ():  # noqa: S311
                self._take(job, "take_vacancies", own=True, start_at=start_at)

    def _take(self, job: dict[str, Any], query: str, **more: Any) -> None:
        job_no, window = job["job_no"], 0
        while len(self._rows) < self._limit and self._looks < _LOOKS_MAX:
            self._looks += 1
            wanted = self._limit - len(self._rows)
            bounds = {
                "job_no": job_no,
                "has_gold": job["has_gold"],
                "limit": wanted,
                "vacancies_max": _VACANCIES_MAX,
                # Mostly the next tasks are free; where they are not, look at many at once.
                "window_tasks": max(window, 2 * wanted if job["has_gold"] else wanted),
            }
            rows = self._tx.execute(_SQL[query], self._values | bounds | more).fetchall()
            if not rows:
                return
            self._holds_lanes |= query == "take_lane"
            self._rows += ((job_no, row) for row in rows if row["task_no"] is not None)
            if not rows[0].get("may_have_more", True):
                return
            window = _WINDOW_TASKS


def _count_due_gold(job: dict[str, Any], wanted: int) -> int:
    """Return how many gold tasks an annotator is to have among their next `wanted` of a job.

    What is left of a whole one is drawn by lot, so that a task's place does not tell that it is gold.
    """
    expected = expected_gold((job["tasks_given"] or 0) + wanted, job["gold_share"] / ALL)
    due = int(expected + random.random()) - (job["gold_given"] or 0)  # noqa: S311 - no secret
    return min(max(due, 0), wanted)


def describe_claimed(
    tx: Transaction, rows: Sequence[tuple[int, dict[str, Any]]]
) -> list[ClaimedTask]:
    """Return the tasks of `rows` of (job number, task number and lease) as annotators are shown them.

    Those on corrupt pages are left out. Tasks of a job that has gold come together, in the order of
    their ids, which does not tell which are gold.
    """
    if not rows:
        return []
    keys = [(job_no, row["task_no"]) for job_no, row in rows]
    found = tx.execute(_SQL["describe"], pages.find_runs(keys), binary=True).fetchall()
    jobs_by_no = {row["job_no"]: msgspec.convert(row, LabelledJob) for row in found}
    task_keys = {row["job_no"]: row["task_key"] for row in found}
    lines = pages.pick_whole(found, keys)
    tasks = [
        _task(jobs_by_no[key[0]], task_keys[key[0]], row, lines[key])
        for key, (_, row) in zip(keys, rows, strict=True)
        if key in lines
    ]
    with_gold = {row["job_id"] for row in found if row["has_gold"]}
    return _mix(tasks, with_gold) if with_gold else tasks


def _mix(tasks: Sequence[ClaimedTask], with_gold: Collection[str]) -> list[ClaimedTask]:
    """Put tasks of each job of `with_gold` together, at the first of them, in the order of their ids."""
    firsts: dict[str, int] = {}
    for n, task in enumerate(tasks):
        firsts.setdefault(task.job.job_id, n)

    def place(each: tuple[int, ClaimedTask]) -> tuple[int, int, str]:
        n, task = each
        if task.job.job_id not in with_gold:
            return n, 0, ""
        # Numbers in ids have no leading zeros, so the longer one is the greater.
        return firsts[task.job.job_id], len(task.task_id), task.task_id

    return [task for _, task in sorted(enumerate(tasks), key=place)]


def _task(job: LabelledJob, task_key: int, row: dict[str, Any], line: GoodLine) -> ClaimedTask:
    return ClaimedTask(
        task_id=task_id(job.job_id, task_key, row["task_no"]),
        data_url=line.data_url,
        metadata=show_members(line.metadata, job.shown_metadata),
        lease_expires_at=row["expires_at"],
        job=job,
        text=line.text,
    )


def find_not_handed_out(tx: Transaction, annotator_no: int, task_ids: Iterable[str]) -> set[str]:
    """Return those of `task_ids`, whose labels were refused as unknown, that nobody was handed yet."""
    query = _SQL["find_not_handed_out"]
    return set(task_numbers.execute(tx, query, task_ids, annotator_no=annotator_no))


def release(tx: Transaction, annotator_no: int, task_ids: Sequence[str]) -> set[str]:
    """Hand tasks back without a label; return the ids of those that the annotator held."""
    return set(task_numbers.execute(tx, _SQL["release"], task_ids, annotator_no=annotator_no))
