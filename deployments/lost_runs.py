"""Take up again the runs that a worker of the pool had taken, and did not begin before it died.

Prefect leaves them Pending or Submitting for ever. A worker that comes online knows which those are: it
has taken none yet, so whatever bears its name is its predecessor's, and whatever was Pending before is
nobody's where no other worker is online. To begin a run twice does no harm; each finds what is done.
"""

from datetime import datetime
from uuid import UUID

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
from prefect.states import Scheduled

WORKER_LABEL = "prefect.worker.name"
_PAGE = 200


async def take_up_lost_runs(
    client: PrefectClient, pool: WorkPool, worker: str, *, before: datetime
) -> list[UUID]:
    """Schedule runs again that were Pending `before` the worker came online; return their ids.

    Raises:
        httpx.HTTPError: Prefect's server cannot be asked; what was scheduled before that stays so.
    """
    workers = await client.read_workers_for_work_pool(pool.name)
    others = {w.name for w in workers if w.status is WorkerStatus.ONLINE} - {worker}
    pending = await _pending_runs(client, pool)
    lost = [run for run in pending if _is_lost(run, others, before)]
    for run in lost:
        message = "The worker that had taken the run died before it began; it is taken again."
        await client.set_flow_run_state(run.id, Scheduled(message=message))
    return [run.id for run in lost]


def _is_lost(run: FlowRun, others: set[str], before: datetime) -> bool:
    if run.state is None or run.state.timestamp >= before:
        return False
    taker = _taker(run)
    return taker not in others if taker else not others


def _taker(run: FlowRun) -> str | None:
    """Return the name of the worker that took the run last; None before it has told its name."""
    name = run.labels.get(WORKER_LABEL)
    return str(name) if name else None


async def _pending_runs(client: PrefectClient, pool: WorkPool) -> list[FlowRun]:
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(id=WorkPoolFilterId(any_=[pool.id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found
