"""Do many small jobs of one customer, one after the other: a run for each costs more than its work.

Requires: the id of one of the jobs. The run takes the others from the database, one at a time.

A failure is recorded on its own job alone, and that job has a run of its own next; so has a job that
turns out to be large. A run that is killed leaves the two jobs that it holds to runs of their own. A run
ends when nothing small is left, or when another customer waits for its place.
"""

from collections import deque
from typing import Any
from uuid import UUID

import msgspec
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import tracing
from blocks.domain.errors import LedgerMismatch, Terminal
from blocks.store import outbox, runs
from blocks.store.database import DatabaseUnavailable
from blocks.store.runs import Work
from flows.reading import ingestion
from flows.running.deadlines import Deadline
from flows.running.monitor import mark_bad_lines, mark_batch, run_log, show_works, update_page
from flows.running.policy import RETRY
from flows.running.resources import (
    AlreadyDone,
    JobPaused,
    UnknownJob,
    database,
    ends_without_job,
    load_job,
    load_undelivered,
    refuse_paused,
    settings,
)
from flows.running.setbacks import PROCESS_JOB, record_failures
from flows.writing import delivery

# A page of the UI can show so many, and a flow's process does not grow old.
_WORKS_MAX = 250
_RETRY_S = 2.0


class WorkSeen(msgspec.Struct, frozen=True):
    """Tell what became of one job in a run."""

    job: str
    work: str
    outcome: str
    """done, failed, paused, or own run."""
    bad_lines: int
    message: str


@flow(name="small-jobs")
@ends_without_job
def small_jobs(job_id: str) -> State[Any]:
    """Do the work of the job, then that of others of its customer for as long as it is their turn."""
    job = load_job(job_id)
    seen: list[WorkSeen] = []
    deadline = Deadline()
    run_id = UUID(flow_run.id)
    mark_batch(job.customer_id)
    try:
        waiting = deque(_take_back(job.job_no, run_id))
        while waiting:
            work = waiting.popleft()
            # Take more before this is done: a run that holds nothing has lost its place.
            if not waiting and len(seen) + 1 < _WORKS_MAX and deadline.left_s:
                waiting.extend(_take_more(job.customer_id, run_id))
            seen.append(_do(work, run_id))
    finally:
        show_works(seen)
    mark_bad_lines({job.customer_id}, sum(each.bad_lines for each in seen))
    return _end(seen)


def _end(seen: list[WorkSeen]) -> State[Any]:
    counts = {
        outcome: sum(each.outcome == outcome for each in seen)
        for outcome in ("done", "failed", "paused", "own run")
    }
    message = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    failed = [each.job for each in seen if each.outcome == "failed"]
    if failed:
        return Failed(message=f"{message}: {', '.join(failed)}")
    return Completed(message=f"{message}." if seen else "There was nothing to do.")


def _do(work: Work, run_id: UUID) -> WorkSeen:
    # The run is a trace of its own, which this span is linked to.
    with tracing.span(
        work.kind.replace("_", " "), parent=work.traceparent, job_id=work.job_id
    ) as note:
        seen = _do_alone(work, run_id)
        note(outcome=seen.outcome, bad_lines=seen.bad_lines)
    return seen


def _do_alone(work: Work, run_id: UUID) -> WorkSeen:
    log = run_log(job_id=work.job_id, kind=work.kind)
    bad_lines = 0
    try:
        with record_failures(work.job_id, work.kind):
            if work.kind == PROCESS_JOB:
                message, bad_lines = _read(work.job_id)
            else:
                message = _deliver(work.job_id)
        if message is None:
            _hand_over(work, run_id, error=None, delay_s=0)
        outcome = "done" if message else "own run"
    except JobPaused as paused:
        outcome, message = "paused", paused.message
    except (AlreadyDone, UnknownJob) as nothing_to_do:
        outcome, message = "done", nothing_to_do.message
    except Terminal as error:
        if isinstance(error, LedgerMismatch):
            log.exception("ledger.mismatch")
        end = ingestion.fail if work.kind == PROCESS_JOB else delivery.refuse
        RETRY(end, work.job_id, error.code, error.message)
        outcome, message = "failed", f"{error.code}: {error.message}"
    except DatabaseUnavailable:
        raise  # nothing can be recorded about any job
    except Exception as error:
        # To wait here until time has mended it would hold up the other jobs.
        log.warning("work.failed", exc_info=True)
        _hand_over(work, run_id, error=type(error).__name__, delay_s=_RETRY_S)
        outcome, message = "own run", "It failed, and is tried again."
    log.info("work.ended", outcome=outcome, message=message)
    if outcome != "own run":
        update_page(work.job_id)
    return WorkSeen(work.job_id, work.kind, outcome, bad_lines, message or "It is large.")


def _read(job_id: str) -> tuple[str | None, int]:
    """Return a summary of the manifest, None if it is large; and how many lines are bad."""
    tally = ingestion.read_small(job_id)
    if tally is None:
        return None, 0
    lines = tally.tasks + tally.bad_lines
    return f"{lines} lines, {tally.bad_lines} of them bad", tally.bad_lines


def _deliver(job_id: str) -> str | None:
    """Return a summary of the delivery; None if the job is large, so nothing was delivered."""
    refuse_paused(load_undelivered(job_id))
    if not ingestion.is_small(job_id):
        return None
    objects = delivery.deliver(job_id)
    return f"delivered {sum(each.rows for each in objects)} rows"


@RETRY.wraps
def _take_back(job_no: int, run_id: UUID) -> list[Work]:
    with database().transaction() as tx:
        return runs.take_back(tx, job_no, run_id)


@RETRY.wraps
def _take_more(customer_id: str, run_id: UUID) -> list[Work]:
    with database().transaction() as tx:
        work = runs.take_more(
            tx, customer_id, run_id, per_customer_max=settings().runs_per_customer_max
        )
    return [work] if work else []


@RETRY.wraps
def _hand_over(work: Work, run_id: UUID, *, error: str | None, delay_s: float) -> None:
    with database().transaction() as tx:
        runs.hand_over(tx, work, run_id, error=error, delay_s=delay_s)
        outbox.wake(tx)
