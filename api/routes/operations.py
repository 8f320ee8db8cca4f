"""Operations, for operators: who has how much of Prefect, what waits, and what was mended lately."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency

from api.http.refusals import refusals
from blocks.prefect.api import PrefectApi, PrefectUnavailable
from blocks.settings import Settings
from blocks.store import counts, operations
from blocks.store.counts import Queue
from blocks.store.database import Database
from blocks.store.operations import CustomerShare, FailingEndpoint, OutboxEntry, WorkInHand
from deployments.names import RECONCILE

_RECONCILED_MAX = 10
_FLOW = RECONCILE.partition("/")[0]


class Reconciling(msgspec.Struct, frozen=True, kw_only=True):
    """A run of `reconcile` that has ended."""

    flow_run_id: UUID
    """The run in Prefect."""
    ended_at: datetime
    """When it ended."""
    state: str
    """`COMPLETED`, `FAILED` or `CRASHED`."""
    message: str | None
    """What it has done."""


class OperationsView(msgspec.Struct, frozen=True, kw_only=True):
    """How the service goes, for those who run it."""

    prefect_ui_url: str
    """Where Prefect's UI is, if it is where its API is."""
    queues: list[Queue]
    """What waits: `outbox`, `runs_waiting`, `runs_under_way` and `webhooks`."""
    customers: list[CustomerShare]
    """Who has how much of Prefect, by the first 100,000 pieces of work; up to 50 customers."""
    runs: list[WorkInHand]
    """Work that Prefect has in hand or that is in trouble, the oldest first; 50 at most."""
    outbox: list[OutboxEntry]
    """What Prefect was not told yet, the oldest first; 50 at most."""
    failing_endpoints: list[FailingEndpoint]
    """Endpoints that do not take their messages, the worst first; 50 at most."""
    reconciled: list[Reconciling] | None
    """The latest ten runs of `reconcile`; null where Prefect does not answer."""


@get(
    "/",
    operation_id="get_operations",
    summary="How the service goes",
    responses=refusals(),
    sync_to_thread=True,
)
def read(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> OperationsView:
    """Return what waits, for whom, and what was mended lately."""
    reconciled = _list_reconciled(request.app.state.prefect)
    with database.transaction() as tx:
        return OperationsView(
            prefect_ui_url=settings.prefect_ui(),
            queues=list(counts.read_queues(tx)),
            customers=operations.list_shares(tx),
            runs=operations.list_runs(tx),
            outbox=operations.list_outbox(tx),
            failing_endpoints=operations.list_failing_endpoints(tx),
            reconciled=reconciled,
        )


def _list_reconciled(prefect: PrefectApi) -> list[Reconciling] | None:
    try:
        found = prefect.latest_ended_runs(_FLOW, limit=_RECONCILED_MAX)
    except PrefectUnavailable:
        return None
    return [
        Reconciling(
            flow_run_id=run.id,
            ended_at=run.state.at,
            state=run.state.type,
            message=run.state.message,
        )
        for run in found
    ]


HANDLERS = [read]
