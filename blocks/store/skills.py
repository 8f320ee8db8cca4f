"""Count how often annotators agree with the results, for the weights of jobs without gold."""

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("skills")


def compare_some(tx: Transaction, *, limit: int) -> int:
    """Compare the labels of tasks that up to `limit` requests have settled; return how many those were.

    Each task is compared once, with the result that it has then.
    """
    row = tx.execute(_SQL["compare"], {"limit": limit}).fetchone()
    assert row is not None  # an aggregate
    requests: int = row["requests"]
    return requests
