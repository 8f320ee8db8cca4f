"""Webhooks: where a customer is told of what happens, and the secrets that sign it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from api.auth import ADMINS_TOO, actor, customer_id, tenant
from api.http.errors import ApiError, conflict, not_found, unknown_cursor
from api.http.parameters import PAGE_LIMIT, Cursor, WebhookId
from api.http.refusals import refusals
from api.signatures import check_secret, new_secret
from blocks.bodies.fields import Body
from blocks.bodies.jobs import HttpsUrl, check_https_url
from blocks.domain.data_urls import normalize_url
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import audit, webhook_secrets, webhooks
from blocks.store.audit import Action, Target, TargetKind
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.quotas import Quota, QuotaExceeded, Quotas
from blocks.store.webhooks import Event, NewWebhook, Webhook, WebhookExists

PAGE_DEFAULT = 20
_PAGE_MAX = 100
_Request = Request[Principal, Any, Any]
_Secret = Annotated[
    str, Meta(min_length=16, max_length=128, extra_json_schema={"pattern": "^[!-~]+$"})
]
PageLimit = Annotated[int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)]


def _check_distinct(events: list[Event]) -> None:
    if len(set(events)) != len(events):
        raise ValueError("The events must be distinct.")


class WebhookBody(Body, frozen=True, kw_only=True):
    """An https URL, and the events that it is told of: all of them, unless some are named."""

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {
        "callback_url": check_https_url,
        "secret": check_secret,
        "events": _check_distinct,
    }

    callback_url: HttpsUrl
    """Where notifications go: https, without a user and a password."""
    secret: _Secret | None = None
    """The secret to sign with: visible ASCII characters, or `whsec_` and 24 to 64 bytes in
    base 64. One is made where none is given."""
    events: Annotated[list[Event], Meta(min_length=1, extra_json_schema={"uniqueItems": True})] = (
        msgspec.field(default_factory=lambda: list(Event))
    )
    """The events to be told of; all of them by default."""


class SecretBody(Body, frozen=True, kw_only=True):
    """A secret of the customer's own, instead of one that is made."""

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {"secret": check_secret}

    secret: _Secret | None = None
    """The secret to sign with: visible ASCII characters, or `whsec_` and 24 to 64 bytes in
    base 64. One is made where none is given."""


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint; `disabled_at` where it has answered 410, and is sent nothing any more."""

    webhook_id: str
    """The id of the endpoint."""
    customer_id: str
    """Whose endpoint it is."""
    callback_url: str
    """Where notifications go, normalized."""
    registered: bool
    """False if it was deleted, or jobs or tasks alone have named it as their `callback_url`."""
    events: list[Event]
    """What it is told of."""
    disabled_at: datetime | None
    """Since when it is switched off, because it answered 410; null if it is not."""
    created_at: datetime
    """When it was registered, or named first."""


class NewWebhookView(WebhookView, frozen=True, kw_only=True):
    """A new endpoint. `secret` is shown this once, and null where it was given."""

    secret: str | None
    """The secret that was made, shown this once; null where one was given."""


class SecretView(msgspec.Struct, frozen=True):
    """The new secret, shown this once; null where it was given."""

    secret: str | None
    """The secret that was made, shown this once; null where one was given."""


class WebhooksPage(msgspec.Struct, frozen=True):
    """Endpoints, the oldest first; `next_cursor` is null on the last page."""

    webhooks: list[WebhookView]
    """The endpoints."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


def _exists() -> ApiError:
    return conflict(WebhookExists.code, WebhookExists().message)


def _not_registered() -> ApiError:
    return conflict(
        "webhook_not_registered",
        "This callback_url is signed with the default secret; register it, or rotate that.",
    )


@post(
    "/",
    operation_id="create_webhook",
    summary="Register an endpoint",
    status_code=201,
    responses=refusals(_exists(), QuotaExceeded(Quota.WEBHOOKS, 100), takes=WebhookBody),
    sync_to_thread=True,
)
def create(
    request: _Request,
    data: JSONBody[WebhookBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    vault: NamedDependency[Vault],
) -> NewWebhookView:
    """Be told of all jobs and tasks. A secret that is made here is shown this once."""
    new = NewWebhook(
        customer_id=customer_id(request),
        callback_url=normalize_url(data.callback_url),
        events=data.events,
        secret=data.secret or new_secret(),
    )
    quotas: Quotas = request.app.state.quotas
    with database.transaction() as tx:
        try:
            webhook = webhooks.register(tx, new, vault)
            quotas.check(tx, new.customer_id, Quota.WEBHOOKS, settings.webhooks_per_customer_max)
        except WebhookExists as error:
            raise _exists() from error
        audit.record(tx, actor(request), Action.WEBHOOK_MADE, _target(webhook))
    secret = None if data.secret else new.secret
    return NewWebhookView(**msgspec.structs.asdict(_view(webhook)), secret=secret)


@get(
    "/",
    operation_id="list_webhooks",
    summary="Endpoints",
    opt=ADMINS_TOO,
    responses=refusals(),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    all: Annotated[  # noqa: A002 - its name in the contract
        bool,
        QueryParameter(
            description="Those too that are not registered and have messages in their log, or are "
            "switched off: what jobs and tasks name as their `callback_url`, and what was deleted."
        ),
    ] = False,
    limit: PageLimit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> WebhooksPage:
    """Return a page of the customer's endpoints; for an operator, of everybody's."""
    with database.transaction() as tx:
        found = webhooks.list_page(
            tx, tenant(request), limit=limit + 1, after=cursor, everything=all
        )
    if found is None:
        raise unknown_cursor()
    page = found[:limit]
    more = len(found) > limit
    return WebhooksPage([_view(each) for each in page], page[-1].webhook_id if more else None)


@delete(
    "/{webhook_id:str}",
    operation_id="delete_webhook",
    summary="Delete an endpoint",
    responses=refusals(not_found("webhook")),
    response_description="The endpoint is deleted.",
    sync_to_thread=True,
)
def remove(request: _Request, webhook_id: WebhookId, database: NamedDependency[Database]) -> None:
    """Send nothing more to this endpoint, and drop the messages that wait."""
    with database.transaction() as tx:
        webhook = find_webhook(tx, request, webhook_id)
        webhooks.unregister(tx, webhook.webhook_no)
        if webhook.registered:
            audit.record(tx, actor(request), Action.WEBHOOK_DELETED, _target(webhook))


@post(
    "/{webhook_id:str}/rotate",
    operation_id="rotate_webhook_secret",
    summary="A new secret",
    status_code=200,
    responses=refusals(not_found("webhook"), _not_registered(), takes=SecretBody),
    sync_to_thread=True,
)
def rotate(
    request: _Request,
    webhook_id: WebhookId,
    data: JSONBody[SecretBody],
    database: NamedDependency[Database],
    vault: NamedDependency[Vault],
) -> SecretView:
    """Sign with a new secret, and for a day with the one before as well."""
    secret = data.secret or new_secret()
    with database.transaction() as tx:
        webhook = find_webhook(tx, request, webhook_id)
        if not webhook.registered:
            raise _not_registered()
        webhook_secrets.rotate(tx, webhook.webhook_no, webhook.webhook_id, secret, vault)
        audit.record(tx, actor(request), Action.WEBHOOK_SECRET_CHANGED, _target(webhook))
    return SecretView(None if data.secret else secret)


@post(
    "/default-secret/rotate",
    operation_id="rotate_default_secret",
    summary="A new default secret",
    status_code=200,
    responses=refusals(takes=SecretBody),
    sync_to_thread=True,
)
def rotate_default(
    request: _Request,
    data: JSONBody[SecretBody],
    database: NamedDependency[Database],
    vault: NamedDependency[Vault],
) -> SecretView:
    """Sign with a new secret for every `callback_url` that is not registered, for a day with both."""
    secret = data.secret or new_secret()
    with database.transaction() as tx:
        whose = customer_id(request)
        webhook_secrets.rotate_default(tx, whose, secret, vault)
        target = Target(TargetKind.CUSTOMER, whose, whose)
        audit.record(tx, actor(request), Action.WEBHOOK_SECRET_CHANGED, target)
    return SecretView(None if data.secret else secret)


def find_webhook(tx: Transaction, request: _Request, webhook_id: str) -> Webhook:
    """Return the endpoint of that id: the customer's, or for an operator anybody's.

    Raises:
        ApiError: 404, there is no such endpoint, or it is another's.
    """
    webhook = webhooks.find(tx, tenant(request), webhook_id)
    if webhook is None:
        raise not_found("webhook")
    return webhook


def _target(webhook: Webhook) -> Target:
    return Target(TargetKind.WEBHOOK, webhook.webhook_id, webhook.customer_id)


def _view(webhook: Webhook) -> WebhookView:
    return msgspec.convert(webhook, WebhookView, from_attributes=True)


HANDLERS = [create, index, remove, rotate, rotate_default]
