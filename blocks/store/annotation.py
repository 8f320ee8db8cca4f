"""Handing out tasks and taking labels. The rules are in `sql/annotation.sql`."""

import random
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from blocks.domain.ids import parse_task_id, task_id
from blocks.domain.metadata import show
from blocks.domain.model import LabelOutcome, TaskType
from blocks.store import jobs, webhooks
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("annotation")

# What a claim looks at: bounds on its cost where much is open that is not for this annotator. Where they
# cut something off, it is another part of it each time.
_JOBS_MAX = 200
_VACANCIES_MAX = 5_000
_WINDOW_TASKS = 1_000
_LOOKS_MAX = 50
_OUTLOOK_TASKS_MAX = 1_000

# The first of the two numbers of an advisory lock; the second is the annotator's.
_LEASES_RETURNED_MAX = 100  # by one claim
_CLAIM_LOCK = 731


class LabelledJob(msgspec.Struct, frozen=True):
    """What an annotator needs to know of a job; of metadata only `shown_metadata` reaches them."""

    job_id: str
    task_type: TaskType
    question: str
    options: list[str]
    shown_metadata: list[str] | None = None


class ClaimedTask(msgspec.Struct, frozen=True):
    """A task in an annotator's hands until `lease_expires_at`; `metadata` is what they may see of it."""

    task_id: str
    data_url: str
    metadata: str | None
    lease_expires_at: datetime
    job: LabelledJob


class ClaimKey(NamedTuple):
    """By what a claim is known when it comes again: its key, and the SHA-256 of what it asked for."""

    key: str
    digest: bytes


class Label(msgspec.Struct, frozen=True):
    """What an annotator says of a task: one of its job's options."""

    task_id: str
    label: str


def return_leases(tx: Transaction, *, limit: int) -> int:
    """Take back what was claimed and not labelled in time; how many leases that were.

    Every claim does that for some of them; this is for when nobody claims.
    """
    return len(tx.execute(_SQL["return_leases"], {"leases_max": limit}).fetchall())


def take_leases_back(tx: Transaction, annotator_no: int) -> int:
    """Take back the tasks that the annotator holds and may not label any more; how many that were.

    Those are all of them, where every key of theirs is revoked, and else those of customers that
    they are not for. Others are handed them at once.
    """
    await_claims(tx, annotator_no)
    row = tx.execute(_SQL["take_leases_back"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # a sum
    tasks: int = row["tasks"]
    return tasks


def await_claims(tx: Transaction, annotator_no: int) -> None:
    """Wait for the annotator's claims that are under way, and let no other begin before the commit."""
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
    """Up to `limit` tasks of jobs by their priority; of one priority, customers have equal shares.

    Their leases keep `key`, for `leases.claimed`.
    """
    annotator = {"annotator_no": annotator_no}
    begin = annotator | {"lock": _CLAIM_LOCK, "leases_max": _LEASES_RETURNED_MAX}
    tx.execute(_SQL["begin_claim"], begin)
    survey = annotator | {
        "task_types": list(task_types) if task_types else None,
        "job_id": job_id,
        "seed": random.getrandbits(63),
        "jobs_max": _JOBS_MAX,
        "vacancies_max": _VACANCIES_MAX,
    }
    claimable = tx.execute(_SQL["claimable_jobs"], survey).fetchall()
    lease = {
        "lease_s": lease_s,
        "claim_key": key.key if key else None,
        "claim_digest": key.digest if key else None,
    }
    taking = _Claim(tx, annotator | lease, limit)
    for job in claimable:
        taking.take(job)
    if claimable and not taking.rows:
        taking.insist(claimable)
    return claimed_tasks(tx, taking.rows)


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
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def take(self, job: dict[str, Any]) -> None:
        """What is vacant, before what comes next."""
        if job["vacancies"]:
            self._take(job["job_no"], "take_vacancies", own=False, start_at=0.0)
        if job["lanes"]:
            self._take(job["job_no"], "take_lane")

    def insist(self, claimable: Sequence[dict[str, Any]]) -> None:
        """The second look, of who would come back empty.

        It waits for who is just taking tasks, it looks among many vacancies at another place, and
        it takes back what the annotator has let go of.
        """
        waited_for = next((job for job in claimable if job["lanes"]), None)
        # Who moved a lane over tasks that have ended holds it, and must not wait for another.
        if waited_for and not self._holds_lanes:
            self._tx.execute(_SQL["await_lane"], self._values | {"job_no": waited_for["job_no"]})
            self._take(waited_for["job_no"], "take_lane")
        for job in claimable:
            for start_at in (0.0, random.random()) if job["vacancies"] else ():  # noqa: S311
                self._take(job["job_no"], "take_vacancies", own=True, start_at=start_at)

    def _take(self, job_no: int, query: str, **more: Any) -> None:
        window = 0
        while len(self.rows) < self._limit and self._looks < _LOOKS_MAX:
            self._looks += 1
            wanted = self._limit - len(self.rows)
            bounds = {
                "job_no": job_no,
                "limit": wanted,
                "vacancies_max": _VACANCIES_MAX,
                # Mostly the next ones can be had; where they cannot, many are looked at at once.
                "window_tasks": max(window, wanted),
            }
            rows = self._tx.execute(_SQL[query], self._values | bounds | more).fetchall()
            if not rows:
                return
            self._holds_lanes |= query == "take_lane"
            self.rows += ((job_no, row) for row in rows if row["byte_offset"] is not None)
            window = _WINDOW_TASKS


def claimed_tasks(tx: Transaction, rows: Sequence[tuple[int, dict[str, Any]]]) -> list[ClaimedTask]:
    """Return rows of tasks, each with its job's number, as annotators are told of them."""
    if not rows:
        return []
    job_nos = list({job_no for job_no, _ in rows})
    described = tx.execute(_SQL["describe_jobs"], {"job_nos": job_nos}).fetchall()
    jobs_by_no = {row["job_no"]: msgspec.convert(row, LabelledJob) for row in described}
    return [_task(jobs_by_no[job_no], row) for job_no, row in rows]


def _task(job: LabelledJob, row: dict[str, Any]) -> ClaimedTask:
    return ClaimedTask(
        task_id=task_id(job.job_id, row["byte_offset"]),
        data_url=row["data_url"],
        metadata=show(row["metadata"], job.shown_metadata),
        lease_expires_at=row["expires_at"],
        job=job,
    )


def submit(tx: Transaction, annotator_no: int, labels: Sequence[Label]) -> list[LabelOutcome]:
    """What became of each label, in their order. A job whose last task settles moves on."""
    outcomes: dict[int, LabelOutcome] = {}
    keys = [parse_task_id(label.task_id) for label in labels]
    known = [(n, *key, labels[n].label) for n, key in enumerate(keys) if key]
    accepted = tx.execute(_SQL["submit_labels"], _columns(known, annotator_no)).fetchall()
    first_of: dict[tuple[str, int, str], int] = {}
    for n, job_id, byte_offset, label in known:
        first_of.setdefault((job_id, byte_offset, label), n)
    for row in accepted:
        n = first_of[row["job_id"], row["byte_offset"], row["label"]]
        outcomes[n] = LabelOutcome.SETTLED if row["settled"] else LabelOutcome.ACCEPTED
    refused = [entry for entry in known if entry[0] not in outcomes]
    if refused:
        query = _SQL["explain_refused"]
        for row in tx.execute(query, _columns(refused, annotator_no)).fetchall():
            outcomes[row["n"]] = LabelOutcome(row["outcome"])
    webhooks.announce_tasks(
        tx,
        [
            (row["job_id"], row["byte_offset"])
            for row in accepted
            if row["settled"] and row["announces"]
        ],
    )
    for job_no in sorted({row["job_no"] for row in accepted if row["chunk_done"]}):
        jobs.settle(tx, job_no)
    return [outcomes.get(n, LabelOutcome.UNKNOWN_TASK) for n in range(len(labels))]


def options_of(tx: Transaction, job_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the options of jobs by their ids."""
    rows = tx.execute(_SQL["options_of_jobs"], {"job_ids": list(job_ids)}).fetchall()
    return {row["job_id"]: row["options"] for row in rows}


def not_handed_out(tx: Transaction, annotator_no: int, task_ids: Iterable[str]) -> set[str]:
    """Return those of `task_ids`, whose labels were refused as unknown, that nobody was handed yet."""
    keys = [key for key in map(parse_task_id, task_ids) if key]
    rows = tx.execute(_SQL["not_handed_out"], _keys(keys, annotator_no)).fetchall()
    return {task_id(row["job_id"], row["byte_offset"]) for row in rows}


def release(tx: Transaction, annotator_no: int, task_ids: Sequence[str]) -> set[str]:
    """Hand tasks back without a label; the ids of those that were the annotator's to hand back."""
    keys = [key for key in map(parse_task_id, task_ids) if key]
    rows = tx.execute(_SQL["release"], _keys(keys, annotator_no)).fetchall()
    return {task_id(row["job_id"], row["byte_offset"]) for row in rows}


def _keys(keys: Sequence[tuple[str, int]], annotator_no: int) -> dict[str, Any]:
    return {
        "annotator_no": annotator_no,
        "job_ids": [job_id for job_id, _ in keys],
        "byte_offsets": [byte_offset for _, byte_offset in keys],
    }


def _columns(entries: Sequence[tuple[int, str, int, str]], annotator_no: int) -> dict[str, Any]:
    """Labels as arrays: what they share stands once, in `job_ids` and `labels`."""
    ns, job_ids, byte_offsets, labels = zip(*entries, strict=True) if entries else ((),) * 4
    job_nths = {job_id: nth for nth, job_id in enumerate(dict.fromkeys(job_ids), start=1)}
    label_nths = {label: nth for nth, label in enumerate(dict.fromkeys(labels), start=1)}
    return {
        "annotator_no": annotator_no,
        "job_ids": list(job_nths),
        "labels": list(label_nths),
        "ns": _array(ns),
        "job_nths": _array(job_nths[job_id] for job_id in job_ids),
        "byte_offsets": _array(byte_offsets),
        "label_nths": _array(label_nths[label] for label in labels),
    }


def _array(numbers: Iterable[int]) -> str:
    # The driver's own way costs 2 µs for each number.
    return f"{{{','.join(map(str, numbers))}}}"
