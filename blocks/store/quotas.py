"""Quotas: how much of the service one customer may take up at once.

They are checked in the transaction that adds, after it has added. That does not see what other
transactions add at the same moment, so a customer may exceed a quota by as much as is added side by
side: at most one request for each of the API's connections. Tasks and bytes are counted every
`_RECOUNT_S` seconds only, so additions of other processes and runs are seen that much later. A quota
that an operator has set for the customer comes before the one of the settings.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from threading import Lock
from time import monotonic
from typing import NamedTuple

from blocks.domain.errors import RefineryError
from blocks.store import customer_limits
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("quotas")


class Quota(StrEnum):
    """The amounts that are limited."""

    JOBS = "jobs"
    OPEN_TASKS = "open_tasks"
    WEBHOOKS = "webhooks"
    KEYS = "keys"
    STORED_BYTES = "stored_bytes"


_MESSAGES = {
    Quota.JOBS: "At most {:,} of your jobs may be under way at once; try again when one has ended.",
    Quota.OPEN_TASKS: "At most {:,} of your tasks may wait for labels at once; try again later.",
    Quota.WEBHOOKS: "You may have at most {:,} webhooks; delete one first.",
    Quota.KEYS: "At most {:,} keys of one owner may be good or made within a day; revoke one, or wait.",
    Quota.STORED_BYTES: "Your manifests and tasks may come to {:,} bytes; ask the operator for more.",
}
_RETRY_AFTER_S = {
    Quota.JOBS: 60,
    Quota.OPEN_TASKS: 60,
    Quota.WEBHOOKS: 3600,
    Quota.KEYS: 3600,
    Quota.STORED_BYTES: 3600,
}


# The other quotas are counted by an index, and no further than the quota.
_COUNTED_NOW_AND_THEN = {Quota.OPEN_TASKS, Quota.STORED_BYTES}
_RECOUNT_S = 10.0
_REFUSED_S = 1.0
_COUNTS_MAX = 10_000
_LIMITS_S = 1.0


class QuotaExceeded(RefineryError):
    """A customer has as much as their quota allows."""

    def __init__(self, quota: Quota, most: int) -> None:
        super().__init__(_MESSAGES[quota].format(most))
        self.quota_code = f"{quota}_quota_exceeded"
        self.retry_after_s = _RETRY_AFTER_S[quota]


class Quotas:
    """Compare what customers have with their quotas.

    Counting their tasks and bytes takes longer with each job, so a count is used for `_RECOUNT_S`
    seconds, with what this process has added since; a count that refuses, for `_REFUSED_S`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counted: dict[tuple[str, Quota], _Count] = {}
        self._limits: dict[str, _Own] = {}
        self._lock = Lock()

    def check(
        self,
        tx: Transaction,
        customer_id: str,
        quota: Quota,
        most: int,
        *,
        added: int = 0,
        to_come: int = 0,
    ) -> None:
        """Compare the present amount, and `to_come` more, with `most`; 0 is no quota.

        Where the customer has a quota of their own, that counts in place of `most`.
        `added` is how much of it this transaction has added.

        Raises:
            QuotaExceeded: it is more.
        """
        most = self._own(tx, customer_id).get(quota, most)
        if not most:
            return
        amount = self._known(customer_id, quota, added, most - to_come)
        if amount is None:
            amount = _count(tx, customer_id, quota, most)
            self._keep(customer_id, quota, amount - added if amount + to_come > most else amount)
        if amount + to_come > most:
            raise QuotaExceeded(quota, most)

    def _own(self, tx: Transaction, customer_id: str) -> Mapping[str, int]:
        """Return the customer's own limits, as they were a second ago at the longest."""
        with self._lock:
            kept = self._limits.get(customer_id)
        if kept is None or self._clock() - kept.at_s >= _LIMITS_S:
            kept = _Own(customer_limits.get(tx, customer_id), self._clock())
            with self._lock:
                if len(self._limits) >= _COUNTS_MAX:
                    self._limits.clear()
                self._limits[customer_id] = kept
        return kept.limits

    def _known(self, customer_id: str, quota: Quota, added: int, most: int) -> int | None:
        """Return the amount by an earlier count, now with `added`; None if that is too old."""
        with self._lock:
            counted = self._counted.get((customer_id, quota))
            if counted is None or quota not in _COUNTED_NOW_AND_THEN:
                return None
            amount, age_s = counted.amount + added, self._clock() - counted.at_s
            if age_s >= (_REFUSED_S if amount > most else _RECOUNT_S):
                return None
            if amount <= most:
                self._counted[customer_id, quota] = _Count(amount, counted.at_s)
            return amount

    def _keep(self, customer_id: str, quota: Quota, amount: int) -> None:
        with self._lock:
            if len(self._counted) >= _COUNTS_MAX:
                self._counted.clear()
            self._counted[customer_id, quota] = _Count(amount, self._clock())


class _Own(NamedTuple):
    limits: Mapping[str, int]
    at_s: float


class _Count(NamedTuple):
    amount: int
    at_s: float


def _count(tx: Transaction, customer_id: str, quota: Quota, most: int) -> int:
    values = {"customer_id": customer_id, "most": most}
    row = tx.execute(_SQL[quota], values).fetchone()
    assert row is not None  # a sum
    amount: int = row["amount"]
    return amount
