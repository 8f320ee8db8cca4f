"""API keys: list them, make one, revoke one, and links by which a browser signs in with one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from api.auth import ADMINS_TOO, KeyRing, actor, reader, tenant
from api.http.bodies import digest
from api.http.errors import ApiError, conflict, invalid_request, not_found, unknown_cursor
from api.http.parameters import A_CUSTOMER, PAGE_LIMIT, Cursor, check_customer
from api.http.refusals import refusals
from blocks import logs
from blocks.bodies.fields import Body, Fault
from blocks.domain.errors import IdempotencyConflict
from blocks.domain.names import NAME_CHARACTERS_MAX, check_name
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import audit, customers, keys
from blocks.store.audit import Action
from blocks.store.customers import Principal, UnknownCustomer
from blocks.store.database import Database, Transaction
from blocks.store.jobs import Idempotency
from blocks.store.keys import (
    ApiKey,
    Asker,
    AskerRevoked,
    KeyRevoked,
    KeyRole,
    LastKey,
    Made,
    NewKey,
    OperatorsKey,
)
from blocks.store.quotas import Quota, QuotaExceeded, Quotas

logger = logs.get_logger("refinery.keys")

PAGE_DEFAULT = 20
_PAGE_MAX = 100
_Request = Request[Principal, bytes, Any]
_KeyId = Annotated[str, PathParameter(description="The `key_id` of a key, never the key itself.")]
_IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body within 24 hours is answered with the same API key.",
    ),
]


class KeyBody(Body, frozen=True, kw_only=True):
    """Whose key to make."""

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {"name": check_name}

    role: Literal["customer", "annotator", "reviewer"] = "customer"
    """What the key may do. Customers make customers' keys; annotators are the operator's."""
    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)] | None = None
    """What to call a customer's key, such as where it is used. Of an annotator's or a reviewer's,
    who it is for: an annotator of that name is made if there is none."""
    customer_id: str | None = None
    """By an operator: the customer whose key it is; or whose tasks the annotator is handed besides
    those of customers named before. An annotator for whom none was ever named is handed everybody's."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield a fault for an annotator without a name."""
        if self.role != "customer" and self.name is None:
            yield Fault("name", "Say who the key is for, by name.")


class KeyView(ApiKey, frozen=True, kw_only=True):
    """A key, without what is secret of it."""

    current: bool
    """True for the key that asks, or that the session was begun with."""


class NewKeyView(KeyView, frozen=True, kw_only=True):
    """A new key. `key` and `sign_in_link` are shown this once."""

    key: str
    """The key."""
    sign_in_link: str
    """A link that signs one browser in with the key, once."""


class RevokedKeyView(KeyView, frozen=True, kw_only=True):
    """A key that is not good any more."""

    tasks_returned: int
    """How many tasks of its annotator, who has no good key left, went back to others."""


class SignInLink(msgspec.Struct, frozen=True):
    """A link that signs one browser in with a key, shown this once."""

    key_id: str
    """The key that it stands for."""
    sign_in_link: str
    """The link. What follows `#` is secret."""


class KeysPage(msgspec.Struct, frozen=True):
    """Keys, the newest first; `next_cursor` is null on the last page."""

    keys: list[KeyView]
    """The keys, revoked ones too."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


def _operators_only() -> ApiError:
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "annotators_are_the_operators",
        "Annotators and reviewers are the operator's, who makes their keys; ask them for one.",
    )


def _operators_key() -> ApiError:
    return ApiError(HTTPStatus.FORBIDDEN, OperatorsKey.code, OperatorsKey().message)


def _last_key() -> ApiError:
    return conflict(LastKey.code, LastKey().message)


def _key_revoked() -> ApiError:
    return conflict(KeyRevoked.code, KeyRevoked().message)


@get(
    "/",
    operation_id="list_keys",
    summary="Keys",
    opt=ADMINS_TOO,
    responses=refusals(),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    customer: Annotated[
        str | None,
        QueryParameter(
            description="For operators: the keys of this customer alone.", schema_extra=A_CUSTOMER
        ),
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)
    ] = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> KeysPage:
    """Return a page of the customer's keys; for an operator, of everybody's."""
    check_customer(customer)
    mine = tenant(request)
    if mine is not None and customer not in (None, mine):
        return KeysPage([], None)
    with database.transaction() as tx:
        found = keys.list_page(tx, mine or customer, limit=limit + 1, after=cursor)
    if found is None:
        raise unknown_cursor()
    page = found[:limit]
    more = len(found) > limit
    return KeysPage([_view(request, each) for each in page], page[-1].key_id if more else None)


@post(
    "/",
    operation_id="create_key",
    summary="Make a key",
    opt=ADMINS_TOO,
    status_code=HTTPStatus.CREATED,
    responses=refusals(
        _operators_only(),
        not_found("customer"),
        IdempotencyConflict("This Idempotency-Key was used for another key."),
        QuotaExceeded(Quota.KEYS, 100),
        takes=KeyBody,
    ),
    sync_to_thread=True,
)
def create(
    request: _Request,
    data: JSONBody[KeyBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    vault: NamedDependency[Vault],
    *,
    idempotency_key: _IdempotencyKey = None,
) -> Response[NewKeyView]:
    """Make a key, and a link that signs a browser in with it. Both are shown this once."""
    new = _new_key(request, data)
    idempotency = Idempotency(idempotency_key, digest(data)) if idempotency_key else None
    quotas: Quotas = request.app.state.quotas
    with _answered(), database.transaction() as tx:
        made, replayed = keys.make(
            tx,
            _asker(request),
            new,
            vault,
            link_s=settings.sign_in_link_s,
            idempotency=idempotency,
        )
        if not replayed:
            quotas.check(tx, made.shown.owner_id, Quota.KEYS, settings.keys_per_owner_max)
            _record(tx, request, Action.KEY_MADE, made.shown)
    if not replayed:
        _log("key.made", request, made.shown)
    headers = {"Idempotent-Replayed": "true"} if replayed else None
    return Response(
        _new_view(request, made, settings), status_code=HTTPStatus.CREATED, headers=headers
    )


@post(
    "/{key_id:str}/sign-in-link",
    operation_id="create_sign_in_link",
    summary="A new sign-in link",
    opt=ADMINS_TOO,
    status_code=HTTPStatus.CREATED,
    responses=refusals(_operators_key(), not_found("key"), _key_revoked()),
    sync_to_thread=True,
)
def link(
    request: _Request,
    key_id: _KeyId,
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> SignInLink:
    """Make another link that signs one browser in with a key, once. The key itself is not shown."""
    with _answered(), database.transaction() as tx:
        key = _find(tx, request, key_id)
        token = keys.add_link(tx, _asker(request), key, link_s=settings.sign_in_link_s)
        _record(tx, request, Action.SIGN_IN_LINK_MADE, key)
    _log("key.link_made", request, key)
    return SignInLink(key_id, _link(request, token, settings))


@delete(
    "/{key_id:str}",
    operation_id="revoke_key",
    summary="Revoke a key",
    opt=ADMINS_TOO,
    status_code=HTTPStatus.OK,
    responses=refusals(_operators_key(), not_found("key"), _last_key()),
    sync_to_thread=True,
)
def revoke(
    request: _Request,
    key_id: _KeyId,
    database: NamedDependency[Database],
    last: Annotated[
        bool,
        QueryParameter(
            description="Revoke it even if it is the customer's last good key, which would else be a "
            "409: then only the operator can let the customer in again."
        ),
    ] = False,
) -> RevokedKeyView:
    """Make a key invalid for good, with all its sessions and links. A second time changes nothing.

    When the last key of an annotator is revoked, the tasks that they hold go back to others at once.
    """
    with _answered(), database.transaction() as tx:
        key = _find(tx, request, key_id)
        shown, revoked = keys.revoke(tx, _asker(request), key, even_last=last)
        if revoked:
            _record(tx, request, Action.KEY_REVOKED, shown)
    ring: KeyRing = request.app.state.key_ring
    ring.forget_key(key_id)
    if revoked:
        _log("key.revoked", request, shown)
    view = msgspec.structs.asdict(_view(request, shown))
    return RevokedKeyView(**view, tasks_returned=revoked.tasks_returned if revoked else 0)


def _new_key(request: _Request, data: KeyBody) -> NewKey:
    """Return the key that the body asks for.

    Raises:
        ApiError: 403, a customer asks for an annotator's key; 404, for another customer's; 400, an
            operator does not say whose.
    """
    mine = tenant(request)
    if mine is not None and data.role != "customer":
        raise _operators_only()
    if mine is not None and data.customer_id not in (None, mine):
        raise not_found("customer")
    customer_id = mine or data.customer_id
    if data.role == "customer" and customer_id is None:
        raise invalid_request([Fault("customer_id", "Say whose key it is.")])
    return NewKey(role=KeyRole(data.role), name=data.name, customer_id=customer_id)


@contextmanager
def _answered() -> Iterator[None]:
    """Answer what the store refuses."""
    try:
        yield
    except AskerRevoked as error:
        raise NotAuthorizedException from error
    except UnknownCustomer as error:
        raise not_found("customer") from error
    except OperatorsKey as error:
        raise _operators_key() from error
    except LastKey as error:
        raise _last_key() from error
    except KeyRevoked as error:
        raise _key_revoked() from error


def _find(tx: Transaction, request: _Request, key_id: str) -> ApiKey:
    found = keys.find(tx, tenant(request), key_id)
    if found is None:
        raise not_found("key")
    return found


def _asker(request: _Request) -> Asker:
    return Asker(tenant(request), reader(request.user), request.auth)


def _view(request: _Request, key: ApiKey) -> KeyView:
    is_current = key.key_id == customers.id_of(request.auth)
    return KeyView(**msgspec.structs.asdict(key), current=is_current)


def _new_view(request: _Request, made: Made, settings: Settings) -> NewKeyView:
    view = msgspec.structs.asdict(_view(request, made.shown))
    return NewKeyView(**view, key=made.key, sign_in_link=_link(request, made.link, settings))


def _link(request: _Request, token: str, settings: Settings) -> str:
    """Return the link at the address that customers know, or else at that which the request came to."""
    address = settings.public_url or str(request.base_url)
    return f"{address.rstrip('/')}/#{token}"


def _record(tx: Transaction, request: _Request, action: Action, key: ApiKey) -> None:
    audit.record(tx, actor(request), action, audit.key(key.key_id, key.customer_id), role=key.role)


def _log(event: str, request: _Request, key: ApiKey) -> None:
    by = customers.id_of(request.auth)
    logger.info(event, key_id=key.key_id, role=key.role, owner_id=key.owner_id, by=by)


HANDLERS = [index, create, link, revoke]
