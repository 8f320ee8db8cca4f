"""Every private name of Prefect that the worker stands on, in one place: a minor version may move them.

`pyproject.toml` keeps Prefect below the next one. Whoever raises that runs the test of this file first.
"""

import inspect
from collections.abc import Mapping

from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.workers.base import BaseWorker

__all__ = ["FlowRunExecutionResult", "FlowRunExecutorContext", "ProcessHandle"]

USED: Mapping[type, tuple[str, ...]] = {
    BaseWorker: (
        "_cancel_run",
        "_emit_flow_run_executed_event",
        "_emit_flow_run_submitted_event",
        "_initialize_after_sync",
        "_logger",
        "_release_limit_slot",
        "_submit_run",
        "_submit_run_and_capture_errors",
        "_submitting_flow_run_ids",
        "_work_pool",
    ),
    FlowRunExecutorContext: (
        "_cancellation_manager",
        "_cancellation_task_group",
        "_logger",
        "_observer",
        "control_channel",
        "create_executor",
        "process_manager",
    ),
}
"""What is overridden, called or read of them."""


def missing() -> list[str]:
    """Return which of the names Prefect has no more."""
    return [
        f"{owner.__name__}.{name}"
        for owner, names in USED.items()
        for name in names
        if not hasattr(owner, name) and f"self.{name}" not in inspect.getsource(owner)
    ]
