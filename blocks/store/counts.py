"""Read the measures of the service: sums of events, and lengths of queues."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("counts")

# Nobody needs the exact length of a longer queue, and counting it takes time.
_COUNTED_MAX = 100_000
_ENDPOINTS_MAX = 1000
STREAMS_MAX = 100
JOBS_MAX = 1000
CHUNKS_MAX = 10_000  # of 25,000 lines or so each; reading their counters takes some 30 ms


class Queue(msgspec.Struct, frozen=True):
    """How many entries wait, counted up to 100,000, and for how many seconds the first has."""

    name: str
    """`outbox`, `runs_waiting`, `runs_under_way` or `webhooks`."""
    depth: int
    """How many entries wait."""
    oldest_s: float | None
    """For how many seconds the first of them has waited; null where there is none."""


class OpenWork(msgspec.Struct, frozen=True):
    """What is still to be done."""

    oldest_s: Mapping[str, float | None]
    """By stage, how many seconds the job that is in it longest has been there; None: there is none.

    `open` jobs have not ended, `unread` ones not been read, `undelivered` ones not been delivered.
    """
    tasks: float
    """Tasks that have not ended, over up to 1,000 jobs and 10,000 chunks of theirs."""


class StreamTotals(msgspec.Struct, frozen=True):
    """A stream, and when it has found a manifest last or began, in seconds of Unix time."""

    customer_id: str
    stream: str
    latest_at: float

    @property
    def label(self) -> str:
        """Return the label of its series in `counts`."""
        return f"{self.customer_id}/{self.stream}"


def read_totals(tx: Transaction) -> Mapping[tuple[str, str], float]:
    """Return the sum of each series by its name and label; the table `counts` lists them."""
    rows = tx.execute(_SQL["read_totals"]).fetchall()
    return {(row["name"], row["label"]): row["total"] for row in rows}


def read_queues(tx: Transaction) -> Sequence[Queue]:
    """Return the queues `outbox`, `runs_waiting`, `runs_under_way` and `webhooks`."""
    bounds = {"counted_max": _COUNTED_MAX, "endpoints_max": _ENDPOINTS_MAX}
    rows = tx.execute(_SQL["read_queues"], bounds).fetchall()
    return [msgspec.convert(row, Queue) for row in rows]


def read_open_work(tx: Transaction) -> OpenWork:
    """Return the age of the oldest job in each stage, and how many tasks have not ended."""
    bounds = {"looked_max": _COUNTED_MAX, "jobs_max": JOBS_MAX, "chunks_max": CHUNKS_MAX}
    ages = {row["stage"]: row["oldest_s"] for row in tx.execute(_SQL["read_oldest_jobs"], bounds)}
    return OpenWork(ages, _one(tx.execute(_SQL["read_open_tasks"], bounds).fetchone())["open"])


def read_database_bytes(tx: Transaction) -> int:
    """Return how many bytes the database takes on the disk of PostgreSQL."""
    return int(_one(tx.execute(_SQL["read_database_bytes"]).fetchone())["bytes"])


def read_streams(tx: Transaction) -> Sequence[StreamTotals]:
    """Return the first 100 streams by customer and name."""
    rows = tx.execute(_SQL["read_streams"], {"streams_max": STREAMS_MAX}).fetchall()
    return [msgspec.convert(row, StreamTotals) for row in rows]


def fold(tx: Transaction, *, limit: int) -> int:
    """Fold up to `limit` rows into one per series; return by how many rows the table shrank."""
    return int(_one(tx.execute(_SQL["fold"], {"limit": limit}).fetchone())["folded"])


def _one(row: Any) -> Mapping[str, Any]:
    assert row is not None  # a select of sums returns one row
    found: Mapping[str, Any] = row
    return found
