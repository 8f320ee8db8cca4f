"""Is it alive, can it work, and what does it do? For load balancers, supervisors, Prometheus; no key."""

from http import HTTPStatus
from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec

from api.metrics import Metrics
from api.threads import Threads, run
from blocks.errors import Transient
from blocks.store.database import Database


@get(
    "/health/live",
    operation_id="health_live",
    summary="Is it alive?",
    tags=["Operations"],
    security=[{}],
)
async def live() -> dict[str, str]:
    """200 while the process answers at all."""
    return {"status": "live"}


@get(
    "/health/ready",
    operation_id="health_ready",
    summary="Can it work?",
    tags=["Operations"],
    security=[{}],
    responses={503: ResponseSpec(dict[str, str], description="Not ready.")},
)
async def ready(state: State) -> Response[dict[str, str]]:
    """200 when the database and Prefect can be reached, otherwise 503 and which of them cannot."""
    threads: Threads = state.threads
    has_database = await run(threads.health, _database_answers, state.lookups)
    has_prefect = await run(threads.health, state.launcher.prefect_is_reachable)
    checks = {
        "database": "ok" if has_database else "unreachable",
        "prefect": "ok" if has_prefect else "unreachable",
    }
    healthy = set(checks.values()) == {"ok"}
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    content = {"status": "ready" if healthy else "not_ready", **checks}
    return Response(content, status_code=status, headers={} if healthy else {"Retry-After": "5"})


def _database_answers(database: Database) -> bool:
    try:
        with database.transaction() as tx:
            tx.execute("select 1")
    except Transient:
        return False
    return True


@get(
    "/metrics",
    operation_id="metrics",
    summary="What does it do?",
    tags=["Operations"],
    security=[{}],
    media_type=MediaType.TEXT,
)
async def metrics(
    request: Request[Any, Any, Any], metrics: NamedDependency[Metrics], state: State
) -> Response[bytes]:
    """Counts and queues, in the text format of Prometheus or in OpenMetrics."""
    accepted = request.headers.get("Accept", "")
    content, media_type = await run(state.threads.metrics, metrics.encoded, accepted)
    return Response(content, media_type=media_type)


HANDLERS = [live, ready, metrics]
