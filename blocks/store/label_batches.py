"""What each annotator has handed in: counted, and listed as far back as the latest 1,000 requests."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from blocks.domain.ids import task_id
from blocks.store import archive, arrays
from blocks.store.database import Transaction
from blocks.store.pages import Key
from blocks.store.queries import load

_SQL = load("label_batches")

_KEPT = 1_000
_FOLD_SHARE = 1 / 64  # of the requests fold what is older
_FOLDED_MAX = 1_000
_END = 2**62
_CURSOR = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,8})")


class LabelCounts(msgspec.Struct, frozen=True):
    """How many labels of an annotator were taken, and how many tasks these settled; days are of UTC."""

    labels: int
    settled: int
    labels_today: int
    settled_today: int


class OwnLabel(msgspec.Struct, frozen=True):
    """A label of an annotator; `label` is None where it cannot be read any more."""

    task_id: str
    job_id: str
    label: str | None
    created_at: datetime
    cursor: str


def record(tx: Transaction, annotator_no: int, taken: Sequence[Mapping[str, Any]]) -> None:
    """Record labels that were just taken, by the `job_no`, `task_no`, `settled` and `held_s` of each.

    `held_s` is the same for all: the seconds since the first claim of their tasks, None if none was
    held. The statements run with the next one of the transaction, or with its commit.
    """
    if not taken:
        return
    values = {
        "annotator_no": annotator_no,
        "held_s": taken[0]["held_s"],
        "job_nos": arrays.as_text(row["job_no"] for row in taken),
        "task_nos": arrays.as_text(row["task_no"] for row in taken),
        "settled": arrays.as_text(row["settled"] for row in taken),
    }
    tx.execute_later(_SQL["record"], values)
    if random.random() < _FOLD_SHARE:  # noqa: S311 - no secret
        bounds = {"annotator_no": annotator_no, "kept": _KEPT, "limit": _FOLDED_MAX}
        tx.execute_later(_SQL["fold"], bounds)


def count(tx: Transaction, annotator_no: int) -> LabelCounts:
    """Count the labels of an annotator. This reads their latest requests, and a row for each day."""
    row = tx.execute(_SQL["count"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # sums
    return msgspec.convert(row, LabelCounts)


def list_page(
    tx: Transaction, annotator_no: int, *, limit: int, before: str | None
) -> list[OwnLabel] | None:
    """Return up to `limit` labels of the annotator, the latest first, from before the cursor `before`.

    Return None if that is no cursor.
    """
    place = _CURSOR.fullmatch(before) if before is not None else None
    if before is not None and place is None:
        return None
    values = {
        "annotator_no": annotator_no,
        "before_batch": int(place[1]) if place else _END,
        "before_n": int(place[2]) if place else 0,
        "limit": limit,
    }
    rows = tx.execute(_SQL["list_page"], values).fetchall()
    archived = _find_archived(tx, annotator_no, (row for row in rows if row["label"] is None))
    return [
        OwnLabel(
            task_id(row["job_id"], row["task_key"], row["task_no"]),
            row["job_id"],
            row["label"] or archived.get((row["job_no"], row["task_no"])),
            row["created_at"],
            f"{row['batch_no']}-{row['n']}",
        )
        for row in rows
    ]


def _find_archived(
    tx: Transaction, annotator_no: int, rows: Iterable[Mapping[str, Any]]
) -> dict[Key, str]:
    """Return archived labels of the annotator by the numbers of their jobs and tasks."""
    keys = [(row["job_no"], row["task_no"]) for row in rows]
    found = archive.find_options(tx, annotator_no, keys)
    options = {job_no: _list_options(tx, job_no) for job_no in {job_no for job_no, _ in found}}
    return {key: options[key[0]][option - 1] for key, option in found.items() if options[key[0]]}


def _list_options(tx: Transaction, job_no: int) -> list[str]:
    """Return the options of a job; none if it was deleted meanwhile."""
    job = tx.execute(_SQL["list_options"], {"job_no": job_no}).fetchone()
    return job["options"] if job else []
