"""Messages to webhooks, which the API calls deliveries: the log of them, and sending one again."""

from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency

from api.auth import ADMINS_TOO, actor, tenant
from api.http.errors import not_found, unknown_cursor
from api.http.parameters import Cursor, DeliveryId, WebhookId
from api.http.refusals import refusals
from api.routes.webhooks import PAGE_DEFAULT, PageLimit, find_webhook
from blocks.store import audit, webhook_messages
from blocks.store.audit import Action, Target, TargetKind
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.webhook_messages import Attempt, MessageStatus
from blocks.store.webhooks import Event

_Request = Request[Principal, Any, Any]


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """A message to an endpoint, and its attempts. `delivery_id` is the `webhook-id` header."""

    delivery_id: str
    """The id of the notification, its `webhook-id` header."""
    event: Event
    """What it tells of."""
    status: MessageStatus
    """Whether it has arrived."""
    body: str
    """The body, as it is signed."""
    created_at: datetime
    """When it was recorded."""
    next_attempt_at: datetime | None
    """When it is sent again; null if it is not."""
    attempts: list[Attempt]
    """What came of each attempt."""


class DeliveriesPage(msgspec.Struct, frozen=True):
    """The log, newest first; `next_cursor` is null on the last page."""

    deliveries: list[DeliveryView]
    """The notifications."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class Replayed(msgspec.Struct, frozen=True):
    """It is sent again at once."""

    delivery_id: str
    """The id of the notification, the same as before."""
    status: MessageStatus = MessageStatus.PENDING
    """Always `pending`."""


@get(
    "/{webhook_id:str}/deliveries",
    operation_id="list_webhook_deliveries",
    summary="What was sent",
    opt=ADMINS_TOO,
    responses=refusals(not_found("webhook")),
    sync_to_thread=True,
)
def index(
    request: _Request,
    webhook_id: WebhookId,
    database: NamedDependency[Database],
    limit: PageLimit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> DeliveriesPage:
    """Return the log of an endpoint, newest first, with what it answered to each attempt."""
    with database.transaction() as tx:
        webhook = find_webhook(tx, request, webhook_id)
        before = webhook_messages.find_message(tx, tenant(request), cursor) if cursor else None
        if cursor and (before is None or before[1] != webhook.webhook_no):
            raise unknown_cursor()
        found = webhook_messages.list_messages(
            tx, webhook, limit=limit + 1, before=before[0] if before else None
        )
    page = [_delivery(each) for each in found[:limit]]
    return DeliveriesPage(page, page[-1].delivery_id if len(found) > limit else None)


@post(
    "/deliveries/{delivery_id:str}/replay",
    operation_id="replay_webhook_delivery",
    summary="Send it again",
    opt=ADMINS_TOO,
    status_code=HTTPStatus.ACCEPTED,
    responses=refusals(not_found("delivery")),
    sync_to_thread=True,
)
def replay(
    request: _Request, delivery_id: DeliveryId, database: NamedDependency[Database]
) -> Replayed:
    """Send it again, even if it has arrived, with the same id and body and a new signature."""
    with database.transaction() as tx:
        found = webhook_messages.find_message(tx, tenant(request), delivery_id)
        if found is None:
            raise not_found("delivery")
        customer_id = webhook_messages.replay(tx, *found)
        target = Target(TargetKind.WEBHOOK_MESSAGE, delivery_id, customer_id)
        audit.record(tx, actor(request), Action.WEBHOOK_MESSAGE_REPLAYED, target)
    return Replayed(delivery_id)


def _delivery(delivery: webhook_messages.Message) -> DeliveryView:
    fields = msgspec.structs.asdict(delivery)
    del fields["notification_no"]
    return DeliveryView(delivery_id=fields.pop("message_id"), **fields)


HANDLERS = [index, replay]
