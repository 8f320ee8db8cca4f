"""A process worker of Prefect whose runs start in half a second instead of three.

A new interpreter spends two or three seconds on importing Prefect, Polars and the clients of the
stores. Here one process has imported them, and every run is a fork of it. That process (Python's fork
server) runs nothing, so it is safe to fork; a run is a process of its own as before, can be killed as
before, and leaves no memory behind.
"""

import asyncio
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun
from prefect.flows import load_flow_from_flow_run
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.settings import get_current_settings
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

_FORKS = multiprocessing.get_context("forkserver")
# What a run needs before its first line. Polars may be imported here, not used: its threads would not be
# there in the fork.
PRELOADED = [
    "prefect.engine",
    "prefect.flow_engine",
    "flows.process_job",
    "flows.deliver_job",
    "s3fs",
    "__main__",
]


class WarmWorker(ProcessWorker):
    """Serves a work pool of the type `process`."""

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "refinery"  # beside Prefect's own class for that type, not in its place

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """The run to its end, in a process of its own.

        Raises:
            RuntimeError: the process could not be started.
        """
        executions: list[FlowRunExecutionResult | None] = []
        async with FlowRunExecutorContext() as context:
            starter = _ForkStarter(configuration, context.control_channel)
            executor = context.create_executor(
                flow_run, starter, resolve_flow=load_flow_from_flow_run, propose_submitting=False
            )

            async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
                executions.append(await executor.submit(task_status))

            async with anyio.create_task_group() as group:
                handle = await group.start(execute)
                if task_status:
                    task_status.started(handle.pid)
        execution = executions[0]
        if execution is None or execution.status_code is None:
            raise RuntimeError("The process of the flow run could not be started.")
        return ProcessWorkerResult(status_code=execution.status_code, identifier=str(handle.pid))


class _ForkStarter:
    """Starts the engine of Prefect in a fork; what `EngineCommandStarter` does with a command."""

    def __init__(self, configuration: ProcessJobConfiguration, control_channel: Any) -> None:
        self._configuration = configuration
        self._control_channel = control_channel

    async def start(
        self,
        flow_run: FlowRun,
        task_status: TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        port, token = self._control_channel.register(flow_run.id)
        environment = {
            **{k: v for k, v in self._configuration.env.items() if v is not None},
            **get_current_settings().to_environment_variables(exclude_unset=True),
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
        }
        folder = self._configuration.working_dir or Path.cwd()
        process = _FORKS.Process(target=_run_engine, args=(environment, folder))
        await anyio.to_thread.run_sync(process.start)
        task_status.started(ProcessHandle(cast(Any, process)))
        await anyio.to_thread.run_sync(process.join)


def _run_engine(environment: Mapping[str, str], folder: Path) -> None:
    """In the fork: `python -m prefect.engine` without the start of Python."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    refresh_global_settings_context()
    sys.argv = ["prefect.engine"]
    sys.modules.pop("prefect.engine", None)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def run_worker(pool: str, name: str | None) -> None:
    """Serve the work pool until SIGTERM or SIGINT."""
    _FORKS.set_forkserver_preload(PRELOADED)
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    asyncio.run(WarmWorker(work_pool_name=pool, name=name).start())
