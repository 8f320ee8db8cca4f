"""A worker of Prefect, of a type of its own, whose runs start in half a second instead of three.

A new interpreter spends two or three seconds on importing Prefect, Polars and the clients of the
stores. Here one process has them ready (`deployments.preload`), and every run is a fork of it. That
process (Python's fork server) runs nothing, so it is safe to fork; a run is a process of its own as
before, can be killed as before, and leaves no memory behind.

It is started as `python -m deployments` or `refinery`: what else is `__main__` a fork would run again.
"""

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import anyio
import anyio.to_thread
import httpx
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.exceptions import PrefectException
from prefect.flows import load_flow_from_flow_run
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, temporary_settings
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)
from pydantic import Field

from deployments.cancellation import CancellableContext, is_cancelling
from deployments.lost_runs import end_dead_runs, take_up_lost_runs
from deployments.names import WORKER_TYPE
from deployments.prefect_internals import FlowRunExecutionResult, ProcessHandle
from deployments.registration import prepare_for_worker

_FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ["deployments.preload"]

# Prefect's default of 10 s would be most of the time from a POST to the first line.
QUERY_S = 0.5
# The least that Prefect allows. Its default of 180 s is more than `automations.yaml` waits for.
HEARTBEAT_S = 30
# A run that is Running for so long has its process, or had one.
DEAD_AFTER = timedelta(seconds=60)


class ForkJobConfiguration(BaseJobConfiguration):
    """How one run is started."""

    working_dir: Path | None = Field(default=None)


class ForkVariables(BaseVariables):
    """What a work pool, or a deployment in it, may set."""

    command: str | None = Field(
        default=None, title="Command", description="Not used: a fork needs no command."
    )
    working_dir: Path | None = Field(
        default=None,
        title="Working Directory",
        description="The folder that flows are imported from; by default the worker's own.",
    )


class ForkResult(BaseWorkerResult):
    """The end of a run's process: its exit code, and its pid as `identifier`."""


class ForkWorker(BaseWorker[ForkJobConfiguration, ForkVariables, ForkResult]):
    """Serves a work pool of the type `refinery`."""

    type = WORKER_TYPE
    job_configuration = ForkJobConfiguration
    job_configuration_variables = ForkVariables
    _description = (
        "Runs flows as forks of a process that has imported them, on the worker's machine. "
        "A run starts in half a second."
    )
    _display_name = "Refinery"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._started: set[UUID] = set()
        self._lost_before: datetime | None = datetime.now(UTC)

    async def _initialize_after_sync(self) -> None:
        # Each half a minute, and the first time before a run is taken.
        if self._work_pool is not None:
            await self._look_after_runs(self._work_pool)
        await super()._initialize_after_sync()

    async def _look_after_runs(self, pool: WorkPool) -> None:
        lost: list[UUID] = []
        # Of its own runs it hears itself how they end, and needs a moment to tell that.
        before = self._lost_before or datetime.now(UTC) - DEAD_AFTER
        try:
            if self._lost_before:
                lost = await take_up_lost_runs(self.client, pool, self.name, before=before)
            dead = await end_dead_runs(self.client, pool, self.name, before=before)
        except (httpx.HTTPError, PrefectException) as error:
            self._logger.warning("Runs that have no process were not looked for: %r", error)
            return
        self._lost_before = None
        for run_id in lost:
            self._logger.info("Flow run '%s' was taken and never begun; scheduled again.", run_id)
        for run_id in dead:
            self._logger.info("Flow run '%s' has no process; crashed.", run_id)

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        # Prefect tells a new listener of the last minute's events again.
        if await is_cancelling(self.client, flow_run_id):
            await super()._cancel_run(flow_run_id)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        finally:
            # Where it ends before a process is started, because the deployment was deleted or Prefect's
            # server failed, the run would keep its place for ever.
            if flow_run.id not in self._started:
                self._release_limit_slot(flow_run.id)
                self._submitting_flow_run_ids.discard(flow_run.id)

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: TaskStatus[int | Exception] | None = None
    ) -> BaseWorkerResult | Exception:
        self._started.add(flow_run.id)
        try:
            return await super()._submit_run_and_capture_errors(flow_run, task_status)
        finally:
            self._started.discard(flow_run.id)

    # Each costs Prefect 5 kB and the time of nine rows; the run's own events and its log say the same.
    def _emit_flow_run_submitted_event(self, configuration: BaseJobConfiguration) -> None:
        """Emit nothing."""

    def _emit_flow_run_executed_event(self, *arguments: Any, **named: Any) -> None:
        """Emit nothing."""

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ForkJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ForkResult:
        """The run to its end, in a process of its own.

        Raises:
            RuntimeError: the process could not be started.
        """
        executions: list[FlowRunExecutionResult | None] = []
        async with CancellableContext() as context:
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
                # What came before it was listened for its process is told to nobody.
                context.cancel_if_asked(flow_run.id)
        execution = executions[0]
        if execution is None or execution.status_code is None:
            raise RuntimeError("The process of the flow run could not be started.")
        return ForkResult(status_code=execution.status_code, identifier=str(handle.pid))


class _ForkStarter:
    """Starts the engine of Prefect in a fork; what `EngineCommandStarter` does with a command."""

    def __init__(self, configuration: ForkJobConfiguration, control_channel: Any) -> None:
        self._configuration = configuration
        self._control_channel = control_channel

    async def start(
        self,
        flow_run: FlowRun,
        task_status: TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        port, token = self._control_channel.register(flow_run.id)
        environment = {
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
            **os.environ,
            **{k: v for k, v in self._configuration.env.items() if v is not None},
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


def run_worker(pool: str, name: str | None, limit: int | None) -> None:
    """Serve the work pool until SIGTERM or SIGINT, with at most `limit` runs at once."""
    _FORKS.set_forkserver_preload(PRELOADED)
    # asyncio cancels the worker on SIGINT where that has Python's own handler: a shell's background jobs
    # start with it ignored. Prefect's handlers raise KeyboardInterrupt wherever the process happens to
    # be, and where that is only logged the worker goes on for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    forkserver.ensure_running()  # or the first run would wait for it
    prepare_for_worker(pool)
    with temporary_settings(set_defaults={PREFECT_WORKER_QUERY_SECONDS: QUERY_S}):
        asyncio.run(ForkWorker(work_pool_name=pool, name=name, limit=limit).start())
