"""Read the measures of the service: sums of events, and lengths of queues."""

from collections.abc import Mapping, Sequence

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("counts")

# Nobody needs the exact length of a longer queue, and counting it takes time.
_COUNTED_MAX = 100_000
_ENDPOINTS_MAX = 1000


class Queue(msgspec.Struct, frozen=True):
    """How many entries wait, counted up to 100,000, and for how many seconds the first has."""

    name: str
    """`outbox`, `runs_waiting`, `runs_under_way` or `webhooks`."""
    depth: int
    """How many entries wait."""
    oldest_s: float | None
    """For how many seconds the first of them has waited; null where there is none."""


def read_totals(tx: Transaction) -> Mapping[tuple[str, str], float]:
    """Return the sum of each series by its name and label; the table `counts` lists them."""
    rows = tx.execute(_SQL["read_totals"]).fetchall()
    return {(row["name"], row["label"]): row["total"] for row in rows}


def read_queues(tx: Transaction) -> Sequence[Queue]:
    """Return the queues `outbox`, `runs_waiting`, `runs_under_way` and `webhooks`."""
    bounds = {"counted_max": _COUNTED_MAX, "endpoints_max": _ENDPOINTS_MAX}
    rows = tx.execute(_SQL["read_queues"], bounds).fetchall()
    return [msgspec.convert(row, Queue) for row in rows]


def fold(tx: Transaction, *, limit: int) -> int:
    """Fold up to `limit` rows into one per series; return by how many rows the table shrank."""
    row = tx.execute(_SQL["fold"], {"limit": limit}).fetchone()
    assert row is not None  # a select of numbers returns one row
    return int(row["folded"])
