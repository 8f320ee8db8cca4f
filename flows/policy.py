"""Retries, bounds and cache rules of the flows, with their reasons."""

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from blocks.errors import Transient
from blocks.settings import Settings

# 1, 2, 4, 8, 16 s and jitter: a store that is overloaded for half a minute costs time and nothing else.
# What lasts longer fails the run, which can be rerun, and finds what it has done already.
_RETRIES = 5
_BACKOFF_S = 1
_JITTER = 0.5


def is_transient(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task may be tried again: by the type of what it raised, never by its text."""
    del task, run
    return isinstance(state.result(raise_on_failure=False), Transient)


NETWORK_TASK: dict[str, Any] = {
    "retries": _RETRIES,
    "retry_delay_seconds": exponential_backoff(backoff_factor=_BACKOFF_S),
    "retry_jitter_factor": _JITTER,
    "retry_condition_fn": is_transient,
    # Whether something is done is written in PostgreSQL, in the transaction that did it. A result kept
    # by Prefect would be a second opinion.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
"""Options of every task that talks to a store or the database."""


def chunk_runner(settings: Settings) -> TaskRunner[Any]:
    """What runs the chunks of one manifest side by side."""
    return ThreadPoolTaskRunner(max_workers=settings.chunks_in_flight)
