"""Quotas: how much of the service one customer may take up at once.

They are looked at in the transaction that adds, after it has added. What other transactions add at the
same moment is not seen, so a customer may get over a quota by as much as is added side by side: at most
one request for each of the API's connections.
"""

from enum import StrEnum

from blocks.errors import RefineryError
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("quotas")


class Quota(StrEnum):
    """What is counted."""

    JOBS = "jobs"
    OPEN_TASKS = "open_tasks"
    WEBHOOKS = "webhooks"
    STORED_BYTES = "stored_bytes"


_MESSAGES = {
    Quota.JOBS: "At most {:,} of your jobs may be under way at once; try again when one has ended.",
    Quota.OPEN_TASKS: "At most {:,} of your tasks may wait for labels at once; try again later.",
    Quota.WEBHOOKS: "You may have at most {:,} webhooks; delete one first.",
    Quota.STORED_BYTES: "Your manifests and tasks may come to {:,} bytes; ask the operator for more.",
}
_RETRY_AFTER_S = {
    Quota.JOBS: 60,
    Quota.OPEN_TASKS: 60,
    Quota.WEBHOOKS: 3600,
    Quota.STORED_BYTES: 3600,
}


class QuotaExceeded(RefineryError):
    """A customer has as much as they may have."""

    def __init__(self, quota: Quota, most: int) -> None:
        super().__init__(_MESSAGES[quota].format(most))
        self.quota_code = f"{quota}_quota_exceeded"
        self.retry_after_s = _RETRY_AFTER_S[quota]


def check(tx: Transaction, customer_id: str, quota: Quota, most: int, *, to_come: int = 0) -> None:
    """Compare what there is, and `to_come` more, with `most`, where 0 is no quota.

    Raises:
        QuotaExceeded: it is more.
    """
    if not most:
        return
    values = {"customer_id": customer_id, "most": most}
    row = tx.execute(_SQL[quota], values).fetchone()
    assert row is not None  # a sum
    if row["amount"] + to_come > most:
        raise QuotaExceeded(quota, most)
