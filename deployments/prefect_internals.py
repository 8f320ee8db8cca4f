"""List every private name of Prefect that the worker uses: a minor version may move them.

`pyproject.toml` keeps Prefect below the next minor version. Before that bound is raised, the test of
this file says which names are gone.
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
        "_give_worker_labels_to_flow_run",
        "_propose_submitting_state",
        "_release_limit_slot",
        "_submit_run",
        "_submitting_flow_run_ids",
        "_work_pool",
    ),
    FlowRunExecutorContext: (
        "_cancellation_manager",
        "_cancellation_task_group",
        "_observer",
        "control_channel",
        "create_executor",
        "process_manager",
    ),
}
"""What the worker overrides, calls or reads, by the class that has it."""


def missing() -> list[str]:
    """Return the names that Prefect no longer has, as `Class.name`."""
    return [
        f"{owner.__name__}.{name}"
        for owner, names in USED.items()
        for name in names
        if not hasattr(owner, name) and f"self.{name}" not in inspect.getsource(owner)
    ]
