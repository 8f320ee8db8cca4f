"""Hold tasks back for reviewers that would else have ended. The rules are in `sql/review_queue.sql`."""

from collections.abc import Sequence
from typing import Any

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("review_queue")


def hold_back(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Queue those of some tasks for reviewers that their jobs want reviewed.

    Set `settled` in each row: whether the task has settled all the same. `rows` have the `job_no` and
    `task_no` of tasks that this transaction has just ended; it holds their votes and chunks.
    """
    if not rows:
        return
    values = {
        "job_nos": [row["job_no"] for row in rows],
        "task_nos": [row["task_no"] for row in rows],
    }
    found = tx.execute(_SQL["hold_back"], values).fetchall()
    settled = {(each["job_no"], each["task_no"]): each["settled"] for each in found}
    for row in rows:
        row["settled"] = settled[row["job_no"], row["task_no"]]


def take_back(tx: Transaction, annotator_no: int) -> int:
    """Take back the reviews that the annotator holds and may not decide any more; return how many."""
    return tx.execute(_SQL["take_back"], {"annotator_no": annotator_no}).rowcount
