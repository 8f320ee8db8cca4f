"""Delete jobs that have ended: their row at once, and the other rows in steps of bounded size.

With its row in `jobs` a job is gone from every list, count, claim and export, since all of those begin
there. `deleted_jobs` has what is still to be removed, until nothing is.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from blocks.domain.errors import RefineryError
from blocks.store import audit
from blocks.store.audit import Actor
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("deleted_jobs")

TABLES = {
    "notifications": "notification_no",
    "exclusions": "annotator_no",
    "reviews": "task_no",
    "open_chunks": "chunk_no",
    "lanes": "chunk_no",
    "vacancies": "vacancy_no",
    "chunks": "chunk_no",
    "pages": "first_task",
    "bad_lines": "byte_offset",
    "gold_tasks": "task_no",
    "gold_shown": "task_no",
    "labels": "task_no",
    "tallies": "task_no",
    "archived_labels": "first_task",
    "skips": "task_no",
    "label_changes": "task_no",
    "labels_set_aside": "task_no",
    "job_annotators": "annotator_no",
    "label_batches": "created_at",
    "label_times": "annotator_no",
    "delivered_objects": "object_no",
}
"""Tables that are emptied of a job, in this order: each has an index on job_no and the column."""

_ROWS_MAX = 10_000
_LARGE_ROWS_MAX = 500  # of a page each, or a message
_LARGE = {"notifications", "pages", "archived_labels", "bad_lines"}
_WAITING_MAX = 100
_FIRST_KEY = -1


class OldJobs(msgspec.Struct, frozen=True):
    """Jobs, lines of theirs and the bytes of their manifests."""

    jobs: int
    lines: int
    bytes: int


class JobDeleted(RefineryError):
    """The job was deleted while it was read: what was read is not all."""

    code = "job_deleted"


def delete(tx: Transaction, job_nos: Sequence[int]) -> int:
    """Delete those of some jobs that have ended and have no delivery under way; return how many."""
    taken = tx.execute(_SQL["take"], {"job_nos": list(job_nos)}).fetchall()
    values = {"job_nos": [row["job_no"] for row in taken]}
    if taken:
        for query in (
            "remember", "forget_manifests", "delete_keys", "delete_outbox", "delete_runs",
            "delete_jobs",
        ):  # fmt: skip
            tx.execute(_SQL[query], values)
    return len(taken)


def delete_old(
    tx: Transaction, actor: Actor, *, days: int, customer_id: str | None, limit: int
) -> int:
    """Delete up to `limit` jobs that ended so many days ago, the oldest first; return how many.

    Jobs that others hold are passed over. The audit log has a line for each.
    """
    values = {"days": days, "customer_id": customer_id, "limit": limit}
    job_nos = [row["job_no"] for row in tx.execute(_SQL["take_old"], values)]
    audit.record_deletions(tx, actor, job_nos, older_than_days=days)
    return delete(tx, job_nos)


def measure_old(tx: Transaction, *, days: int, customer_id: str | None) -> OldJobs:
    """Count the jobs that ended so many days ago."""
    row = tx.execute(_SQL["measure_old"], {"days": days, "customer_id": customer_id}).fetchone()
    return msgspec.convert(row, OldJobs)


def count_left(tx: Transaction) -> int:
    """Return how many deleted jobs still have rows."""
    row = tx.execute(_SQL["count_left"]).fetchone()
    assert row is not None  # an aggregate
    left: int = row["jobs"]
    return left


def check_kept(tx: Transaction, job_no: int) -> None:
    """Check that a job was not deleted before this statement, so that all its rows were there before.

    Raises:
        JobDeleted: it was.
    """
    row = tx.execute(_SQL["is_kept"], {"job_no": job_no}).fetchone()
    if row is None or not row["is_kept"]:
        raise JobDeleted("The job was deleted.")


def await_writers(tx: Transaction) -> None:
    """Note who may still write rows of deleted jobs; jobs without such are removed from then on."""
    tx.execute(_SQL["await_writers"], {"tables": list(TABLES), "limit": _WAITING_MAX})


def remove_some(tx: Transaction) -> int:
    """Remove rows of one deleted job, up to 10,000; return 0 if there is nothing to remove now.

    A job is done when a look through all tables has found nothing.
    """
    job = tx.execute(_SQL["next"]).fetchone()
    if job is None:
        return 0
    names = list(TABLES)
    while job["table_no"] < len(names):
        if deleted := _delete_some(tx, job, names[job["table_no"]]):
            tx.execute(_SQL["record"], job | {"has_found": True})
            return deleted
        job |= {"table_no": job["table_no"] + 1, "key_from": _FIRST_KEY}
    if job["has_found"]:
        again = {"table_no": 0, "key_from": _FIRST_KEY, "has_found": False}
        tx.execute(_SQL["record"], job | again)
    else:
        _finish(tx, job)
    return 1


def _delete_some(tx: Transaction, job: dict[str, Any], table: str) -> int:
    """Delete rows from a table; `key_from` moves on to the last of them."""
    values = job | {
        "table": table,
        "key_column": TABLES[table],
        "rows_max": _LARGE_ROWS_MAX if table in _LARGE else _ROWS_MAX,
    }
    query = "delete_batches" if table == "label_batches" else "delete_some"
    found = tx.execute(_SQL[query], values).fetchone()
    assert found is not None  # an aggregate
    job["key_from"] = found.get("key_last") or job["key_from"]
    deleted: int = found["deleted"]
    return deleted


def _finish(tx: Transaction, job: dict[str, Any]) -> None:
    """Forget the job, and remove the endpoint and the text that no other has."""
    # Each is locked first: what others have committed until then is seen by the next statement.
    if tx.execute(_SQL["lock_webhook"], job).fetchone():
        tx.execute(_SQL["delete_webhook"], job)
    text = {"digest": job["instructions_digest"]}
    if tx.execute(_SQL["lock_text"], text).fetchone():
        tx.execute(_SQL["delete_text"], text)
    tx.execute(_SQL["forget"], job)
