"""Lists for operators, page by page: what customers have under way, streams, work for Prefect."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

import msgspec

from blocks.domain.model import JobStatus
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("operations")

COUNTED_MAX = 1_000
MANIFESTS_MAX = 200
_LOOKED_MAX = 5_000


class WorkStatus(StrEnum):
    """The states of work for Prefect."""

    WAITING = "waiting"
    UNDER_WAY = "under_way"
    PAUSED = "paused"
    FAILING = "failing"
    STOPPED = "stopped"


class CustomerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer has under way. Nothing is counted further than up to 1,000."""

    customer_id: str
    """The customer."""
    name: str
    """Their name."""
    paused_at: datetime | None
    """Since when an operator has paused all that they have and post; null if they are not paused."""
    jobs: dict[str, int]
    """Their jobs by status."""
    runs_under_way: int
    """How many pieces of work a run of Prefect has in hand."""
    runs_waiting: int
    """How many wait for a run."""
    oldest_s: float | None
    """For how many seconds the first of those has waited; null where none does."""
    open_tasks: int
    """Tasks that have not ended, over up to 1,000 chunks of their oldest jobs under way."""


class StreamLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of recurring ETL, by its latest 200 manifests."""

    customer_id: str
    """Whose stream it is."""
    stream: str
    """Its name."""
    started_at: datetime
    """When it began."""
    latest_at: datetime | None
    """When it has found a manifest last; null if it has found none."""
    open: int
    """Manifests whose jobs are under way."""
    failed: int
    """Manifests without a result: the job failed, or its delivery was refused."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Work of a job for Prefect."""

    status: WorkStatus
    """`waiting` for its turn, `under_way` in a run, `paused` or `stopped` by an operator, or `failing`
    and to be tried again."""
    kind: str
    """`process_job` or `deliver_job`."""
    job_id: str
    """The job."""
    customer_id: str
    """Whose job it is."""
    waiting_since: datetime
    """Since when it waits, or waited for the run that it has."""
    launched_at: datetime | None
    """Since when a run has it in hand; null where it waits for one."""
    flow_run_id: UUID | None
    """The latest run in Prefect; null before the first one."""
    launches: int
    """How many runs were asked for."""
    tries: int
    """How many tries in a row have failed."""
    reason: str | None
    """Why the last one did."""


class WorkFound(NamedTuple):
    """A page of work, and the number after which the next one begins; None on the last."""

    work: list[Work]
    cursor: int | None


def list_customers(tx: Transaction, *, after: str, limit: int) -> list[CustomerLoad]:
    """Return up to `limit` customers whose ids come after `after`, in order."""
    values = {
        "after": after,
        "limit": limit,
        "statuses": [each.value for each in JobStatus],
        "counted_max": COUNTED_MAX,
    }
    return msgspec.convert(
        tx.execute(_SQL["list_customers"], values).fetchall(), list[CustomerLoad]
    )


def list_streams(
    tx: Transaction, customer_id: str | None, *, after: tuple[str, str], limit: int
) -> list[StreamLoad]:
    """Return up to `limit` streams of all customers, or of one, after that of a customer and a name."""
    values = {
        "customer_id": customer_id,
        "after_customer": after[0],
        "after_stream": after[1],
        "limit": limit,
        "counted_max": MANIFESTS_MAX,
    }
    return msgspec.convert(tx.execute(_SQL["list_streams"], values).fetchall(), list[StreamLoad])


def list_work(
    tx: Transaction,
    customer_id: str | None,
    status: WorkStatus | None,
    *,
    after: int,
    limit: int,
) -> WorkFound:
    """Return up to `limit` pieces of work after the number `after`, of one status or any, in order.

    A page looks at 5,000, and may have fewer than `limit`, or none, though more are left.
    """
    values = {
        "customer_id": customer_id,
        "status": status,
        "after": after,
        "limit": limit + 1,
        "looked_max": _LOOKED_MAX,
    }
    rows = tx.execute(_SQL["list_work"], values).fetchall()
    found = [row for row in rows if row["run_no"] is not None]
    work = [msgspec.convert(row, Work) for row in found[:limit]]
    if len(found) > limit:
        return WorkFound(work, found[limit - 1]["run_no"])
    return WorkFound(work, rows[0]["last_no"] if rows[0]["looked"] == _LOOKED_MAX else None)
