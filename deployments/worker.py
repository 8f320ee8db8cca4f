"""Serve work pools of the type `refinery`: fork the runs, so that they start in 0.5 s instead of 3 s.

A new interpreter spends two or three seconds on importing Prefect, Polars and the clients of the
stores. Here one process has imported them (`deployments.preload`), and every run is a fork of it. That
process (Python's fork server) runs nothing, so it is safe to fork. A run is a process of its own, as
with Prefect's process worker: it can be killed, and leaves no memory behind.

Start it as `python -m deployments` or `refinery`: a fork runs any other `__main__` again.
"""

import asyncio
import functools
import multiprocessing
import os
import runpy
import signal
import sys
import time
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
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectException
from prefect.flows import load_flow_from_flow_run
from prefect.logging.loggers import get_worker_logger
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, temporary_settings
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)
from pydantic import Field, PrivateAttr

from blocks import tracing
from blocks.settings import TracingSettings
from blocks.store import schema_versions
from blocks.store.schema_versions import WrongSchema
from deployments.cancellation import CancellableContext, is_cancelling
from deployments.lost_runs import end_dead_runs, take_up_lost_runs
from deployments.names import WORKER_TYPE
from deployments.prefect_internals import FlowRunExecutionResult, ProcessHandle
from deployments.registration import prepare_for_worker
from deployments.remembering_client import RememberingClient
from deployments.wake import Waker, check_schema

# Polars' allocator and the C library's keep freed memory for each thread by default. With few arenas, a
# run that reads a manifest peaks 15 % lower, and takes no more processor time.
_ALLOCATORS = {"_RJEM_MALLOC_CONF": "narenas:1", "MALLOC_ARENA_MAX": "2"}
_FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ["deployments.preload"]

# Poll every 0.5 s: Prefect's default of 10 s would be most of the time from a POST to the first line.
QUERY_S = 0.5
# Poll so often while the launcher's word is heard: then nothing but runs that somebody else has made or
# retried waits for it. A poll costs Prefect's server 20 ms.
_IDLE_QUERY_S = 2.0
# What begins with connecting to a customer's store, and can do so before Prefect is done with its own.
_READS = "flows.process_job.process_job"
# The least that Prefect allows. Its default of 180 s is longer than `automations.yaml` waits.
HEARTBEAT_S = 30
# A run that has been Running for so long has its process, or has lost it.
DEAD_AFTER = timedelta(seconds=60)


class ForkJobConfiguration(BaseJobConfiguration):
    """Hold what one run is started with."""

    working_dir: Path | None = Field(default=None)
    _has_settings: bool = PrivateAttr(default=False)

    @property
    def has_settings(self) -> bool:
        """Return whether pool, deployment or run have settings of Prefect that the worker has not."""
        return self._has_settings

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        *others: Any,
        **named: Any,
    ) -> None:
        """Tell the run's process which flow it is, so that it need not read the deployment again."""
        self._has_settings = any(name.startswith("PREFECT_") for name in self.env)
        super().prepare_for_flow_run(flow_run, deployment, *others, **named)
        if deployment and deployment.entrypoint and _is_installed_here(deployment):
            self.env["PREFECT__FLOW_ENTRYPOINT"] = deployment.entrypoint


def _is_installed_here(deployment: DeploymentResponse) -> bool:
    """Return whether the flow is a module that nothing has to be pulled or downloaded for."""
    names_module = ":" not in (deployment.entrypoint or ":")
    return names_module and not deployment.pull_steps


class ForkVariables(BaseVariables):
    """Describe the job variables that a work pool, or a deployment in it, may set."""

    command: str | None = Field(
        default=None, title="Command", description="Not used: a fork needs no command."
    )
    working_dir: Path | None = Field(
        default=None,
        title="Working Directory",
        description="The folder that flows are imported from; by default the worker's own.",
    )


class ForkResult(BaseWorkerResult):
    """Hold how a run's process ended: its exit code, and its pid as `identifier`."""


class ForkWorker(BaseWorker[ForkJobConfiguration, ForkVariables, ForkResult]):
    """Serve a work pool of the type `refinery`."""

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
        self._executing: set[UUID] = set()
        # None once the runs of a predecessor have been looked for.
        self._lost_before: datetime | None = datetime.now(UTC)
        self._polling = anyio.Lock()
        self._waker = Waker()
        self._traces = TracingSettings.from_environment().is_on
        self._polled_s = -_IDLE_QUERY_S

    @functools.cached_property
    def client(self) -> PrefectClient:
        """Return the client of Prefect's API, which asks for the same deployment or flow once."""
        return cast(PrefectClient, RememberingClient(super().client))

    @property
    def refusal(self) -> WrongSchema | None:
        """Return why the worker has stopped by itself, if it has."""
        return self._waker.refusal

    async def start(self, *arguments: Any, **named: Any) -> None:
        """Serve until cancelled; look for runs now and then, and at once when one is launched."""
        get_worker_logger(self).info("Refinery Jobs %s", schema_versions.version())
        self._waker.start()
        polling = asyncio.create_task(self._poll_when_woken())
        try:
            await super().start(*arguments, **named)
        finally:
            self._waker.stop()
            polling.cancel()

    async def _poll_when_woken(self) -> None:
        while True:
            await self._waker.wait()
            if self._waker.refusal:
                signal.raise_signal(signal.SIGINT)
                return
            try:
                await self._poll()
            except Exception as error:  # noqa: BLE001 - this loop must go on
                # The regular look comes soon, and knows what to do where Prefect is away for long.
                get_worker_logger(self).debug("Could not look for runs: %r", error)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take runs that are due, and return them; called every `QUERY_S`."""
        is_early = time.monotonic() - self._polled_s < _IDLE_QUERY_S
        return [] if is_early and self._waker.is_listening else await self._poll()

    async def _poll(self) -> list[FlowRun]:
        # Two looks at once could find one run, and the slower one would submit it again.
        async with self._polling:
            if not self.is_setup:
                return []
            self._polled_s = time.monotonic()
            return await super().get_and_submit_flow_runs()

    async def sync_with_backend(self) -> None:
        """Tell Prefect that the worker is alive, then look after runs without a process.

        Prefect calls this every `heartbeat_interval_seconds`, the first time before it takes a run.
        """
        await super().sync_with_backend()
        if self._work_pool is not None:
            await self._look_after_runs()

    async def _look_after_runs(self) -> None:
        logger = get_worker_logger(self)
        lost: list[UUID] = []
        # The worker reports itself how its own runs end, and needs a moment for that.
        before = self._lost_before or datetime.now(UTC) - DEAD_AFTER
        try:
            if self._lost_before:
                lost = await take_up_lost_runs(
                    self.client, self.work_pool, self.name, before=before
                )
            dead = await end_dead_runs(self.client, self.work_pool, self.name, before=before)
        except (httpx.HTTPError, PrefectException) as error:
            logger.warning("Could not look for runs that have no process: %r", error)
            return
        self._lost_before = None
        for run_id in lost:
            logger.info("Flow run '%s' was taken and never begun; scheduled again.", run_id)
        for run_id in dead:
            logger.info("Flow run '%s' has no process; crashed.", run_id)

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        # Prefect hands a new listener the events of the last minute again.
        if await is_cancelling(self.client, flow_run_id):
            await super()._cancel_run(flow_run_id)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        finally:
            # Where Prefect's method ends before `run` is called, because the deployment was deleted or
            # the server failed, it would keep the run's place for ever.
            if flow_run.id not in self._executing:
                self._release_limit_slot(flow_run.id)
                self._submitting_flow_run_ids.discard(flow_run.id)

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Leave the run Pending until it is Running: the state between costs more than it tells."""

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Leave that to `_label`, which does it while the process starts."""

    async def _label(self, flow_run_id: UUID) -> None:
        """Record whose the run is, for the worker's successor (`deployments.lost_runs`)."""
        try:
            await super()._give_worker_labels_to_flow_run(flow_run_id)
        except (httpx.HTTPError, PrefectException) as error:
            message = "Could not label flow run '%s': %r"
            get_worker_logger(self).warning(message, flow_run_id, error)

    # Each event costs Prefect 5 kB and nine rows; the run's own events and its log say the same.
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
        """Execute the run in a process of its own, and return when that has ended.

        Raises:
            RuntimeError: the process could not be started.
        """
        self._executing.add(flow_run.id)
        try:
            return await self._execute(flow_run, configuration, task_status)
        finally:
            self._executing.discard(flow_run.id)

    async def _execute(
        self,
        flow_run: FlowRun,
        configuration: ForkJobConfiguration,
        task_status: TaskStatus[int] | None,
    ) -> ForkResult:
        executions: list[FlowRunExecutionResult | None] = []
        async with CancellableContext() as context:
            starter = _ForkStarter(configuration, context.control_channel)
            executor = context.create_executor(
                flow_run, starter, resolve_flow=load_flow_from_flow_run, propose_submitting=False
            )

            async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
                executions.append(await executor.submit(task_status))

            async with anyio.create_task_group() as group:
                if self._traces or tracing.LABEL in flow_run.labels:
                    # The run writes a label too; of two writers at once Prefect may lose one.
                    await self._label(flow_run.id)
                else:
                    group.start_soon(self._label, flow_run.id)
                handle = await group.start(execute)
                if task_status:
                    task_status.started(handle.pid)
                # Nobody was told of a cancellation that came before this process was listened for.
                context.cancel_if_asked(flow_run.id)
        execution = executions[0]
        if execution is None or execution.status_code is None:
            raise RuntimeError("The process of the flow run could not be started.")
        return ForkResult(status_code=execution.status_code, identifier=str(handle.pid))


class _ForkStarter:
    """Start Prefect's engine in a fork, as Prefect's `EngineCommandStarter` does by a command."""

    def __init__(self, configuration: ForkJobConfiguration, control_channel: Any) -> None:
        self._configuration = configuration
        self._control_channel = control_channel

    async def start(
        self,
        flow_run: FlowRun,
        task_status: TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Report the process as started, and return when it has ended."""
        port, token = self._control_channel.register(flow_run.id)
        environment = {
            **os.environ,
            **{k: v for k, v in self._configuration.env.items() if v is not None},
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
        }
        if TracingSettings.from_environment(environment).is_on:
            environment[tracing.PROVIDER_NAME] = "refinery"  # for processes of the run
        folder = self._configuration.working_dir or Path.cwd()
        # A folder may have settings in a `prefect.toml`.
        has_settings = self._configuration.has_settings or folder != Path.cwd()
        process = _FORKS.Process(
            target=_run_engine,
            args=(environment, folder, flow_run),
            kwargs={"has_settings": has_settings},
        )
        await anyio.to_thread.run_sync(process.start)
        task_status.started(ProcessHandle(cast(Any, process)))
        await anyio.to_thread.run_sync(process.join)


def _run_engine(
    environment: Mapping[str, str], folder: Path, flow_run: FlowRun, *, has_settings: bool
) -> None:
    """Do in the fork what `python -m prefect.engine` does, without the start of Python.

    The engine need not read the run first, since the worker has read it just now. A run that has ended
    or was cancelled since may not become Running.
    """
    from prefect import flow_engine
    from prefect.context import refresh_global_settings_context

    from flows.running.warming import warm_up

    flow_engine.load_flow_run = lambda flow_run_id: flow_run  # noqa: ARG005 - its name is Prefect's
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tracing.start("refinery-flows")
    if environment.get("PREFECT__FLOW_ENTRYPOINT") == _READS:
        warm_up(str(flow_run.parameters.get("job_id")))
    if has_settings:
        refresh_global_settings_context()  # 50 ms
    sys.argv = ["prefect.engine"]
    sys.modules.pop("prefect.engine", None)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def run_worker(pool: str, name: str | None, limit: int | None) -> None:
    """Serve the work pool until SIGTERM or SIGINT, with at most `limit` runs at once.

    Raises:
        MigrationChanged, WrongSchema: this version does not work with the database's schema.
        SettingsError: traces are wanted, and their packages are missing.
    """
    tracing.check()
    check_schema()
    # The fork server reads Prefect's settings once for all runs.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))
    _FORKS.set_forkserver_preload(PRELOADED)
    # asyncio cancels the worker on SIGINT where that has Python's own handler; a shell's background jobs
    # start with SIGINT ignored. Prefect's handlers raise KeyboardInterrupt wherever the process happens
    # to be; where that is only logged, the worker goes on for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for variable, value in _ALLOCATORS.items():
        os.environ.setdefault(variable, value)
    forkserver.ensure_running()  # or the first run would wait for it
    prepare_for_worker(pool)
    with temporary_settings(set_defaults={PREFECT_WORKER_QUERY_SECONDS: QUERY_S}):
        worker = ForkWorker(
            work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False
        )
        try:
            asyncio.run(worker.start())
        except KeyboardInterrupt:
            raise worker.refusal or KeyboardInterrupt from None
