"""What operators look at: who has how much of Prefect, and what waits for whom."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("operations")

_COUNTED_MAX = 100_000
_ENDPOINTS_MAX = 1_000
_LISTED_MAX = 50


class CustomerShare(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one customer for Prefect."""

    customer_id: str
    """The customer."""
    name: str
    """Their name."""
    under_way: int
    """How many jobs a run of Prefect has in hand."""
    waiting: int
    """How many wait for their turn."""
    oldest_s: float | None
    """For how many seconds the first of those has waited; null where none does."""


class WorkInHand(msgspec.Struct, frozen=True, kw_only=True):
    """Work for Prefect that is under way, or in trouble."""

    kind: str
    """`process_job` or `deliver_job`."""
    job_id: str
    """The job."""
    customer_id: str
    """Whose job it is."""
    launched_at: datetime | None
    """Since when a run has it in hand; null where it waits for one."""
    flow_run_id: UUID | None
    """The run in Prefect; null before the first one."""
    launches: int
    """How many runs were asked for."""
    tries: int
    """How many tries in a row have failed."""
    reason: str | None
    """Why the last one did."""


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A message that Prefect was not told yet."""

    kind: str
    """`cancel_job` or `job_event`."""
    event: str | None
    """Which event; null for the others."""
    job_id: str
    """The job that it is about."""
    created_at: datetime
    """Since when it waits."""
    tries: int
    """How often that failed."""
    last_error: str | None
    """Why it failed."""


class FailingEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's endpoint that does not take its messages."""

    webhook_id: str
    """The endpoint."""
    customer_id: str
    """Whose it is."""
    callback_url: str
    """Where messages go."""
    failures: int
    """How many attempts in a row have failed."""
    resumes_at: datetime
    """When it is tried again."""


def list_shares(tx: Transaction) -> list[CustomerShare]:
    """Return the shares of up to 50 customers, by the first 100,000 rows, those who wait first."""
    return _list(tx, "shares", CustomerShare)


def list_runs(tx: Transaction) -> list[WorkInHand]:
    """Return up to 50 pieces of work that Prefect has in hand or that are in trouble, oldest first."""
    return _list(tx, "list_runs", WorkInHand)


def list_outbox(tx: Transaction) -> list[OutboxEntry]:
    """Return the 50 messages to Prefect that have waited longest."""
    return _list(tx, "list_outbox", OutboxEntry)


def list_failing_endpoints(tx: Transaction) -> list[FailingEndpoint]:
    """Return up to 50 endpoints with messages that they have not taken, the worst first."""
    return _list(tx, "list_failing_endpoints", FailingEndpoint)


def _list(tx: Transaction, query: str, row_type: type[Any]) -> list[Any]:
    bounds = {
        "counted_max": _COUNTED_MAX,
        "endpoints_max": _ENDPOINTS_MAX,
        "limit": _LISTED_MAX,
    }
    return [msgspec.convert(row, row_type) for row in tx.execute(_SQL[query], bounds)]
