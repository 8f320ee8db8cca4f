"""When housekeeping and reconcile were done last, whichever process did it."""

from collections.abc import Mapping
from typing import Literal

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("passes")

Pass = Literal["housekeeping", "reconcile"]


def record(tx: Transaction, name: Pass) -> None:
    """Record that a pass has ended now; wait for nobody who records the same."""
    tx.execute(_SQL["record"], {"name": name})


def read(tx: Transaction) -> Mapping[str, float]:
    """Return by name when each pass has ended last, in seconds of Unix time."""
    return {row["name"]: row["ended_at"] for row in tx.execute(_SQL["read"])}
