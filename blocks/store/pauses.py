"""Pauses by operators, of one job or of all that a customer has and posts later.

Nothing new is begun for a job that is paused: no run, and no task is handed out. What annotators hold
may be labelled, a chunk that is being read and a delivery that has begun go on to their end, and no
deadline passes.
"""

from datetime import datetime

import msgspec

from blocks.store import outbox
from blocks.store.customer_limits import Limits
from blocks.store.database import Transaction, allow_time
from blocks.store.queries import load

_SQL = load("pauses")

# A number that nothing else locks.
_TURN_LOCK = 7_310_563_214
_RESUME_S_MAX = 60  # there may be a hundred thousand reviews to prolong


class CustomerState(msgspec.Struct, frozen=True, kw_only=True):
    """What operators have set for a customer."""

    customer_id: str
    """The customer."""
    name: str
    """Their name."""
    paused_at: datetime | None
    """Since when all that they have and post is paused; null if it is not."""
    limits: Limits
    """Limits of their own."""


def find_customer(tx: Transaction, customer_id: str) -> CustomerState | None:
    """Return what operators have set for a customer; None if there is none of that id."""
    row = tx.execute(_SQL["find_customer"], {"customer_id": customer_id}).fetchone()
    return msgspec.convert(row, CustomerState) if row else None


def pause_job(tx: Transaction, job_no: int) -> bool:
    """Pause a job; return False if it is paused already by itself, or has no work left."""
    return tx.execute(_SQL["pause_job"], {"job_no": job_no}).fetchone() is not None


def resume_job(tx: Transaction, job_no: int) -> bool:
    """End the pause of a job; return False if it is not paused by itself.

    Its work has all its time to wait for a store again, and its reviews get the time that they have
    lost. If its customer is paused, it goes on when they are resumed.
    """
    values = {"job_no": job_no}
    _begin_resuming(tx)
    tx.execute(_SQL["prolong_reviews"], values | {"is_customers": False})
    if tx.execute(_SQL["resume_job"], values).fetchone() is None:
        return False
    tx.execute(_SQL["begin_job_anew"], values)
    outbox.wake(tx)
    return True


def pause_customer(tx: Transaction, customer_id: str) -> bool:
    """Pause all that a customer has and posts later; return False if they are paused already."""
    return tx.execute(_SQL["pause_customer"], {"customer_id": customer_id}).fetchone() is not None


def resume_customer(tx: Transaction, customer_id: str) -> bool:
    """End the pause of a customer, as that of a job; return False if they are not paused.

    Jobs of theirs that are paused by themselves stay so.
    """
    values = {"customer_id": customer_id}
    _begin_resuming(tx)
    for row in tx.execute(_SQL["list_reviewed"], values).fetchall():
        tx.execute(_SQL["prolong_reviews"], row | {"is_customers": True})
    if tx.execute(_SQL["resume_customer"], values).fetchone() is None:
        return False
    tx.execute(_SQL["begin_customer_anew"], values)
    outbox.wake(tx)
    return True


def _begin_resuming(tx: Transaction) -> None:
    tx.execute(_SQL["begin_turn"], {"lock": _TURN_LOCK})
    allow_time(tx, _RESUME_S_MAX)
