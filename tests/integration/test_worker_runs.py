"""What a worker does about runs that are not as it left them, with Prefect's own server."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import Event, Resource
from prefect.runner._process_manager import ProcessHandle
from prefect.states import Cancelling, Pending, Running, Scheduled, Submitting

from deployments.cancellation import CancellableContext
from deployments.lost_runs import WORKER_LABEL, end_dead_runs, take_up_lost_runs
from deployments.names import WORKER_TYPE
from deployments.registration import prepare_for_worker
from deployments.worker import DEAD_AFTER, ForkWorker

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("prefect_server"),
]

ME, OTHER = "me", "another"


@flow
def nothing() -> None:
    """Do nothing."""


def as_operator(work: Callable[[PrefectClient], Any]) -> None:
    async def main() -> None:
        async with get_client() as client:
            await work(client)

    asyncio.run(main())


# Cancelled once, and retried


@asynccontextmanager
async def process_of(context: CancellableContext, run: FlowRun) -> AsyncIterator[Any]:
    """A process that waits, as the one of the run."""
    process = await anyio.open_process([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        await context.process_manager.add(run.id, ProcessHandle(process))
        yield process
    finally:
        await context.process_manager.remove(run.id)
        if process.returncode is None:
            process.kill()
        await process.wait()


def cancelling_event(run: FlowRun) -> Event:
    resource = Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}"})
    return Event(event="prefect.flow-run.Cancelling", resource=resource)


async def hand_event(context: CancellableContext, run: FlowRun) -> None:
    """Hand the observer an event, and wait until what it begins is done."""
    async with anyio.create_task_group() as begun:
        context._cancellation_task_group = begun
        context._observer._handle_event(cancelling_event(run))


def test_an_event_of_a_cancellation_that_is_over_stops_nothing() -> None:
    async def look(client: PrefectClient) -> None:
        run = await client.create_flow_run(nothing, state=Running())
        async with CancellableContext() as context, process_of(context, run) as process:
            for _ in range(2):
                await hand_event(context, run)
                assert process.returncode is None
            await client.set_flow_run_state(run.id, Cancelling(), force=True)
            await hand_event(context, run)
            assert process.returncode is not None
        found = await client.read_flow_run(run.id)
        assert found.state_type is StateType.CANCELLED

    as_operator(look)


def test_a_run_that_is_cancelled_before_anybody_listened_for_it_is_stopped() -> None:
    async def look(client: PrefectClient) -> None:
        run = await client.create_flow_run(nothing, state=Cancelling())
        async with CancellableContext() as context, process_of(context, run) as process:
            async with anyio.create_task_group() as begun:
                context._cancellation_task_group = begun
                context.cancel_if_asked(run.id)
            assert process.returncode is not None
        found = await client.read_flow_run(run.id)
        assert found.state_type is StateType.CANCELLED

    as_operator(look)


# Taken, and never begun


@pytest.mark.parametrize(
    "state, taker, online, is_taken_up",
    [
        (Pending(), None, [], True),
        (Submitting(), ME, [], True),
        (Pending(), None, [ME], True),  # the one that was killed counts as online for a while
        (Submitting(), ME, [OTHER], True),
        (Submitting(), OTHER, [], True),
        (Submitting(), OTHER, [OTHER], False),
        (Pending(), None, [OTHER], False),
        (Scheduled(), None, [], False),
        (Running(), ME, [], False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_what_nobody_will_begin_is_taken_up_again(
    state: State[Any], taker: str | None, online: list[str], is_taken_up: bool
) -> None:
    async def look(client: PrefectClient) -> None:
        pool = await client.create_work_pool(
            WorkPoolCreate(name=f"pool-{uuid4()}", type=WORKER_TYPE)
        )
        run_id = await make_run(client, pool.name, state, taker)
        for name in online:
            await client.send_worker_heartbeat(pool.name, name)
        lost = await take_up_lost_runs(client, pool, ME, before=datetime.now(UTC))
        found = await client.read_flow_run(run_id)
        assert found.state is not None
        if is_taken_up:
            assert (lost, found.state.type) == ([run_id], StateType.SCHEDULED)
            assert "died" in str(found.state.message)
        else:
            assert (lost, found.state.type) == ([], state.type)

    as_operator(look)


def test_what_was_taken_since_is_left_alone() -> None:
    async def look(client: PrefectClient) -> None:
        pool = await client.create_work_pool(
            WorkPoolCreate(name=f"pool-{uuid4()}", type=WORKER_TYPE)
        )
        online_at = datetime.now(UTC)
        await make_run(client, pool.name, Pending(), ME)
        assert await take_up_lost_runs(client, pool, ME, before=online_at) == []

    as_operator(look)


# Begun, and without a process


@pytest.fixture
def pids() -> Iterator[dict[str, str]]:
    """Numbers of a process that is there, and of one that was."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                              capture_output=True, text=True, check=True)  # fmt: skip
        yield {"alive": str(alive.pid), "dead": dead.stdout.strip()}
        alive.kill()


@pytest.mark.parametrize(
    "state, taker, pid, clocks_s, is_ended",
    [
        (Running(), ME, "dead", 10.0, True),
        (Running(), ME, "alive", 10.0, False),
        (Running(), ME, "alive", -1e9, True),  # another one, which has got its number later
        (Running(), ME, None, 10.0, False),
        (Running(), OTHER, "dead", 10.0, False),
        (Running(), None, "dead", 10.0, False),
        (Pending(), ME, "dead", 10.0, False),
    ],
)
def test_a_run_whose_process_died_with_its_worker_has_crashed(
    state: State[Any],
    taker: str | None,
    pid: str | None,
    clocks_s: float,
    is_ended: bool,
    pids: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.lost_runs._CLOCKS_S", clocks_s)

    async def look(client: PrefectClient) -> None:
        pool = await client.create_work_pool(
            WorkPoolCreate(name=f"pool-{uuid4()}", type=WORKER_TYPE)
        )
        before = datetime.now(UTC)
        run_id = await make_run(client, pool.name, state, taker)
        if pid:
            await client.update_flow_run(run_id, infrastructure_pid=pids[pid])
        assert await end_dead_runs(client, pool, ME, before=before) == []  # begun since
        ended = await end_dead_runs(client, pool, ME, before=datetime.now(UTC))
        found = await client.read_flow_run(run_id)
        assert found.state is not None
        expected = ([run_id], StateType.CRASHED) if is_ended else ([], state.type)
        assert (ended, found.state.type) == expected

    as_operator(look)


def test_runs_without_a_process_are_looked_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, datetime]] = []

    def note(what: str) -> Callable[..., Any]:
        async def look(*_: Any, before: datetime) -> list[UUID]:
            asked.append((what, before))
            return []

        return look

    monkeypatch.setattr("deployments.worker.take_up_lost_runs", note("lost"))
    monkeypatch.setattr("deployments.worker.end_dead_runs", note("dead"))
    worker: Any = ForkWorker(work_pool_name="any")
    worker._client = worker._work_pool = object()
    began = datetime.now(UTC)
    for _ in range(2):
        asyncio.run(worker._look_after_runs())
    assert [what for what, _ in asked] == ["lost", "dead", "dead"]
    # Its own runs need a moment to tell how they ended.
    assert asked[1][1] <= began < asked[2][1] + DEAD_AFTER + timedelta(seconds=5)
    assert asked[2][1] < began


# What else a worker does for its pool and its runs


def test_a_worker_makes_the_pool_that_it_is_to_serve_with_the_variables_of_our_type() -> None:
    name = f"pool-{uuid4()}"
    for _ in range(2):
        prepare_for_worker(name)

    async def look(client: PrefectClient) -> None:
        pool = await client.read_work_pool(name)
        assert pool.type == WORKER_TYPE
        assert pool.base_job_template == ForkWorker.get_default_base_job_template()

    as_operator(look)


def test_a_run_whose_deployment_was_deleted_gives_its_place_back() -> None:
    async def look(client: PrefectClient) -> None:
        name = f"pool-{uuid4()}"
        await client.create_work_pool(WorkPoolCreate(name=name, type=WORKER_TYPE))
        run = await client.read_flow_run(await make_run(client, name, Scheduled(), None))
        assert run.deployment_id is not None
        await client.delete_deployment(run.deployment_id)
        async with ForkWorker(work_pool_name=name, limit=1) as worker:
            worker.limiter.acquire_on_behalf_of_nowait(run.id)
            worker._submitting_flow_run_ids.add(run.id)
            await worker._submit_run(run)
            assert worker.limiter.borrowed_tokens == 0
            assert not worker._submitting_flow_run_ids

    as_operator(look)


async def make_run(client: PrefectClient, pool: str, state: State[Any], taker: str | None) -> UUID:
    flow_id = await client.create_flow(nothing)
    deployment_id = await client.create_deployment(flow_id, f"d-{uuid4()}", work_pool_name=pool)
    run = await client.create_flow_run_from_deployment(deployment_id)
    if taker:
        await client.update_flow_run_labels(run.id, {WORKER_LABEL: taker})
    await client.set_flow_run_state(run.id, state, force=True)
    return run.id
