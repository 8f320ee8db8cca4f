"""Leases of annotators: find those of one claim by its key, list, count and renew them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from blocks.domain.errors import IdempotencyConflict
from blocks.domain.ids import parse_task_id, task_id
from blocks.store.annotation import ClaimedTask, ClaimKey, describe_claimed
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("leases")


class HeldPage(NamedTuple):
    """Some of the tasks that an annotator holds; `last` is the id to go on after, None at the end."""

    tasks: list[ClaimedTask]
    last: str | None


class Held(msgspec.Struct, frozen=True):
    """How many tasks an annotator holds, and when the first of them runs out; None without any."""

    tasks: int
    expires_at: datetime | None


def find_claimed(tx: Transaction, annotator_no: int, key: ClaimKey) -> list[ClaimedTask]:
    """Return the tasks that the annotator still holds by the claim of that key.

    Raises:
        IdempotencyConflict: the claim of that key asked for something else.
    """
    values = {"annotator_no": annotator_no, "claim_key": key.key}
    rows = tx.execute(_SQL["find_claimed"], values).fetchall()
    if any(row["claim_digest"] != key.digest for row in rows):
        raise key_conflict()
    return describe_claimed(tx, [(row["job_no"], row) for row in rows])


def key_conflict() -> IdempotencyConflict:
    """Return the error for a key that was used for another claim."""
    return IdempotencyConflict("This Idempotency-Key was used for another claim.")


def list_page(
    tx: Transaction, annotator_no: int, *, limit: int, after: str | None
) -> HeldPage | None:
    """Return up to `limit` of the tasks that the annotator holds, from after the task `after` on.

    Those on corrupt pages are left out, so a page may be short. Return None if `after` is no task's id.
    """
    job_no, task_no = 0, 0
    if after is not None:
        key = parse_task_id(after)
        row = tx.execute(_SQL["find_job_no"], {"job_id": key[0]}).fetchone() if key else None
        if key is None or row is None:
            return None
        job_no, task_no = row["job_no"], key[1]
    values = {
        "annotator_no": annotator_no,
        "after_job_no": job_no,
        "after_task_no": task_no,
        "limit": limit + 1,
    }
    rows = tx.execute(_SQL["list_page"], values).fetchall()
    page = rows[:limit]
    last = task_id(page[-1]["job_id"], page[-1]["task_no"]) if len(rows) > limit else None
    return HeldPage(describe_claimed(tx, [(row["job_no"], row) for row in page]), last)


def count_held(tx: Transaction, annotator_no: int) -> Held:
    """Count the tasks that the annotator holds, of jobs that still want labels."""
    row = tx.execute(_SQL["count_held"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # a count
    return msgspec.convert(row, Held)


def renew(
    tx: Transaction, annotator_no: int, task_ids: Sequence[str], *, lease_s: int
) -> Mapping[str, datetime]:
    """Hold the claims that these tasks are of for `lease_s` seconds from now on, if that is longer.

    Return the new ends by the ids of those tasks that the annotator holds. What has run out is not
    held any more, even if nobody else was handed it.
    """
    keys = [key for key in map(parse_task_id, task_ids) if key]
    values = {
        "annotator_no": annotator_no,
        "job_ids": [job_id for job_id, _ in keys],
        "task_nos": [task_no for _, task_no in keys],
        "lease_s": lease_s,
    }
    rows = tx.execute(_SQL["renew"], values).fetchall()
    return {task_id(row["job_id"], row["task_no"]): row["renewed_until"] for row in rows}
