"""Changes of a job at run time, by operators."""

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("job_changes")


def set_priority(tx: Transaction, job_no: int, priority: int) -> int | None:
    """Change the priority of a job; return the earlier one, None if that is the same or it has ended."""
    values = {"job_no": job_no, "priority": priority}
    row = tx.execute(_SQL["set_priority"], values).fetchone()
    return row["priority"] if row else None
