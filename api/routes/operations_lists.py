"""Lists for operators over all customers, page by page: customers, streams, work for Prefect."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.http.errors import unknown_cursor
from api.http.parameters import A_CUSTOMER, PAGE_LIMIT, Cursor, check_customer
from api.http.refusals import refusals
from blocks.domain.ids import is_customer_id
from blocks.store import loads
from blocks.store.database import Database
from blocks.store.loads import CustomerLoad, StreamLoad, Work, WorkStatus

_DEFAULT = 20
_MAX = 100
_NUMBER_DIGITS_MAX = 18

_Limit = Annotated[int, QueryParameter(ge=1, le=_MAX, description=PAGE_LIMIT)]
_Customer = Annotated[
    str | None, QueryParameter(description="Only of this customer, by id.", schema_extra=A_CUSTOMER)
]


class CustomerLoads(msgspec.Struct, frozen=True):
    """Customers, by their ids; `next_cursor` is null on the last page."""

    customers: list[CustomerLoad]
    """The customers."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class StreamLoads(msgspec.Struct, frozen=True):
    """Streams, by customer and name; `next_cursor` is null on the last page."""

    streams: list[StreamLoad]
    """The streams."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class WorkPage(msgspec.Struct, frozen=True):
    """Work for Prefect, in the order in which it came; `next_cursor` is null on the last page."""

    runs: list[Work]
    """The work."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


@get(
    "/customers",
    operation_id="list_customer_loads",
    summary="Customers, and what they have under way",
    responses=refusals(),
    sync_to_thread=True,
)
def customers(
    database: NamedDependency[Database], limit: _Limit = _DEFAULT, cursor: Cursor = None
) -> CustomerLoads:
    """Return a page of all customers, with their jobs, their work for Prefect and their open tasks."""
    if cursor is not None and not is_customer_id(cursor):
        raise unknown_cursor()
    with database.transaction() as tx:
        found = loads.list_customers(tx, after=cursor or "", limit=limit + 1)
    page = found[:limit]
    return CustomerLoads(page, page[-1].customer_id if len(found) > limit else None)


@get(
    "/streams",
    operation_id="list_stream_loads",
    summary="Streams of all customers",
    responses=refusals(),
    sync_to_thread=True,
)
def streams(
    database: NamedDependency[Database],
    customer: _Customer = None,
    limit: _Limit = _DEFAULT,
    cursor: Cursor = None,
) -> StreamLoads:
    """Return a page of the streams of recurring ETL, by their latest manifests."""
    check_customer(customer)
    whose, _, name = (cursor or "").partition("/")
    if cursor is not None and not is_customer_id(whose):
        raise unknown_cursor()
    with database.transaction() as tx:
        found = loads.list_streams(tx, customer, after=(whose, name), limit=limit + 1)
    page = found[:limit]
    last = f"{page[-1].customer_id}/{page[-1].stream}" if len(found) > limit else None
    return StreamLoads(page, last)


@get(
    "/runs",
    operation_id="list_runs",
    summary="Work for Prefect",
    responses=refusals(),
    sync_to_thread=True,
)
def runs(
    database: NamedDependency[Database],
    status: Annotated[
        WorkStatus | None, QueryParameter(description="Only work of this status.")
    ] = None,
    customer: _Customer = None,
    limit: _Limit = _DEFAULT,
    cursor: Cursor = None,
) -> WorkPage:
    """Return a page of the work that Prefect has still to do, that which came first first.

    A page looks at 5,000 pieces, and may have fewer than `limit`, or none, before the last.
    """
    check_customer(customer)
    after = cursor or "0"
    if not (after.isascii() and after.isdecimal() and len(after) <= _NUMBER_DIGITS_MAX):
        raise unknown_cursor()
    with database.transaction() as tx:
        found = loads.list_work(tx, customer, status, after=int(after), limit=limit)
    return WorkPage(found.work, None if found.cursor is None else str(found.cursor))


HANDLERS = [customers, streams, runs]
