"""Record on a job why its runs failed, so that it tells what it waits for; and end it in time.

Time may mend a `Transient` error, and operators may mend theirs: the job waits for up to
`REFINERY_WAIT_S_MAX`. Any other error is a bug of ours: the job ends when three runs failed by the same
one. A run that is killed records nothing and does not count, nor does an outage of PostgreSQL or
Prefect, which are no job's fault.

A run waits for seconds only. If its work has failed for longer, the run ends, so that waiting work has
no process and no place among its customer's runs; another run comes later.
"""

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import Task
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from tenacity import RetryCallState

from blocks import logs
from blocks.domain.errors import (
    InternalError,
    RefineryError,
    StoreUnavailable,
    Terminal,
    Transient,
    UndecryptableCredentials,
)
from blocks.prefect.api import PrefectUnavailable
from blocks.store import outbox, runs, waits
from blocks.store.database import DatabaseUnavailable
from blocks.store.waits import Failures
from flows.running.resources import AlreadyDone, JobPaused, UnknownJob, database, settings

PROCESS_JOB = "process_job"
DELIVER_JOB = "deliver_job"

logger = logs.get_logger("refinery.setbacks")

WAIT_IN_RUN_S = 30.0
"""A run does not try work again that has failed for longer than this."""

_EQUAL_RUNS_MAX = 3
_OUTAGES = (
    DatabaseUnavailable,
    PrefectUnavailable,
    PrefectException,
    httpx.HTTPError,  # raised by Prefect's client; stores are not asked by httpx
    BrokenExecutor,  # somebody has killed a process of the run
)
_OURS = "It failed by an error of the service; the operators can see it."
_SEALED = "The job's credentials cannot be opened just now; the operators can see it."


@contextmanager
def record_failures(job_id: str, kind: str) -> Iterator[None]:
    """Record the error that ends a run inside, and raise it; or raise the one that ends the job.

    The work of a job that was paused meanwhile is laid down, and nothing is recorded.

    Raises:
        StoreUnavailable: the failures have lasted for longer than the settings allow.
        InternalError: three runs in a row were ended by the same error of ours.
    """
    try:
        yield
    except JobPaused:
        _lay_down(job_id, kind)
        raise
    except (Terminal, AlreadyDone, UnknownJob, *_OUTAGES):
        raise
    except Exception as error:
        failure = None if isinstance(error, RefineryError) else _place_of(error)
        delay_s = runs.RELAUNCH_DELAY_S
        failures = _record(job_id, kind, error, delay_s=delay_s, failure=failure)
        if failures and (failures.is_over or failures.equal_failures >= _EQUAL_RUNS_MAX):
            raise _end(job_id, error, failure, failures) from error
        _give_back(job_id, kind, error)
        raise


def is_tried_again(task: Task[Any, Any], run: TaskRun, error: Transient) -> bool:
    """Record that a task of a job has failed; return False if its run has waited for long enough."""
    context = TaskRunContext.get()
    job_id = context.parameters.get("job_id") if context else None
    if not job_id or isinstance(error, _OUTAGES):
        return True
    kind = _kind_of(task)
    if has_waited(job_id, kind):
        return False
    _record(job_id, kind, error, delay_s=_delay_s(task, run))
    return True


def retry_recorder(job_id: str, kind: str) -> Callable[[RetryCallState], None]:
    """Return a `before_sleep` that records the failures of a step which is tried again in a task."""

    def record(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Transient):
            _record(job_id, kind, error, delay_s=state.upcoming_sleep)

    return record


def has_waited(job_id: str, kind: str) -> bool:
    """Return True if work of the job has failed for longer than a run tries it again."""
    return _failed_for_s(job_id, kind) > WAIT_IN_RUN_S


def _record(
    job_id: str, kind: str, error: Exception, *, delay_s: float, failure: str | None = None
) -> Failures | None:
    if isinstance(error, _OUTAGES):
        return None
    try:
        with database().transaction() as tx:
            return waits.record_failure(
                tx,
                job_id,
                kind,
                reason=_reason(error),
                delay_s=delay_s,
                wait_s_max=settings().wait_s_max,
                failure=failure,
            )
    except DatabaseUnavailable as unavailable:
        logger.warning("setback.not_recorded", job_id=job_id, reason=unavailable.message)
        return None


def _failed_for_s(job_id: str, kind: str) -> float:
    try:
        with database().transaction() as tx:
            return waits.failed_for_s(tx, job_id, kind)
    except DatabaseUnavailable:
        return 0.0


def _give_back(job_id: str, kind: str, error: Exception) -> None:
    """Free the place of the run that ends now, instead of when reconcile looks next."""
    if not flow_run.id:
        return
    try:
        with database().transaction() as tx:
            reason = _reason(error)
            if runs.give_back(tx, job_id, kind, UUID(flow_run.id), error=reason):
                outbox.wake(tx)
    except DatabaseUnavailable as unavailable:
        logger.warning("setback.not_given_back", job_id=job_id, reason=unavailable.message)


def _lay_down(job_id: str, kind: str) -> None:
    if not flow_run.id:
        return
    try:
        with database().transaction() as tx:
            runs.lay_down(tx, job_id, kind, UUID(flow_run.id))
    except DatabaseUnavailable as unavailable:
        logger.warning("setback.not_laid_down", job_id=job_id, reason=unavailable.message)


def _end(job_id: str, error: Exception, failure: str | None, failures: Failures) -> Terminal:
    since = f"{failures.since:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(error, Transient):
        return StoreUnavailable(
            f"{error.message} It failed {failures.tries} times since {since}, and is not tried again."
        )
    # The exception's own text may quote customers' data, so it is left out.
    logger.error(
        "job.internal_error",
        job_id=job_id,
        failure=failure or type(error).__name__,
        runs=failures.equal_failures or failures.tries,
    )
    return InternalError(
        f"{_reason(error)} It failed {failures.tries} times since {since}, and is not tried again."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, Transient):
        return error.message
    return _SEALED if isinstance(error, UndecryptableCredentials) else _OURS


def _place_of(error: Exception) -> str:
    """Return the type of an error, and the innermost function of ours that it came through."""
    place = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("flows.", "blocks.")) and module != __name__:
            place = f" in {module}.{frame.f_code.co_name}"
    return f"{type(error).__qualname__}{place}"


def _kind_of(task: Task[Any, Any]) -> str:
    # Each flow's module is named after its kind of work.
    return task.fn.__module__.rpartition(".")[2]


def _delay_s(task: Task[Any, Any], run: TaskRun) -> float:
    delays = task.retry_delay_seconds
    if isinstance(delays, list):
        return float(delays[min(run.run_count, len(delays)) - 1])
    return float(delays) if isinstance(delays, (int, float)) else 0.0
