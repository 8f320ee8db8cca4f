"""Health and metrics, without a key: for load balancers, supervisors and Prometheus."""

from http import HTTPStatus
from typing import Any, Literal

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec

from api.draining import Draining
from api.http.threads import run
from api.metrics import VERSION, Metrics
from api.probes import Probes


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["live"] = "live"
    """Always `live`."""
    version: str = VERSION
    """The version of Refinery Jobs."""


class Ready(msgspec.Struct, frozen=True):
    """Whether the service can work, and what it needs for that."""

    status: Literal["ready", "not_ready"]
    """`ready` while the database takes writes and the process is not about to end."""
    database: str
    """`ok`, or why it takes no writes: `unreachable`, `read_only`, `disk_full`, `locked`, or
    `wrong_schema`."""
    prefect: str
    """`ok` or `unreachable`; without Prefect, jobs are accepted and wait."""


@get(
    "/health/live",
    operation_id="health_live",
    summary="Is it alive?",
)
async def live() -> Live:
    """Answer 200 while the process answers at all."""
    return Live()


@get(
    "/health/ready",
    operation_id="health_ready",
    summary="Can it work?",
    responses={503: ResponseSpec(Ready, generate_examples=False)},
)
async def ready(state: State) -> Response[Ready]:
    """Answer 200 while the database takes writes, otherwise 503 and why not.

    It answers within a second, whatever hangs. A process that was told to end answers 503 as well.
    `prefect` is no reason for a 503: without Prefect, jobs are accepted and wait, and all else works.
    """
    probes: Probes = state.probes
    database, prefect = await probes.health()
    draining: Draining = state.draining
    is_ready = database == "ok" and not draining.has_begun
    content = Ready("ready" if is_ready else "not_ready", database, prefect)
    if is_ready:
        return Response(content)
    return Response(
        content, status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "5"}
    )


@get(
    "/metrics",
    operation_id="metrics",
    summary="What does it do?",
    media_type=MediaType.TEXT,
)
async def metrics(
    request: Request[Any, Any, Any], metrics: NamedDependency[Metrics], state: State
) -> Response[bytes]:
    """Return counts and queues, in the text format of Prometheus or in OpenMetrics.

    Within a second: what the database keeps is left out while it does not answer.
    """
    probes: Probes = state.probes
    outside = await probes.outside()
    accepted = request.headers.get("Accept", "")
    content, media_type = await run(state.threads.encoding, metrics.encoded, accepted, outside)
    return Response(content, media_type=media_type)


HANDLERS = [live, ready, metrics]
