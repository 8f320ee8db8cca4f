"""Take tasks back from annotators who hold them, and hold off their claims meanwhile.

Apart from claims, so that commands of the operator need not load what reads pages.
"""

from blocks.store import review_queue
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("annotation")

CLAIM_LOCK = 731
"""The first of the two numbers of an advisory lock; the second is the annotator's."""
_FOR_EVER_S = 1e9


def return_leases(tx: Transaction, *, limit: int) -> int:
    """Take back up to `limit` leases that have run out; return how many.

    Claims take back those that ran out just now; this is for times when nobody claims.
    """
    values = {"leases_max": limit, "overdue_s_max": _FOR_EVER_S}
    return len(tx.execute(_SQL["return_leases"], values).fetchall())


def take_leases_back(tx: Transaction, annotator_no: int) -> int:
    """Take back the tasks that the annotator holds and may not label any more; return how many.

    Without a key that is good those are all of their tasks, and else the tasks of customers that they
    are not for. Other annotators can be handed them at once.
    """
    await_claims(tx, annotator_no)
    reviews = review_queue.take_back(tx, annotator_no)
    row = tx.execute(_SQL["take_leases_back"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # a sum
    tasks: int = row["tasks"]
    return reviews + tasks


def await_claims(tx: Transaction, annotator_no: int) -> None:
    """Wait for the annotator's claims that are under way, and hold off others until the commit."""
    tx.execute(_SQL["lock_claims"], {"annotator_no": annotator_no, "lock": CLAIM_LOCK})
