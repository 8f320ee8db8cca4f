"""Webhooks: where a customer is told of what happens, and the log of what was sent there."""

from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from api.auth import customer_id, customers_only
from api.http.errors import conflict, documented, invalid_request, not_found
from api.signatures import check_secret, new_secret
from blocks.bodies.fields import Body, Fault
from blocks.bodies.jobs import check_https_url
from blocks.domain.data_urls import normalize_url
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import webhooks
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.quotas import Quota, Quotas
from blocks.store.webhooks import Attempt, Event, MessageStatus, NewWebhook, Webhook

_PAGE_DEFAULT = 20
_PAGE_MAX = 100
_TAGS = ["Webhooks"]
_Request = Request[Principal, Any, Any]
_Secret = Annotated[str, Meta(min_length=16, max_length=128)]
_Limit = Annotated[int, QueryParameter(ge=1, le=_PAGE_MAX)]
_Cursor = Annotated[str | None, QueryParameter(description="The `next_cursor` of the page before.")]


def _check_distinct(events: list[Event]) -> None:
    if len(set(events)) != len(events):
        raise ValueError("The events must be distinct.")


class WebhookBody(Body, frozen=True, kw_only=True):
    """An https URL, and what it wants to hear of: everything, where nothing is said."""

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {
        "callback_url": check_https_url,
        "secret": check_secret,
        "events": _check_distinct,
    }

    callback_url: str
    secret: _Secret | None = None
    events: Annotated[list[Event], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: list(Event)
    )


class SecretBody(Body, frozen=True, kw_only=True):
    """A secret of the customer's own, instead of one that is made."""

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {"secret": check_secret}

    secret: _Secret | None = None


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint; `disabled_at` where it has answered 410, and is sent nothing any more."""

    webhook_id: str
    callback_url: str
    registered: bool
    events: list[Event]
    disabled_at: datetime | None
    created_at: datetime


class NewWebhookView(WebhookView, frozen=True, kw_only=True):
    """A new endpoint. `secret` is shown this once, and null where it was given."""

    secret: str | None


class SecretView(msgspec.Struct, frozen=True):
    """The new secret, shown this once; null where it was given."""

    secret: str | None


class WebhooksPage(msgspec.Struct, frozen=True):
    """Endpoints, the oldest first; `next_cursor` is null on the last page."""

    webhooks: list[WebhookView]
    next_cursor: str | None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be sent, and what came of each attempt. `delivery_id` is the `webhook-id` header."""

    delivery_id: str
    event: Event
    status: MessageStatus
    body: str
    created_at: datetime
    next_attempt_at: datetime | None
    attempts: list[Attempt]


class DeliveriesPage(msgspec.Struct, frozen=True):
    """The log, newest first; `next_cursor` is null on the last page."""

    deliveries: list[DeliveryView]
    next_cursor: str | None


class Replayed(msgspec.Struct, frozen=True):
    """It is sent again at once."""

    delivery_id: str
    status: MessageStatus = MessageStatus.PENDING


@post(
    "/v1/webhooks",
    operation_id="create_webhook",
    summary="Register an endpoint",
    tags=_TAGS,
    guards=[customers_only],
    status_code=201,
    responses=documented(400, 401, 403, 409, 413, 415),
    sync_to_thread=True,
)
def create(
    request: _Request,
    data: JSONBody[WebhookBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    vault: NamedDependency[Vault],
) -> NewWebhookView:
    """Be told of all jobs and tasks. The secret signs, and is shown once where it is made here."""
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
        except webhooks.WebhookExists as error:
            raise conflict(error.code, error.message) from error
    secret = None if data.secret else new.secret
    return NewWebhookView(**msgspec.structs.asdict(_view(webhook)), secret=secret)


@get(
    "/v1/webhooks",
    operation_id="list_webhooks",
    summary="Endpoints",
    tags=_TAGS,
    guards=[customers_only],
    responses=documented(400, 401, 403),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    all: Annotated[  # noqa: A002 - its name in the contract
        bool,
        QueryParameter(description="Those too that jobs and tasks name as their `callback_url`."),
    ] = False,
    limit: _Limit = _PAGE_DEFAULT,
    cursor: _Cursor = None,
) -> WebhooksPage:
    """The customer's endpoints, a page at a time."""
    with database.transaction() as tx:
        found = webhooks.page(
            tx, customer_id(request), limit=limit + 1, after=cursor, everything=all
        )
    if found is None:
        raise _unknown_cursor()
    page = found[:limit]
    more = len(found) > limit
    return WebhooksPage([_view(each) for each in page], page[-1].webhook_id if more else None)


@delete(
    "/v1/webhooks/{webhook_id:str}",
    operation_id="delete_webhook",
    summary="Delete an endpoint",
    tags=_TAGS,
    guards=[customers_only],
    responses=documented(400, 401, 403, 404),
    sync_to_thread=True,
)
def remove(
    request: _Request, webhook_id: FromPath[str], database: NamedDependency[Database]
) -> None:
    """Send it nothing more, nor what waits to be sent."""
    with database.transaction() as tx:
        webhooks.unregister(tx, _find(tx, request, webhook_id).webhook_no)


@post(
    "/v1/webhooks/{webhook_id:str}/rotate",
    operation_id="rotate_webhook_secret",
    summary="A new secret",
    tags=_TAGS,
    guards=[customers_only],
    status_code=200,
    responses=documented(400, 401, 403, 404, 409, 413, 415),
    sync_to_thread=True,
)
def rotate(
    request: _Request,
    webhook_id: FromPath[str],
    data: JSONBody[SecretBody],
    database: NamedDependency[Database],
    vault: NamedDependency[Vault],
) -> SecretView:
    """Sign with a new secret, and for a day with the one before as well."""
    secret = data.secret or new_secret()
    with database.transaction() as tx:
        webhook = _find(tx, request, webhook_id)
        if not webhook.registered:
            raise conflict(
                "webhook_not_registered",
                "This callback_url is signed with the default secret; register it, or rotate that.",
            )
        webhooks.rotate(tx, webhook, secret, vault)
    return SecretView(None if data.secret else secret)


@post(
    "/v1/webhooks/default-secret/rotate",
    operation_id="rotate_default_secret",
    summary="A new default secret",
    tags=_TAGS,
    guards=[customers_only],
    status_code=200,
    responses=documented(400, 401, 403, 413, 415),
    sync_to_thread=True,
)
def rotate_default(
    request: _Request,
    data: JSONBody[SecretBody],
    database: NamedDependency[Database],
    vault: NamedDependency[Vault],
) -> SecretView:
    """Sign for every `callback_url` that is not registered with a new secret, as in `rotate`."""
    secret = data.secret or new_secret()
    with database.transaction() as tx:
        webhooks.rotate_default(tx, customer_id(request), secret, vault)
    return SecretView(None if data.secret else secret)


@get(
    "/v1/webhooks/{webhook_id:str}/deliveries",
    operation_id="list_webhook_deliveries",
    summary="What was sent",
    tags=_TAGS,
    guards=[customers_only],
    responses=documented(400, 401, 403, 404),
    sync_to_thread=True,
)
def deliveries(
    request: _Request,
    webhook_id: FromPath[str],
    database: NamedDependency[Database],
    limit: _Limit = _PAGE_DEFAULT,
    cursor: _Cursor = None,
) -> DeliveriesPage:
    """The log of an endpoint, newest first, with what it answered to each attempt."""
    with database.transaction() as tx:
        webhook = _find(tx, request, webhook_id)
        before = webhooks.find_delivery(tx, customer_id(request), cursor) if cursor else None
        if cursor and (before is None or before[1] != webhook.webhook_no):
            raise _unknown_cursor()
        found = webhooks.deliveries(
            tx, webhook, limit=limit + 1, before=before[0] if before else None
        )
    page = [_delivery(each) for each in found[:limit]]
    return DeliveriesPage(page, page[-1].delivery_id if len(found) > limit else None)


@post(
    "/v1/webhooks/deliveries/{delivery_id:str}/replay",
    operation_id="replay_webhook_delivery",
    summary="Send it again",
    tags=_TAGS,
    guards=[customers_only],
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(400, 401, 403, 404),
    sync_to_thread=True,
)
def replay(
    request: _Request, delivery_id: FromPath[str], database: NamedDependency[Database]
) -> Replayed:
    """Send it again, whatever became of it; with the same id and body, and signed afresh."""
    with database.transaction() as tx:
        found = webhooks.find_delivery(tx, customer_id(request), delivery_id)
        if found is None:
            raise not_found("delivery")
        webhooks.replay(tx, *found)
    return Replayed(delivery_id)


def _find(tx: Transaction, request: _Request, webhook_id: str) -> Webhook:
    webhook = webhooks.find(tx, customer_id(request), webhook_id)
    if webhook is None:
        raise not_found("webhook")
    return webhook


def _unknown_cursor() -> Exception:
    return invalid_request([Fault("cursor", "This is not the next_cursor of any page.")])


def _view(webhook: Webhook) -> WebhookView:
    return msgspec.convert(webhook, WebhookView, from_attributes=True)


def _delivery(delivery: webhooks.Message) -> DeliveryView:
    fields = msgspec.structs.asdict(delivery)
    del fields["notification_no"]
    return DeliveryView(delivery_id=fields.pop("message_id"), **fields)


HANDLERS = [create, index, remove, rotate, rotate_default, deliveries, replay]
