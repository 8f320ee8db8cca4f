"""What operators measure the service by: sums of what has happened, and queues of what waits."""

from collections.abc import Mapping, Sequence

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("counts")

# Of a longer queue nobody needs to know how long it is, and to count it takes time.
_COUNTED_MAX = 100_000
_ENDPOINTS_MAX = 1000


class Queue(msgspec.Struct, frozen=True):
    """How many wait, counted up to 100,000, and for how long the first of them; 0 where none does."""

    name: str
    depth: int
    oldest_s: float | None


def read_totals(tx: Transaction) -> Mapping[tuple[str, str], float]:
    """The sum of each series, by its name and label; `counts` in the schema says which there are."""
    rows = tx.execute(_SQL["read_totals"]).fetchall()
    return {(row["name"], row["label"]): row["total"] for row in rows}


def read_queues(tx: Transaction) -> Sequence[Queue]:
    """`outbox`, `runs_waiting`, `runs_under_way` and `webhooks`."""
    bounds = {"counted_max": _COUNTED_MAX, "endpoints_max": _ENDPOINTS_MAX}
    rows = tx.execute(_SQL["read_queues"], bounds).fetchall()
    return [msgspec.convert(row, Queue) for row in rows]


def fold(tx: Transaction, *, limit: int) -> int:
    """Add up to `limit` rows up; how many there are less."""
    row = tx.execute(_SQL["fold"], {"limit": limit}).fetchone()
    assert row is not None  # a select of numbers returns one row
    return int(row["folded"])
