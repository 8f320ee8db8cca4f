"""What jobs wait for: recorded by runs that could not go on, and read for customers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from blocks.domain.limits import LABELS_MAX, SKIPS_MAX_MAX
from blocks.domain.model import JobStatus, SkipReason, WaitsFor
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from blocks.store.queries import load

_SQL = load("waits")

# With more annotators than a task has labels and skips, none is short of them.
_ANNOTATORS_MAX = LABELS_MAX + len(SkipReason) * (SKIPS_MAX_MAX - 1) + 1
_TASKS_MAX = 100
# Shorter waits are not told: every job has them.
_TURN_MIN = timedelta(seconds=2)
_BEGIN_MIN = timedelta(seconds=5)


class Failures(msgspec.Struct, frozen=True):
    """Failures in a row of the work of a job; `equal_failures` runs in a row ended by the same error."""

    tries: int
    since: datetime
    is_over: bool
    equal_failures: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What a job waits for, and why; `since` when.

    `tries` counts those that failed since then. `next_try_at` is null while a try is under way, and
    where none comes by itself. A failure after `gives_up_at` fails the job, or its delivery.
    `annotators` more people are needed, so that each open task can get its next labels.
    """

    what: WaitsFor
    """What the job waits for."""
    reason: str
    """Why, for people."""
    since: datetime
    """Since when."""
    tries: int = 0
    """How many tries have failed since then."""
    next_try_at: datetime | None = None
    """When the next try comes; null while one is under way, and where none comes by itself."""
    gives_up_at: datetime | None = None
    """When the job, or its delivery, fails if nothing changes; null if it waits for any time."""
    annotators: int | None = None
    """How many more annotators are needed; null where it waits for something else."""
    tasks: int | None = None
    """How many tasks wait for a reviewer; null where the job waits for something else."""


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `list_runs`."""

    job_no: int
    kind: str
    launched_at: datetime | None
    launches: int
    failures: int
    waiting_since: datetime
    tries: int
    reason: str | None
    failing_since: datetime | None
    gives_up_at: datetime | None
    next_try_at: datetime | None
    is_stopped: bool
    now: datetime


def record_failure(
    tx: Transaction,
    job_id: str,
    kind: str,
    *,
    reason: str,
    delay_s: float,
    wait_s_max: float,
    failure: str | None = None,
) -> Failures | None:
    """Record that a try has failed and the next comes in `delay_s` seconds; None if the work is done.

    `failure` names the error of a run that neither time nor the customer can mend.
    """
    values = {
        "job_id": job_id,
        "kind": kind,
        "reason": reason,
        "delay_s": delay_s,
        "wait_s_max": wait_s_max,
        "failure": failure,
    }
    row = tx.execute(_SQL["record_failure"], values).fetchone()
    return msgspec.convert(row, Failures) if row else None


def failed_for_s(tx: Transaction, job_id: str, kind: str) -> float:
    """Return for how many seconds the work has failed in a row; 0 if it made progress or is done."""
    row = tx.execute(_SQL["failed_for"], {"job_id": job_id, "kind": kind}).fetchone()
    return float(row["failed_for_s"]) if row else 0.0


def forget_failures(tx: Transaction, job_no: int, kind: str) -> None:
    """Forget the failures so far: the work has made progress."""
    tx.execute(_SQL["forget_failures"], {"job_no": job_no, "kind": kind})


def find_waits(tx: Transaction, jobs: Sequence[Job]) -> dict[int, Waiting]:
    """Return what jobs wait for, by their numbers; those that wait for nothing are left out."""
    by_no = {job.job_no: job for job in jobs}
    rows = tx.execute(_SQL["list_runs"], {"job_nos": list(by_no)}).fetchall()
    runs = [msgspec.convert(row, _Run) for row in rows]
    found = {run.job_no: _describe_run(by_no[run.job_no], run) for run in runs}
    waiting = {job_no: each for job_no, each in found.items() if each}
    paused = {
        job.job_no: _describe_pause(job, job.paused_since) for job in jobs if job.paused_since
    }
    labelling = [
        job.job_no for job in jobs if _is_labelled(job) and job.job_no not in found.keys() | paused
    ]
    under_review = _find_under_review(tx, [by_no[job_no] for job_no in labelling])
    return waiting | _find_short_of_annotators(tx, labelling) | under_review | paused


def _describe_pause(job: Job, since: datetime) -> Waiting:
    what, it = "the job", "it"
    if job.customer_paused_at:
        what, it = "all jobs of the customer", "them"
    reason = f"An operator has paused {what}; nothing new is begun until they resume {it}."
    return Waiting(what=WaitsFor.OPERATOR, reason=reason, since=since)


def _is_labelled(job: Job) -> bool:
    is_open = job.status is JobStatus.PROCESSING and job.settled_at is None
    return is_open and job.ingested_at is not None


def _describe_run(job: Job, run: _Run) -> Waiting | None:
    if run.failures or run.is_stopped or run.failing_since:
        return _describe_trouble(run)
    if run.launched_at is None:
        return _describe_turn(run)
    is_begun = job.status is not JobStatus.ACCEPTED and job.delivery_status != "pending"
    if is_begun or run.now - run.launched_at <= _BEGIN_MIN:
        return None
    return _wait_for_prefect(run, "Prefect was asked for a run; no worker has begun it yet.")


def _describe_trouble(run: _Run) -> Waiting:
    """Return what work waits for that Prefect, an operator or its store keeps from going on."""
    if run.failures:
        reason = "Prefect, which starts the runs of jobs, cannot be reached."
        return _wait_for_prefect(run, reason, run.failures)
    if run.is_stopped:
        done = "paused the run; it goes on when they resume it."
        if run.launched_at is None:
            done = "stopped the run; it goes on when they retry it."
        return _wait_for_prefect(run, f"An operator has {done}")
    assert run.failing_since is not None  # the caller has looked
    return Waiting(
        what=WaitsFor.STORE if run.kind == "process_job" else WaitsFor.DELIVERY,
        reason=run.reason or "",
        tries=run.tries,
        since=run.failing_since,
        next_try_at=run.next_try_at if run.next_try_at and run.next_try_at > run.now else None,
        gives_up_at=run.gives_up_at,
    )


def _describe_turn(run: _Run) -> Waiting | None:
    """Return what work waits for that has no run; None if it has waited for a moment only."""
    if run.launches:
        reason = "The last run ended too early; another one is started."
        return _wait_for_prefect(run, reason, run.launches)
    if run.now - run.waiting_since <= _TURN_MIN:
        return None
    reason = "Other jobs come first; this one is begun when it is its turn."
    return Waiting(what=WaitsFor.TURN, reason=reason, since=run.waiting_since)


def _wait_for_prefect(run: _Run, reason: str, tries: int = 0) -> Waiting:
    is_asked_for = run.launched_at and not run.failures
    since = run.launched_at if is_asked_for and not run.is_stopped else None
    next_try_at = None if is_asked_for else run.next_try_at
    return Waiting(
        what=WaitsFor.PREFECT,
        reason=reason,
        since=since or run.waiting_since,
        tries=tries,
        next_try_at=next_try_at,
    )


def _find_under_review(tx: Transaction, jobs: Sequence[Job]) -> dict[int, Waiting]:
    """Return the jobs of which all tasks have ended but those that wait for a reviewer."""
    left = {job.job_no: job.total_tasks - job.tasks_done - job.tasks_failed for job in jobs}
    job_nos = [job.job_no for job in jobs if job.has_review and left[job.job_no]]
    if not job_nos:
        return {}
    return {
        row["job_no"]: Waiting(
            what=WaitsFor.REVIEWERS,
            reason=_describe_under_review(row["tasks"]),
            since=row["since"],
            tasks=row["tasks"],
        )
        for row in tx.execute(_SQL["count_under_review"], {"job_nos": job_nos})
        if row["tasks"] == left[row["job_no"]]
    }


def _describe_under_review(tasks: int) -> str:
    who = "1 task waits" if tasks == 1 else f"{tasks} tasks wait"
    return f"{who} for a reviewer; everything else is done."


def _find_short_of_annotators(tx: Transaction, job_nos: Sequence[int]) -> dict[int, Waiting]:
    if not job_nos:
        return {}
    excluded = tx.execute(_SQL["count_excluded"], {"job_nos": list(job_nos)}).fetchone()
    assert excluded is not None  # an aggregate
    values: dict[str, Any] = {
        "job_nos": list(job_nos),
        # So many that enough are left without those who are excluded.
        "annotators_max": _ANNOTATORS_MAX + excluded["annotators"],
        "tasks_max": _TASKS_MAX,
        "reasons": len(SkipReason),
    }
    return {
        row["job_no"]: Waiting(
            what=WaitsFor.ANNOTATORS,
            reason=_describe_wanted(row["wanted"]),
            since=row["since"],
            annotators=row["wanted"],
        )
        for row in tx.execute(_SQL["wanted_annotators"], values)
    }


def _describe_wanted(annotators: int) -> str:
    who = "1 more annotator is" if annotators == 1 else f"{annotators} more annotators are"
    return f"{who} needed: there are tasks that want labels of more people than there are."
