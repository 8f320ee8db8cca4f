"""Define the retries, bounds and cache rules of the flows, with their reasons."""

from collections.abc import Callable
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from blocks.domain.errors import RunEnded, Transient
from blocks.settings import ChunkRunner, Settings
from flows.running.setbacks import WAIT_IN_RUN_S, has_waited, is_tried_again, retry_recorder

# 1, 2, 4, 8, 16 s and jitter: a store that is overloaded for half a minute costs time and nothing else.
# A longer outage ends the run; the next one tries once, and finds what is done already.
_RETRIES = 5
_BACKOFF_S = 1
_JITTER = 0.5


def is_transient(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed task may be tried again: by the type of its error, never by its text.

    Prefect asks this after each failure but the last, so the failure is recorded on the job here.
    """
    error = state.result(raise_on_failure=False)
    if not isinstance(error, Transient) or isinstance(error, RunEnded):
        return False
    return is_tried_again(task, run, error)


NETWORK_TASK: dict[str, Any] = {
    "retries": _RETRIES,
    "retry_delay_seconds": exponential_backoff(backoff_factor=_BACKOFF_S),
    "retry_jitter_factor": _JITTER,
    "retry_condition_fn": is_transient,
    # PostgreSQL records what is done, in the transaction that did it. A result kept by Prefect would be
    # a second opinion.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
"""Options of every task that talks to a store or the database."""


RETRY = Retrying(
    retry=retry_if_exception_type(Transient),
    stop=stop_after_attempt(1 + _RETRIES) | stop_after_delay(WAIT_IN_RUN_S),
    wait=wait_exponential_jitter(initial=_BACKOFF_S, exp_base=2, jitter=_BACKOFF_S * _JITTER),
    reraise=True,
)
"""The same retries for a step within a task that must not begin anew: `RETRY.wraps(step)`."""


def step_retries(job_id: str, kind: str, *, tell: Callable[[RetryCallState], None]) -> Retrying:
    """Return the retries of a step of a job, which are recorded on it and told to `tell`.

    They end for all its steps once the job has failed for longer than a run waits.
    """
    record = retry_recorder(job_id, kind)

    def before_sleep(state: RetryCallState) -> None:
        record(state)
        tell(state)

    return RETRY.copy(
        stop=lambda state: RETRY.stop(state) or has_waited(job_id, kind),
        before_sleep=before_sleep,
    )


def chunk_runner(settings: Settings) -> TaskRunner[Any]:
    """Return what runs the chunks of one manifest side by side."""
    in_flight = settings.chunks_in_flight
    match settings.chunk_runner:
        case ChunkRunner.THREADS:
            return ThreadPoolTaskRunner(max_workers=in_flight)
        case ChunkRunner.PROCESSES:
            # This runner spawns its processes; Polars does not survive a fork.
            return ProcessPoolTaskRunner(max_workers=in_flight)
        case ChunkRunner.DASK:
            from prefect_dask.task_runners import DaskTaskRunner  # noqa: PLC0415 - an extra

            return DaskTaskRunner(address=settings.dask_address)
