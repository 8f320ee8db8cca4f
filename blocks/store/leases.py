"""Leases of annotators: find those of one claim by its key, list, count and renew them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from blocks.domain.errors import IdempotencyConflict
from blocks.domain.ids import parse_task_id, task_id, task_no_of
from blocks.store import task_numbers
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


class Renewed(msgspec.Struct, frozen=True):
    """A task that is held for longer, until `expires_at`; with `sign_urls` its URL is signed again."""

    job_no: int
    task_no: int
    expires_at: datetime
    sign_urls: bool


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
    place = find_place(tx, annotator_no, after)
    if place is None:
        return None
    values = {
        "annotator_no": annotator_no,
        "after_job_no": place[0],
        "after_place": place[1],
        "limit": limit + 1,
    }
    rows = tx.execute(_SQL["list_page"], values).fetchall()
    page = rows[:limit]
    last = last_id(page) if len(rows) > limit else None
    return HeldPage(describe_claimed(tx, [(row["job_no"], row) for row in page]), last)


def last_id(page: Sequence[Mapping[str, Any]]) -> str:
    """Return the id of the last task of a page of rows."""
    last = page[-1]
    return task_id(last["job_id"], last["task_key"], last["task_no"])


def find_place(tx: Transaction, annotator_no: int, after: str | None) -> tuple[int, int] | None:
    """Return where the task of an id is listed: its job's number, and its place among the job's tasks.

    Return None if `after` is no id of a task that the annotator may be handed.
    """
    if after is None:
        return 0, 0
    key = parse_task_id(after)
    if key is None:
        return None
    values = {"job_id": key[0], "annotator_no": annotator_no}
    row = tx.execute(_SQL["find_job"], values).fetchone()
    if row is None:
        return None
    place = key[1] if row["has_gold"] else task_no_of(row["task_key"], key[1])
    return row["job_no"], place


def count_held(tx: Transaction, annotator_no: int) -> Held:
    """Count the tasks that the annotator holds, of jobs that still want labels."""
    row = tx.execute(_SQL["count_held"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # a count
    return msgspec.convert(row, Held)


def renew(
    tx: Transaction, annotator_no: int, task_ids: Sequence[str], *, lease_s: int
) -> dict[str, Renewed]:
    """Hold the claims that these tasks are of for `lease_s` seconds from now on, if that is longer.

    Return those tasks that the annotator holds, by their ids. What has run out is not held any more,
    even if nobody else was handed it.
    """
    values = {"annotator_no": annotator_no, "lease_s": lease_s}
    return by_task(task_numbers.execute(tx, _SQL["renew"], task_ids, **values))


def by_task(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Renewed]:
    """Return rows of tasks that were renewed, by ids, as such tasks."""
    return {id_: msgspec.convert(row, Renewed) for id_, row in rows.items()}


def describe_to_sign(tx: Transaction, renewed: Iterable[Renewed]) -> list[ClaimedTask]:
    """Return those of `renewed` whose URLs are signed, as annotators are shown them."""
    rows = [
        (each.job_no, {"task_no": each.task_no, "expires_at": each.expires_at})
        for each in renewed
        if each.sign_urls
    ]
    return describe_claimed(tx, rows)
