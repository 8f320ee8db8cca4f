"""The audit log: who has changed what."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import ADMINS_TOO, tenant
from api.http.errors import unknown_cursor
from api.http.parameters import A_CUSTOMER, PAGE_LIMIT, Cursor, check_customer
from api.http.refusals import refusals
from blocks.store import audit
from blocks.store.audit import Action, ActorRole, Detail, Line, TargetKind
from blocks.store.customers import Principal
from blocks.store.database import Database

_PAGE_DEFAULT = 100
_PAGE_MAX = 1000
_ID_CHARACTERS_MAX = 200


class AuditActor(msgspec.Struct, frozen=True):
    """Who acted."""

    role: ActorRole
    """A `customer` or an `admin`, who is an operator, by a key; or an operator at a `command_line`.

    `housekeeping` deletes jobs of a certain age, as the operator has set it.
    """
    key_id: str | None
    """The key; null without one, and where an operator's key is hidden from a customer."""
    name: str | None
    """What the key or its owner was called then, the account of a command line, or a setting's name.

    Null if hidden.
    """


class AuditTarget(msgspec.Struct, frozen=True):
    """What was acted on."""

    kind: TargetKind
    """What it is."""
    id: str
    """Its id; of a stream its name, of an annotator what was typed."""


class AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    """One act."""

    audit_id: str
    """The id of the line."""
    at: datetime
    """When."""
    actor: AuditActor
    """Who."""
    action: Action
    """What."""
    target: AuditTarget
    """To what."""
    customer_id: str | None
    """The customer whose thing it was; null where it is nobody's alone."""
    details: dict[str, Detail]
    """More about it, by the action. There is no secret in it, and nothing of manifests or labels."""


class AuditPage(msgspec.Struct, frozen=True):
    """Acts, the newest first; `next_cursor` is null on the last page."""

    lines: list[AuditLine]
    """The acts."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


def _text(description: str) -> QueryParameter:
    return QueryParameter(min_length=1, max_length=_ID_CHARACTERS_MAX, description=description)


@get(
    "/",
    operation_id="list_audit_log",
    summary="Who has changed what",
    opt=ADMINS_TOO,
    responses=refusals(),
    sync_to_thread=True,
)
def index(  # noqa: PLR0913 - the query
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    *,
    action: Annotated[Action | None, QueryParameter(description="Only acts of this kind.")] = None,
    customer: Annotated[
        str | None,
        QueryParameter(
            description="For operators: only on this customer's things, by id.",
            schema_extra=A_CUSTOMER,
        ),
    ] = None,
    actor: Annotated[
        str | None,
        _text("Only acts with this key, by id, at a `command_line`, or by `housekeeping`."),
    ] = None,
    target: Annotated[
        str | None, _text("Only acts on this: the id of a job, a key and so on.")
    ] = None,
    since: Annotated[
        datetime | None, QueryParameter(description="Only acts from this time on.")
    ] = None,
    until: Annotated[
        datetime | None, QueryParameter(description="Only acts before this time.")
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> AuditPage:
    """Return a page of what was done to the customer's things; for an operator, to everybody's.

    Lines are kept for 400 days. Of an operator a customer sees no name. With several filters a page
    looks at 5,000 lines, and may have fewer than `limit`, or none, before the last.
    """
    check_customer(customer)
    mine = tenant(request)
    if mine is not None and customer not in (None, mine):
        return AuditPage([], None)
    wanted = audit.Filter(
        customer_id=mine or customer,
        action=action,
        actor=actor,
        target=target,
        since=_in_utc(since),
        until=_in_utc(until),
    )
    with database.transaction() as tx:
        found = audit.list_page(tx, wanted, limit=limit, after=cursor)
    if found is None:
        raise unknown_cursor()
    return AuditPage([_view(line, is_operator=mine is None) for line in found.lines], found.cursor)


def _in_utc(at: datetime | None) -> datetime | None:
    """Return a time with its zone; one without is in UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _view(line: Line, *, is_operator: bool) -> AuditLine:
    is_shown = is_operator or line.actor_role is ActorRole.CUSTOMER
    is_key = line.actor_role in {ActorRole.CUSTOMER, ActorRole.ADMIN}
    return AuditLine(
        audit_id=line.audit_id,
        at=line.at,
        actor=AuditActor(
            line.actor_role,
            line.actor_id if is_shown and is_key else None,
            line.actor_name if is_shown else None,
        ),
        action=line.action,
        target=AuditTarget(line.target_kind, line.target_id),
        customer_id=line.customer_id,
        details=line.details,
    )


HANDLERS = [index]
