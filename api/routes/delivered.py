"""Deliveries: the objects that stand in the customer's bucket, to be compared with what is there."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import ADMINS_TOO
from api.http.errors import not_found, unknown_cursor
from api.http.parameters import PAGE_LIMIT, Cursor, JobId
from api.http.refusals import refusals
from api.routes.jobs import find_job
from blocks.store import delivered_objects
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.delivered_objects import RecordedObject

_PAGE_DEFAULT = 100
_PAGE_MAX = 1000
_DIGITS_MAX = 9


class DeliveredPage(msgspec.Struct, frozen=True):
    """Objects in the order of `manifest.json`; none before a job is delivered."""

    objects: list[RecordedObject]
    """The objects, without `manifest.json` itself."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


@get(
    "/{job_id:str}/delivery/objects",
    operation_id="list_delivered_objects",
    summary="Objects of a delivery",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def index(
    request: Request[Principal, Any, Any],
    job_id: JobId,
    database: NamedDependency[Database],
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> DeliveredPage:
    """Return what was written to the bucket, with sizes and checksums, as `manifest.json` has it."""
    job = find_job(request, job_id, database)
    after = _place_of(cursor)
    with database.transaction() as tx:
        found = delivered_objects.list_page(tx, job.job_no, after=after, limit=limit + 1)
    page = found[:limit]
    return DeliveredPage(page, str(page[-1].object_no) if len(found) > limit else None)


def _place_of(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= _DIGITS_MAX):
        raise unknown_cursor()
    return int(cursor)


HANDLERS = [index]
