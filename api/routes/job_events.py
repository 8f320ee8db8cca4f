"""Jobs: one stream of server-sent events that tells how all of them stand."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from litestar import Request, get
from litestar.params import HeaderParameter
from litestar.response import Stream

from api.auth import ADMINS_TOO, KeyRing, credential_of, tenant
from api.http.refusals import refusals
from api.http.streams import COMPRESSES_ITSELF
from api.routes.job_feed import JobFeed, too_many_streams
from blocks.domain.errors import Transient
from blocks.store.customers import Principal

_EVENT_STREAM = "text/event-stream"
# A proxy that keeps an answer back until it is complete would never pass this one on.
_HEADERS = {"X-Accel-Buffering": "no"}

_Request = Request[Principal, Any, Any]


@get(
    "/events",
    operation_id="follow_jobs",
    summary="Live progress",
    responses=refusals(too_many_streams()),
    media_type=_EVENT_STREAM,
    opt={COMPRESSES_ITSELF: True} | ADMINS_TOO,
)
async def follow(
    request: _Request,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            max_length=100,
            description="The `id` of the last event that came; browsers send it by themselves.",
        ),
    ] = None,
) -> Stream:
    """Send an event whenever the progress of a job has changed, at most once a second for each job.

    An operator is told of all customers' jobs.

    First comes `begin`, then `job` for each job that is under way, and again when it has changed;
    `alive` every 15 seconds. It ends with the key or the session, after an hour, and when the service
    stops; whoever comes back with `Last-Event-ID` within a minute is told what has changed since.
    """
    feed: JobFeed = request.app.state.job_feed
    keys: KeyRing = request.app.state.key_ring
    credential = credential_of(request)

    async def is_good() -> bool:
        try:
            found = await request.app.state.threads.keys.run(keys.find, credential)
        except Transient:
            return True  # nobody can say; the next look will
        return found is not None and found.principal == request.user

    events = feed.follow(tenant(request), last_event_id, is_good)
    first = await anext(events)
    return Stream(_body(first, events), media_type=_EVENT_STREAM, headers=_HEADERS)


async def _body(first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """Yield the events, and leave the feed however this ends."""
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


HANDLERS = [follow]
