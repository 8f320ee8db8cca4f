"""What operators set for a customer: see it, and change their limits at run time."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.auth import actor
from api.http.errors import not_found
from api.http.refusals import refusals
from api.routes.pauses import CustomerId, find_customer
from blocks.bodies.fields import Body
from blocks.domain.limits import CUSTOMER_LIMIT_MAX, CUSTOMER_RUNS_MAX
from blocks.store import audit, customer_limits
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.pauses import CustomerState

_Limit = Annotated[int, Meta(ge=0, le=CUSTOMER_LIMIT_MAX)] | UnsetType | None


class LimitsBody(Body, frozen=True, kw_only=True):
    """Limits of a customer to be changed. Null sets that of the settings again, 0 is no limit."""

    runs: Annotated[int, Meta(ge=1, le=CUSTOMER_RUNS_MAX)] | UnsetType | None = UNSET
    """How many runs of Prefect they may have under way at once."""
    jobs: _Limit = UNSET
    """How many jobs may be under way at once."""
    open_tasks: _Limit = UNSET
    """How many tasks may wait for labels at once."""
    stored_bytes: _Limit = UNSET
    """What their manifests and tasks may come to, in bytes."""
    webhooks: _Limit = UNSET
    """How many endpoints they may register."""
    keys: _Limit = UNSET
    """How many keys may be good, or made within a day."""
    requests_per_minute: _Limit = UNSET
    """How many requests they may make, at each API process."""
    body_bytes_per_minute: _Limit = UNSET
    """How many bytes of bodies they may send, to each API process."""


@get(
    "/customers/{customer_id:str}",
    operation_id="get_customer",
    summary="What operators have set for a customer",
    responses=refusals(not_found("customer")),
    sync_to_thread=True,
)
def read(customer_id: CustomerId, database: NamedDependency[Database]) -> CustomerState:
    """Return whether a customer is paused, and the limits that are their own."""
    with database.transaction() as tx:
        return find_customer(tx, customer_id)


@patch(
    "/customers/{customer_id:str}",
    operation_id="change_customer",
    summary="Change the limits of a customer",
    responses=refusals(not_found("customer"), takes=LimitsBody),
    sync_to_thread=True,
)
def change(
    request: Request[Principal, Any, Any],
    customer_id: CustomerId,
    data: JSONBody[LimitsBody],
    database: NamedDependency[Database],
) -> CustomerState:
    """Change those limits that the body names; the others stay.

    Launchers go by them at once, and all API processes within two seconds. What is there already stays,
    even if it is more than is allowed now.
    """
    asked = msgspec.structs.asdict(data)
    changes = {name: value for name, value in asked.items() if value is not UNSET}
    with database.transaction() as tx:
        find_customer(tx, customer_id)
        new = customer_limits.change(tx, customer_id, changes)
        if new:
            target = audit.customer(customer_id)
            audit.record(tx, actor(request), Action.CUSTOMER_LIMITS_CHANGED, target, **new)
        return find_customer(tx, customer_id)


HANDLERS = [read, change]
