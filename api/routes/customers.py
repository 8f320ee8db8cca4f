"""Customers, for operators: who there is to look at the jobs of."""

from datetime import datetime

import msgspec
from litestar import get
from litestar.di import NamedDependency

from api.http.refusals import refusals
from blocks.store import customers
from blocks.store.database import Database


class CustomerView(msgspec.Struct, frozen=True):
    """A customer."""

    customer_id: str
    """The id of the customer."""
    name: str
    """Their name."""
    created_at: datetime
    """When they were added."""
    keys: int
    """How many of their keys are good."""


class Customers(msgspec.Struct, frozen=True):
    """All customers, the oldest first."""

    customers: list[CustomerView]
    """The customers."""


@get(
    "/",
    operation_id="list_customers",
    summary="Customers",
    responses=refusals(),
    sync_to_thread=True,
)
def index(database: NamedDependency[Database]) -> Customers:
    """Return all customers."""
    with database.transaction() as tx:
        found = customers.list_customers(tx)
    return Customers([CustomerView(**msgspec.structs.asdict(each)) for each in found])


HANDLERS = [index]
