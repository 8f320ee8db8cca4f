"""Mend runs that a worker of the pool had taken, and did not begin or finish before it died.

Prefect leaves a run that was not begun Pending or Submitting for ever. A worker that comes online can
tell which those are: it has taken none yet, so a run with its name is its predecessor's, and a run
without a name that was Pending before is nobody's if no other worker is online. For runs that its
predecessor began, it sees whether their processes exist; Prefect would wait 75 seconds for a heartbeat.
To begin a run twice does no harm: each finds what is done.
"""

from datetime import datetime
from uuid import UUID

import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterId,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus, WorkPool
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed, Scheduled

WORKER_LABEL = "prefect.worker.name"
_PAGE = 200
# A process's start is known to the second, by a clock that may have been set meanwhile.
_CLOCKS_S = 10.0


async def take_up_lost_runs(
    client: PrefectClient, pool: WorkPool, worker: str, *, before: datetime
) -> list[UUID]:
    """Schedule runs again that were Pending `before` the worker came online; return their ids.

    Raises:
        httpx.HTTPError: Prefect's server cannot be asked; runs that were scheduled before stay so.
    """
    workers = await client.read_workers_for_work_pool(pool.name)
    others = {w.name for w in workers if w.status is WorkerStatus.ONLINE} - {worker}
    pending = await _runs_in(client, pool, StateType.PENDING)
    lost = [run for run in pending if _is_lost(run, others, before)]
    for run in lost:
        message = "The worker that had taken the run died before it began; it is taken again."
        await client.set_flow_run_state(run.id, Scheduled(message=message))
    return [run.id for run in lost]


async def end_dead_runs(
    client: PrefectClient, pool: WorkPool, worker: str, *, before: datetime
) -> list[UUID]:
    """End runs of `worker`, or of its predecessor, whose processes are gone; return their ids.

    A run that was resumed at Prefect's API without being scheduled again is ended too: it is Running and
    has no process.

    Raises:
        httpx.HTTPError: Prefect's server cannot be asked; runs that were ended before stay so.
    """
    running = await _runs_in(client, pool, StateType.RUNNING)
    dead = [run for run in running if _taker(run) == worker and _is_dead(run, before)]
    ended = []
    for run in dead:
        # The run may have ended since it was listed; without a process it cannot end from now on.
        seen = await client.read_flow_run(run.id)
        if seen.state is not None and seen.state.is_running():
            message = (
                "The run has no process any more: it died with its worker, or was never begun."
            )
            await client.set_flow_run_state(run.id, Crashed(message=message))
            ended.append(run.id)
    return ended


def _is_dead(run: FlowRun, before: datetime) -> bool:
    """Return whether a run that is Running since `before` has no process; False if that is unknown."""
    if run.state is None or run.state.timestamp >= before or not run.infrastructure_pid:
        return False
    try:
        process = psutil.Process(int(run.infrastructure_pid))
        # A process that began later only has the same pid: a run is set Running by its own process.
        is_another = process.create_time() > run.state.timestamp.timestamp() + _CLOCKS_S
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False


def _is_lost(run: FlowRun, others: set[str], before: datetime) -> bool:
    if run.state is None or run.state.timestamp >= before:
        return False
    taker = _taker(run)
    return taker not in others if taker else not others


def _taker(run: FlowRun) -> str | None:
    """Return the name of the worker that took the run last; None before the worker has set it."""
    name = run.labels.get(WORKER_LABEL)
    return str(name) if name else None


async def _runs_in(client: PrefectClient, pool: WorkPool, state: StateType) -> list[FlowRun]:
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(id=WorkPoolFilterId(any_=[pool.id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state]))
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found
