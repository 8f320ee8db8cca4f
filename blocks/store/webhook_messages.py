"""Messages to endpoints, each with its attempts: announced, sent until they are answered, and logged."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from blocks.store import pages
from blocks.store.database import Transaction
from blocks.store.queries import load
from blocks.store.webhooks import Event, Webhook

_SQL = load("webhook_messages")

_WAITING_ENDPOINTS_MAX = 10_000

CHANNEL = "webhooks"
"""Of PostgreSQL's NOTIFY: there is something to be sent."""

_LAST = 2**63 - 1


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
    """Whether a message has arrived; `failed` where it is given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message and its attempts, for the log."""

    notification_no: int
    message_id: str
    event: Event
    status: MessageStatus
    body: str
    created_at: datetime
    next_attempt_at: datetime | None
    attempts: list[Attempt]


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be sent now, for the `attempts`th time; `failures` are its endpoint's in a row."""

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
    traceparent: str | None
    """Of its job."""


class DueEndpoint(msgspec.Struct, frozen=True):
    """An endpoint with something to be sent, now if it `is_due`; `failing` since its last attempt."""

    webhook_no: int
    failing: bool
    is_due: bool


def announce_tasks(tx: Transaction, tasks: Sequence[tuple[int, str, int]]) -> None:
    """Add messages about tasks that have settled, each given as (job number, job id, task number).

    A task on a corrupt page has neither a URL or text nor metadata in its message.
    """
    if tasks:
        lines = pages.read_whole(tx, [(job_no, task_no) for job_no, _, task_no in tasks])
        found = [lines.get((job_no, task_no)) for job_no, _, task_no in tasks]
        values = {
            "job_ids": [job_id for _, job_id, _ in tasks],
            "task_nos": [task_no for _, _, task_no in tasks],
            "data_urls": [line and line.data_url for line in found],
            "texts": [line and line.text for line in found],
            "metadata": [line and line.metadata for line in found],
        }
        for query in ("name_endpoints", "announce_tasks"):
            tx.execute(_SQL[query], values)


def find_due_endpoints(tx: Transaction, *, after: int, looks_max: int) -> list[DueEndpoint]:
    """Return the next endpoints that have something waiting, by their numbers from `after` on."""
    rows = tx.execute(_SQL["due_endpoints"], {"after": after, "looks_max": looks_max}).fetchall()
    return msgspec.convert(rows, list[DueEndpoint])


def claim(tx: Transaction, limits: dict[int, int], *, hold_s: float) -> list[Notification]:
    """Take up to so many messages of each endpoint, which nobody else sends for `hold_s` seconds."""
    values = {
        "webhook_nos": list(limits),
        "limits": list(limits.values()),
        "hold_s": hold_s,
    }
    return msgspec.convert(tx.execute(_SQL["claim"], values).fetchall(), list[Notification])


def log_attempt(tx: Transaction, notification: Notification, attempt: Attempt) -> None:
    """Record what came of one attempt."""
    values = msgspec.structs.asdict(attempt) | {"notification_no": notification.notification_no}
    tx.execute(_SQL["log_attempt"], values)


def mark_delivered(tx: Transaction, notification: Notification) -> None:
    """Record that a message has arrived, and so that its endpoint is well."""
    tx.execute(_SQL["mark_recovered"], {"webhook_no": notification.webhook_no})
    tx.execute(_SQL["mark_delivered"], {"notification_no": notification.notification_no})


def postpone(
    tx: Transaction, notification: Notification, *, delay_s: float, pause_s: float
) -> None:
    """Try a message again in `delay_s` seconds, and leave its endpoint alone for `pause_s`."""
    values = {
        "notification_no": notification.notification_no,
        "webhook_no": notification.webhook_no,
        "delay_s": delay_s,
        "pause_s": pause_s,
    }
    for query in ("pause_endpoint", "postpone"):
        tx.execute(_SQL[query], values)


def list_messages(
    tx: Transaction, webhook: Webhook, *, limit: int, before: int | None = None
) -> list[Message]:
    """Return the log of an endpoint, newest first, up to `limit` messages from before that number."""
    values = {"webhook_no": webhook.webhook_no, "limit": limit, "before": before or _LAST}
    return msgspec.convert(tx.execute(_SQL["list"], values).fetchall(), list[Message])


def find_message(
    tx: Transaction, customer_id: str | None, message_id: str
) -> tuple[int, int] | None:
    """Return the numbers of a message, of the customer or with None of anybody, and of its endpoint."""
    values = {"customer_id": customer_id, "message_id": message_id}
    row = tx.execute(_SQL["find"], values).fetchone()
    return (row["notification_no"], row["webhook_no"]) if row else None


def replay(tx: Transaction, notification_no: int, webhook_no: int) -> str:
    """Send a message once more, whatever became of it; return whose it is."""
    endpoint = tx.execute(_SQL["resume_endpoint"], {"webhook_no": webhook_no}).fetchone()
    tx.execute(_SQL["replay"], {"notification_no": notification_no})
    wake(tx)
    assert endpoint is not None  # endpoints are never deleted
    customer_id: str = endpoint["customer_id"]
    return customer_id


def expire(tx: Transaction, *, limit: int) -> int:
    """Give a batch of those up that have waited for three days without being tried; return how many."""
    values = {"after": 0, "looks_max": _WAITING_ENDPOINTS_MAX, "limit": limit}
    return tx.execute(_SQL["expire"], values).rowcount


def purge(tx: Transaction, *, days: int, limit: int) -> int:
    """Delete a batch of those that have ended and are older, with their log; return how many."""
    return tx.execute(_SQL["purge"], {"days": days, "limit": limit}).rowcount


def wake(tx: Transaction) -> None:
    """Have everybody who sends look at once."""
    tx.execute(_SQL["wake"], {"channel": CHANNEL})
