"""Webhooks: endpoints, their secrets, and the notifications that go to them."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from blocks.domain.errors import Terminal
from blocks.domain.ids import new_id
from blocks.secrets.vault import Vault
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("webhooks")

CHANNEL = "webhooks"
_FIRST_PAGE = 0
_LAST = 2**63 - 1


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
    """An endpoint. One that is not `registered` was named by a job or a task as its callback_url."""

    webhook_no: int
    webhook_id: str
    callback_url: str
    registered: bool
    events: list[Event]
    disabled_at: datetime | None
    created_at: datetime


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent once, and what came back; no `status_code` where there was no answer."""

    attempt: int
    """The number of the attempt, from 1 on."""
    attempted_at: datetime
    """When it began."""
    duration_ms: int
    """How long it took."""
    status_code: int | None
    """What the endpoint answered; null if it did not answer."""
    error: str | None
    """Why there was no good answer; null if there was one."""
    response: str | None
    """The beginning of the body that came back; null if there was none."""


class MessageStatus(StrEnum):
    """Whether a notification has arrived; `failed` where it is given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A notification and its attempts, for the log."""

    notification_no: int
    message_id: str
    event: Event
    status: MessageStatus
    body: str
    created_at: datetime
    next_attempt_at: datetime | None
    attempts: list[Attempt]


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One to be sent now, for the `attempts`th time; its endpoint failed `failures` times in a row."""

    notification_no: int
    webhook_no: int
    message_id: str
    event: str
    body: str
    attempts: int
    created_at: datetime
    expires_at: datetime
    callback_url: str
    failures: int


class DueEndpoint(msgspec.Struct, frozen=True):
    """An endpoint with something to be sent, now if it `is_due`; `failing` since its last attempt."""

    webhook_no: int
    failing: bool
    is_due: bool


# Endpoints and their secrets


def register(tx: Transaction, new: NewWebhook, vault: Vault) -> Webhook:
    """A new endpoint, or one that a job had named, or that was switched off.

    Raises:
        WebhookExists: the customer has registered that URL already.
    """
    values = msgspec.structs.asdict(new) | {"webhook_id": new_id("whk")}
    row = tx.execute(_SQL["register"], values).fetchone()
    if row is None:
        raise WebhookExists
    webhook = msgspec.convert(row, Webhook)
    _set_secret(tx, webhook, new.secret, vault, keep_previous=False)
    return webhook


def rotate(tx: Transaction, webhook: Webhook, secret: str, vault: Vault) -> None:
    """A new secret; the one before signs beside it for a day."""
    _set_secret(tx, webhook, secret, vault, keep_previous=True)


def _set_secret(
    tx: Transaction, webhook: Webhook, secret: str, vault: Vault, *, keep_previous: bool
) -> None:
    sealed = vault.seal(secret.encode(), bound_to=_binding(webhook.webhook_id))
    values = {"webhook_no": webhook.webhook_no, "secret": sealed, "keep_previous": keep_previous}
    tx.execute(_SQL["set_secret"], values)


def rotate_default(tx: Transaction, customer_id: str, secret: str, vault: Vault) -> None:
    """A new secret for the callback URLs of a customer that have none of their own."""
    sealed = vault.seal(secret.encode(), bound_to=_default_binding(customer_id))
    tx.execute(_SQL["rotate_default"], {"customer_id": customer_id, "secret": sealed})


def secrets_of(tx: Transaction, webhook_no: int, new_secret: str, vault: Vault) -> list[str]:
    """What signs for an endpoint, the current one first; `new_secret` becomes the customer's default
    one if it takes that and there is none.

    Raises:
        UndecryptableCredentials: no key of `vault` opens them.
    """
    row = tx.execute(_SQL["secrets_of"], {"webhook_no": webhook_no}).fetchone()
    assert row is not None  # endpoints are never deleted
    if row["secret"] is None:
        customer_id = row["customer_id"]
        sealed = vault.seal(new_secret.encode(), bound_to=_default_binding(customer_id))
        tx.execute(_SQL["default_secret"], {"customer_id": customer_id, "secret": sealed})
        row = tx.execute(_SQL["secrets_of"], {"webhook_no": webhook_no}).fetchone()
        assert row is not None
    bound_to = _binding(row["webhook_id"]) if row["own"] else _default_binding(row["customer_id"])
    sealed_ones = [row["secret"], row["previous_secret"]]
    return [vault.open(each, bound_to=bound_to).decode() for each in sealed_ones if each]


def find(tx: Transaction, customer_id: str, webhook_id: str) -> Webhook | None:
    """The customer's endpoint of that id, held until the transaction ends."""
    values = {"customer_id": customer_id, "webhook_id": webhook_id}
    row = tx.execute(_SQL["find"], values).fetchone()
    return msgspec.convert(row, Webhook) if row else None


def page(
    tx: Transaction,
    customer_id: str,
    *,
    limit: int,
    after: str | None = None,
    everything: bool = False,
) -> list[Webhook] | None:
    """Up to `limit` endpoints after `after`, the oldest first; None if there is no such one."""
    start = find(tx, customer_id, after) if after else None
    if after and start is None:
        return None
    values = {
        "customer_id": customer_id,
        "everything": everything,
        "after": start.webhook_no if start else _FIRST_PAGE,
        "limit": limit,
    }
    return msgspec.convert(tx.execute(_SQL["list"], values).fetchall(), list[Webhook])


def unregister(tx: Transaction, webhook_no: int) -> None:
    """It is told nothing more; what waits for it is given up."""
    for query in ("unregister", "give_up"):
        tx.execute(_SQL[query], {"webhook_no": webhook_no})


def deliveries(
    tx: Transaction, webhook: Webhook, *, limit: int, before: int | None = None
) -> list[Message]:
    """The log of an endpoint, newest first."""
    values = {"webhook_no": webhook.webhook_no, "limit": limit, "before": before or _LAST}
    return msgspec.convert(tx.execute(_SQL["deliveries"], values).fetchall(), list[Message])


def find_delivery(tx: Transaction, customer_id: str, message_id: str) -> tuple[int, int] | None:
    """The numbers of one of the customer's notifications and of its endpoint."""
    values = {"customer_id": customer_id, "message_id": message_id}
    row = tx.execute(_SQL["find_delivery"], values).fetchone()
    return (row["notification_no"], row["webhook_no"]) if row else None


def replay(tx: Transaction, notification_no: int, webhook_no: int) -> None:
    """Send it once more, whatever became of it."""
    tx.execute(_SQL["resume"], {"webhook_no": webhook_no})
    tx.execute(_SQL["replay"], {"notification_no": notification_no})
    wake(tx)


# Sending


def announce_tasks(tx: Transaction, tasks: Sequence[tuple[str, int]]) -> None:
    """Tell whoever wants to hear of it that these have settled; each is a job's id and an offset."""
    if tasks:
        job_ids, byte_offsets = zip(*tasks, strict=True)
        values = {"job_ids": list(job_ids), "byte_offsets": list(byte_offsets)}
        for query in ("name_endpoints", "announce_tasks"):
            tx.execute(_SQL[query], values)


def due_endpoints(tx: Transaction, *, after: int, looks_max: int) -> list[DueEndpoint]:
    """The next endpoints that have something waiting, by their numbers from `after` on."""
    rows = tx.execute(_SQL["due_endpoints"], {"after": after, "looks_max": looks_max}).fetchall()
    return msgspec.convert(rows, list[DueEndpoint])


def claim(tx: Transaction, limits: dict[int, int], *, hold_s: float) -> list[Notification]:
    """Up to so many of each endpoint, which nobody else sends for `hold_s`."""
    values = {
        "webhook_nos": list(limits),
        "limits": list(limits.values()),
        "hold_s": hold_s,
    }
    return msgspec.convert(tx.execute(_SQL["claim"], values).fetchall(), list[Notification])


def log_attempt(tx: Transaction, notification: Notification, attempt: Attempt) -> None:
    """What came of one attempt."""
    values = msgspec.structs.asdict(attempt) | {"notification_no": notification.notification_no}
    tx.execute(_SQL["log_attempt"], values)


def delivered(tx: Transaction, notification: Notification) -> None:
    """It has arrived, and its endpoint is well."""
    tx.execute(_SQL["recovered"], {"webhook_no": notification.webhook_no})
    tx.execute(_SQL["delivered"], {"notification_no": notification.notification_no})


def postpone(
    tx: Transaction, notification: Notification, *, delay_s: float, pause_s: float
) -> None:
    """It is tried again in `delay_s`, and its endpoint is left alone for `pause_s`."""
    values = {
        "notification_no": notification.notification_no,
        "webhook_no": notification.webhook_no,
        "delay_s": delay_s,
        "pause_s": pause_s,
    }
    for query in ("paused", "postponed"):
        tx.execute(_SQL[query], values)


def switch_off(tx: Transaction, webhook_no: int) -> None:
    """The endpoint wants nothing more."""
    for query in ("switch_off", "give_up"):
        tx.execute(_SQL[query], {"webhook_no": webhook_no})


def purge(tx: Transaction, *, days: int, limit: int) -> int:
    """Delete a batch of those that ended and are older, with their log; how many there were."""
    return tx.execute(_SQL["purge"], {"days": days, "limit": limit}).rowcount


def wake(tx: Transaction) -> None:
    """Have everybody who sends look at once."""
    tx.execute(_SQL["wake"], {"channel": CHANNEL})


# The key


def rotate_key(tx: Transaction, vault: Vault, *, after: int = 0) -> tuple[int, int | None]:
    """Reseal one batch of secrets with the current key: how many, and where to go on, or None."""
    rows = tx.execute(_SQL["list_secrets"], {"after": after}).fetchall()
    resealed = sum(_reseal(tx, "reseal_secrets", row, _binding(row["id"]), vault) for row in rows)
    if rows:
        return resealed, rows[-1]["no"]
    for row in tx.execute(_SQL["list_default_secrets"]).fetchall():
        bound_to = _default_binding(row["id"])
        resealed += _reseal(tx, "reseal_default_secret", row, bound_to, vault)
    return resealed, None


def _reseal(tx: Transaction, query: str, row: dict[str, Any], bound_to: str, vault: Vault) -> int:
    old = {"secret": row["secret"], "previous_secret": row["previous_secret"]}
    if all(sealed is None or vault.is_current(sealed) for sealed in old.values()):
        return 0
    new = {
        name: sealed and vault.seal(vault.open(sealed, bound_to=bound_to), bound_to=bound_to)
        for name, sealed in old.items()
    }
    return tx.execute(_SQL[query], row | new | {"old": row["secret"]}).rowcount


def _binding(webhook_id: str) -> str:
    return f"webhooks.secret {webhook_id}"


def _default_binding(customer_id: str) -> str:
    return f"webhook_defaults.secret {customer_id}"
