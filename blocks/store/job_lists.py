"""Lists of jobs: page by page, by a text, and of those whose progress somebody watches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from blocks.domain.model import JobStatus
from blocks.store.database import Transaction
from blocks.store.jobs import Job, job_of
from blocks.store.queries import Statement, load

_SQL = load("job_lists")

_AFTER_ALL = 2**63 - 1
_SEARCHED_MAX = 1_000


class Found(NamedTuple):
    """A page of jobs, newest first, and the id after which the next one begins; None on the last."""

    jobs: list[Job]
    cursor: str | None


def list_page(
    tx: Transaction,
    customer_id: str | None,
    *,
    limit: int,
    status: JobStatus | None = None,
    before: str | None = None,
) -> Found | None:
    """Return up to `limit` jobs older than `before`, newest first; None if that is no job of theirs.

    With None for the customer they are everybody's; so in `search`.
    """
    place = _find_place(tx, customer_id, before)
    if place is None:
        return None
    values = {"customer_id": customer_id, "limit": limit + 1, "before": place, "status": status}
    query = "list_jobs_by_status" if status else "list_jobs"
    found = [job_of(row) for row in tx.execute(_of(customer_id, query), values)]
    return Found(found[:limit], found[limit - 1].job_id if len(found) > limit else None)


def search(
    tx: Transaction,
    customer_id: str | None,
    text: str | None,
    *,
    limit: int,
    stream: str | None = None,
    status: JobStatus | None = None,
    before: str | None = None,
) -> Found | None:
    """Find up to `limit` jobs with `text` in their id, question or manifest URL, capital or small.

    With `stream`, of the jobs that streams of this name have made: the latest for each version of a
    manifest.

    Looks at 1,000 jobs older than `before`, so it may find fewer, or none, though more are left. None if
    `before` is no job of theirs.
    """
    place = _find_place(tx, customer_id, before)
    if place is None:
        return None
    values: dict[str, Any] = {
        "customer_id": customer_id,
        "before": place,
        "text": text,
        "stream": stream,
        "status": status,
        "limit": limit + 1,
        "searched_max": _SEARCHED_MAX,
    }
    found = [job_of(row) for row in tx.execute(_of(customer_id, "search"), values)]
    if len(found) > limit:
        return Found(found[:limit], found[limit - 1].job_id)
    last = tx.execute(_of(customer_id, "last_searched"), values).fetchone()
    return Found(found, last["job_id"] if last else None)


def _of(customer_id: str | None, query: str) -> Statement:
    """Return the statement for one customer, or for all; each has an index of its own."""
    return _SQL[query if customer_id else f"{query}_of_all"]


def _find_place(tx: Transaction, customer_id: str | None, before: str | None) -> int | None:
    """Return the number below which a page begins; None if `before` is no job of the customer."""
    if before is None:
        return _AFTER_ALL
    values = {"customer_id": customer_id, "job_id": before}
    row = tx.execute(_SQL["find_cursor"], values).fetchone()
    return row["job_no"] if row else None


def list_followed(
    tx: Transaction, customer_ids: Sequence[str], job_nos: Sequence[int], *, limit: int
) -> list[Job]:
    """Return what moves of these customers' jobs, and the jobs of these numbers, the oldest first.

    Of each customer these are the newest `limit` accepted and the newest `limit` processing jobs, and up
    to `limit` of those that a run of Prefect reads or delivers.
    """
    values = {"customer_ids": list(customer_ids), "job_nos": list(job_nos), "limit": limit}
    return [job_of(row) for row in tx.execute(_SQL["list_followed"], values)]


def list_followed_of_all(tx: Transaction, job_nos: Sequence[int], *, limit: int) -> list[Job]:
    """Return what moves of all customers' jobs, and the jobs of these numbers, the oldest first.

    These are those under way of the newest `limit` jobs, and up to `limit` in hand of a run of Prefect.
    """
    values = {"job_nos": list(job_nos), "limit": limit, "searched_max": limit}
    return [job_of(row) for row in tx.execute(_SQL["list_followed_of_all"], values)]


def list_deleted(tx: Transaction, job_nos: Sequence[int]) -> list[int]:
    """Return those of some numbers of jobs whose jobs are not there any more."""
    rows = tx.execute(_SQL["list_deleted"], {"job_nos": list(job_nos)})
    return [row["job_no"] for row in rows]
