"""Limits of single customers, which operators set at run time in place of those of the settings."""

from collections.abc import Mapping
from typing import Any

import msgspec

from blocks.store import outbox
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("customers")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's own limits; null: that of the settings, 0: none."""

    runs: int | None = None
    """How many runs of Prefect they may have under way at once, from 1 on."""
    jobs: int | None = None
    """How many jobs may be under way at once."""
    open_tasks: int | None = None
    """How many tasks may wait for labels at once."""
    stored_bytes: int | None = None
    """What their manifests and tasks may come to, in bytes."""
    webhooks: int | None = None
    """How many endpoints they may register."""
    keys: int | None = None
    """How many keys may be good, or made within a day."""
    requests_per_minute: int | None = None
    """How many requests they may make, at each API process."""
    body_bytes_per_minute: int | None = None
    """How many bytes of bodies they may send, to each API process."""


def get(tx: Transaction, customer_id: str) -> Mapping[str, int]:
    """Return a customer's own limits, those alone that are set."""
    row = tx.execute(_SQL["get_limits"], {"customer_id": customer_id}).fetchone()
    found: Mapping[str, int] = row["limits"] if row else {}
    return found


def change(
    tx: Transaction, customer_id: str, changes: Mapping[str, int | None]
) -> dict[str, int | None]:
    """Set some limits of a customer, with None those of the settings; return those that are new.

    Launchers go by them at once, and API processes within seconds.
    """
    row = tx.execute(_SQL["lock_limits"], {"customer_id": customer_id}).fetchone()
    before: Mapping[str, int] = row["limits"] if row else {}
    new = {name: value for name, value in changes.items() if before.get(name) != value}
    if row and new:
        after = {k: v for k, v in {**before, **new}.items() if v is not None}
        values: dict[str, Any] = {
            "customer_id": customer_id,
            "limits": msgspec.json.encode(after).decode(),
        }
        tx.execute(_SQL["set_limits"], values)
        outbox.wake(tx)
    return new
