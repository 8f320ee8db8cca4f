"""Messages to Prefect that follow from commits in the database."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("outbox")

CHANNEL = "outbox"


class Entry(msgspec.Struct, frozen=True):
    """A message to Prefect: `kind` is cancel_job, or job_event, whose name is `event`.

    `tries` counts the times that Prefect could not be told.
    """

    outbox_no: int
    kind: str
    event: str | None
    tries: int
    created_at: datetime
    job_id: str
    customer_id: str


def claim(tx: Transaction, *, limit: int) -> Sequence[Entry]:
    """Return up to `limit` entries that are due, held until the transaction ends."""
    rows = tx.execute(_SQL["claim"], {"limit": limit}).fetchall()
    return [msgspec.convert(row, Entry) for row in rows]


def mark_done(tx: Transaction, outbox_no: int) -> None:
    """Delete an entry that Prefect was told."""
    tx.execute(_SQL["mark_done"], {"outbox_no": outbox_no})


def postpone(tx: Transaction, outbox_no: int, *, error: str, delay_s: float) -> None:
    """Make an entry due again in `delay_s` seconds; `error` is why it could not be said."""
    tx.execute(_SQL["postpone"], {"outbox_no": outbox_no, "error": error, "delay_s": delay_s})


def wake(tx: Transaction) -> None:
    """Have everybody who listens look at once."""
    tx.execute(_SQL["wake"], {"channel": CHANNEL})
