"""Endpoints: where customers want to be told of their jobs and tasks."""

from datetime import datetime
from enum import StrEnum

import msgspec

from blocks.domain.errors import Terminal
from blocks.domain.ids import new_id
from blocks.secrets.vault import Vault
from blocks.store import webhook_secrets
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("webhooks")

_FIRST_PAGE = 0


class Event(StrEnum):
    """What customers can be told of."""

    JOB_PROCESSING = "job.processing"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    TASK_SETTLED = "task.settled"


class WebhookExists(Terminal):
    """The URL is registered already."""

    code = "webhook_exists"

    def __init__(self) -> None:
        super().__init__(
            "This callback_url is registered already; delete it first, or rotate its secret."
        )


class NewWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint to be registered; its `secret` is sealed before it is stored."""

    customer_id: str
    callback_url: str
    events: list[Event]
    secret: str


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint. One that is not `registered` was named by a job or a task, or was deleted."""

    webhook_no: int
    webhook_id: str
    customer_id: str
    callback_url: str
    registered: bool
    events: list[Event]
    disabled_at: datetime | None
    created_at: datetime


def register(tx: Transaction, new: NewWebhook, vault: Vault) -> Webhook:
    """Add an endpoint, or register one that a job had named, or that was switched off.

    Raises:
        WebhookExists: the customer has registered that URL already.
    """
    values = msgspec.structs.asdict(new) | {"webhook_id": new_id("whk")}
    row = tx.execute(_SQL["register"], values).fetchone()
    if row is None:
        raise WebhookExists
    webhook = msgspec.convert(row, Webhook)
    webhook_secrets.set_first(tx, webhook.webhook_no, webhook.webhook_id, new.secret, vault)
    return webhook


def find(tx: Transaction, customer_id: str | None, webhook_id: str) -> Webhook | None:
    """Return the endpoint of that id, held until the transaction ends; with None it may be anybody's."""
    values = {"customer_id": customer_id, "webhook_id": webhook_id}
    row = tx.execute(_SQL["find"], values).fetchone()
    return msgspec.convert(row, Webhook) if row else None


def list_page(
    tx: Transaction,
    customer_id: str | None,
    *,
    limit: int,
    after: str | None = None,
    everything: bool = False,
) -> list[Webhook] | None:
    """Return up to `limit` endpoints after `after`, the oldest first; None if there is no such one.

    With None for the customer they are everybody's. Those that are not registered are left out, but
    for `everything`: then they are there as long as they have messages, or are switched off.
    """
    start = find(tx, customer_id, after) if after else None
    if after and start is None:
        return None
    values = {
        "customer_id": customer_id,
        "everything": everything,
        "after": start.webhook_no if start else _FIRST_PAGE,
        "limit": limit,
    }
    query = "list" if customer_id else "list_of_all"
    return msgspec.convert(tx.execute(_SQL[query], values).fetchall(), list[Webhook])


def unregister(tx: Transaction, webhook_no: int) -> None:
    """Tell an endpoint nothing more but what jobs and tasks name it for; give up what waits for it."""
    for query in ("unregister", "give_up"):
        tx.execute(_SQL[query], {"webhook_no": webhook_no})


def switch_off(tx: Transaction, webhook_no: int) -> None:
    """Send nothing more to an endpoint that wants no more; give up what waits for it."""
    for query in ("switch_off", "give_up"):
        tx.execute(_SQL[query], {"webhook_no": webhook_no})
