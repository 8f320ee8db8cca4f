"""Record on a job what its runs failed by, so that it says what it waits for; and end it in time.

Time may mend what is `Transient`, and an operator what is theirs: that ends after `REFINERY_WAIT_S_MAX`.
Any other error is ours: it ends when three runs came to the same. A run that is killed says nothing and
does not count, nor does an outage of PostgreSQL or Prefect, which are no job's fault.
"""

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any

import httpx
from prefect import Task
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException
from tenacity import RetryCallState

from blocks import logs
from blocks.errors import (
    InternalError,
    RefineryError,
    StoreUnavailable,
    Terminal,
    Transient,
    UndecryptableCredentials,
)
from blocks.prefect_api import PrefectUnavailable
from blocks.store import waits
from blocks.store.database import DatabaseUnavailable
from blocks.store.waits import Failures
from flows.resources import Overtaken, UnknownJob, database, settings

PROCESS_JOB = "process_job"
DELIVER_JOB = "deliver_job"

logger = logs.get_logger("refinery.setbacks")

_EQUAL_RUNS_MAX = 3
# Reconcile looks every minute for runs that have ended.
_NEXT_RUN_S = 60.0
_OUTAGES = (
    DatabaseUnavailable,
    PrefectUnavailable,
    PrefectException,
    httpx.HTTPError,  # Prefect's client; stores are not asked by httpx
    BrokenExecutor,  # somebody has killed a process of the run
)
_OURS = "It failed by an error of the service; the operators can see it."
_SEALED = "The job's credentials cannot be opened just now; the operators can see it."


@contextmanager
def recorded(job_id: str, kind: str) -> Iterator[None]:
    """Record what ends a run of the job inside, and raise it; or what ends the job, if it is over.

    Raises:
        StoreUnavailable: the failures have lasted for longer than the settings allow.
        InternalError: three runs in a row were ended by the same error of ours.
    """
    try:
        yield
    except (Terminal, Overtaken, UnknownJob, *_OUTAGES):
        raise
    except Exception as error:
        failure = None if isinstance(error, RefineryError) else _place_of(error)
        failures = _record(job_id, kind, error, delay_s=_NEXT_RUN_S, failure=failure)
        if failures and (failures.is_over or failures.equal_failures >= _EQUAL_RUNS_MAX):
            raise _end(job_id, error, failure, failures) from error
        raise


def record_retry(task: Task[Any, Any], run: TaskRun, error: Transient) -> None:
    """Record that a task of a job has failed and is tried again; nothing outside a task run."""
    context = TaskRunContext.get()
    job_id = context.parameters.get("job_id") if context else None
    if job_id:
        _record(job_id, _kind_of(task), error, delay_s=_delay_s(task, run))


def recorder(job_id: str, kind: str) -> Callable[[RetryCallState], None]:
    """The same as `before_sleep` of a step that is tried again within a task."""

    def record(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Transient):
            _record(job_id, kind, error, delay_s=state.upcoming_sleep)

    return record


def _record(
    job_id: str, kind: str, error: Exception, *, delay_s: float, failure: str | None = None
) -> Failures | None:
    if isinstance(error, _OUTAGES):
        return None
    try:
        with database().transaction() as tx:
            return waits.record(
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


def _end(job_id: str, error: Exception, failure: str | None, failures: Failures) -> Terminal:
    since = f"{failures.since:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(error, Transient):
        return StoreUnavailable(
            f"{error.message} It failed {failures.tries} times since {since}, and is not tried again."
        )
    # The exception's own text may quote what is the customer's, so it is left out.
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
    """The type of an error, and the innermost function of ours that it came through."""
    place = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("flows.", "blocks.")) and module != __name__:
            place = f" in {module}.{frame.f_code.co_name}"
    return f"{type(error).__qualname__}{place}"


def _kind_of(task: Task[Any, Any]) -> str:
    # The module of a flow has the name of the work.
    return task.fn.__module__.rpartition(".")[2]


def _delay_s(task: Task[Any, Any], run: TaskRun) -> float:
    delays = task.retry_delay_seconds
    if isinstance(delays, list):
        return float(delays[min(run.run_count, len(delays)) - 1])
    return float(delays) if isinstance(delays, (int, float)) else 0.0
