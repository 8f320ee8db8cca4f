"""Skip tasks, and replace and withdraw labels. The rules are in `sql/label_changes.sql`.

A batch with such entries locks what it changes first. Replaced labels are taken back and counted anew by
`labelling.submit`, so the rule of consensus stands there alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from blocks.domain.model import LabelOutcome, SkipReason
from blocks.store import jobs, labelling, lease_returns, review_queue, task_numbers
from blocks.store.database import Rollback, Transaction
from blocks.store.labelling import Label
from blocks.store.queries import load

_SQL = load("label_changes")


class Skip(msgspec.Struct, frozen=True):
    """An annotator will not label a task: others get it."""

    task_id: str
    reason: SkipReason
    note: str | None = None


class Replacement(msgspec.Struct, frozen=True):
    """The label that an annotator gives a task instead of their earlier one, or as their first."""

    task_id: str
    label: str


class Withdrawal(msgspec.Struct, frozen=True):
    """An annotator takes their label back."""

    task_id: str


Entry = Label | Skip | Replacement | Withdrawal


class _Numbered(NamedTuple):
    """The `n`th entry of a batch, whose task's id is one of ours."""

    n: int
    job_id: str
    task_no: int
    entry: Entry


def submit(tx: Transaction, annotator_no: int, entries: Sequence[Entry]) -> list[LabelOutcome]:
    """Record a batch of labels, skips and changes of labels; return what became of each, in their order.

    Of entries for one task the first counts, if one of them is not just a label. This has to come first
    in its transaction, as it takes locks.
    """
    numbers = task_numbers.find(tx, (entry.task_id for entry in entries))
    numbered = [
        _Numbered(n, *numbers[entry.task_id], entry)
        for n, entry in enumerate(entries)
        if entry.task_id in numbers
    ]
    firsts, later = _split_repeated(numbered)
    locked = _lock(tx, annotator_no, firsts)
    outcomes: dict[int, LabelOutcome] | None = None
    while outcomes is None:
        outcomes = _try(tx, annotator_no, [each for each in firsts if each.n in locked])
    outcomes |= _refuse(tx, annotator_no, [each for each in firsts if each.n not in locked])
    unknown = LabelOutcome.UNKNOWN_TASK
    for n, first in later.items():
        outcomes[n] = unknown if outcomes[first] is unknown else LabelOutcome.DUPLICATE
    return [outcomes.get(n, unknown) for n in range(len(entries))]


def _split_repeated(numbered: Sequence[_Numbered]) -> tuple[list[_Numbered], dict[int, int]]:
    """Return the entries that count, and the numbers of others with those of the entries before them.

    Others are for a task that has an earlier entry, where not all entries for it are just labels.
    """
    changed = {each[1:3] for each in numbered if not isinstance(each.entry, Label)}
    first_of: dict[tuple[Any, ...], int] = {}
    counting, later = [], {}
    for each in numbered:
        key = each[1:3]
        first = first_of.setdefault(key, each.n)
        if first != each.n and key in changed:
            later[each.n] = first
        else:
            counting.append(each)
    return counting, later


def _lock(tx: Transaction, annotator_no: int, entries: Sequence[_Numbered]) -> set[int]:
    """Lock what the entries may change; return the numbers of those whose tasks take labels.

    Others may do so a moment later, and do not count then: their votes would be locked after chunks.
    """
    values = _columns(entries, annotator_no)
    # No lease of the annotator comes after those are locked, nor a task that they are just skipping.
    lease_returns.await_claims(tx, annotator_no)
    tx.execute(_SQL["lock_leases"], values)
    locked = tx.execute(_SQL["lock_tallies"], values).fetchall()
    tx.execute(_SQL["lock_chunks"], values)
    return {row["n"] for row in locked}


def _try(
    tx: Transaction, annotator_no: int, entries: Sequence[_Numbered]
) -> dict[int, LabelOutcome] | None:
    """Record the entries, and return their outcomes by their numbers.

    None, and nothing is recorded, if a label was taken back whose replacement was not taken: a job was
    cancelled, or the annotator's grant withdrawn, between the two. The next try finds that.
    """
    with tx.transaction():
        outcomes, jobs_done = _skip(tx, annotator_no, entries)
        changed = _withdraw(tx, annotator_no, entries)
        outcomes |= _count(tx, annotator_no, entries, jobs_done)
        if any(outcomes[n] not in _COUNTED for n, is_replaced in changed.items() if is_replaced):
            raise Rollback
        outcomes |= {n: LabelOutcome.WITHDRAWN for n, replaced in changed.items() if not replaced}
        outcomes |= {
            n: LabelOutcome.REPLACED
            for n, is_replaced in changed.items()
            if is_replaced and outcomes[n] is LabelOutcome.ACCEPTED
        }
        return outcomes | _explain_refused(tx, annotator_no, entries, outcomes)
    return None


_COUNTED = {LabelOutcome.ACCEPTED, LabelOutcome.SETTLED}


def _skip(
    tx: Transaction, annotator_no: int, entries: Sequence[_Numbered]
) -> tuple[dict[int, LabelOutcome], set[int]]:
    """Record skips; return the outcomes of those that count, and jobs of which a chunk has ended."""
    skips = [each for each in entries if isinstance(each.entry, Skip)]
    if not skips:
        return {}, set()
    rows = tx.execute(_SQL["skip"], _columns(skips, annotator_no)).fetchall()
    review_queue.hold_back(tx, [row for row in rows if row["may_be_held_back"]])
    outcomes = {row["n"]: LabelOutcome.SKIPPED for row in rows}
    return outcomes, {row["job_no"] for row in rows if row["chunk_done"]}


def _withdraw(tx: Transaction, annotator_no: int, entries: Sequence[_Numbered]) -> dict[int, bool]:
    """Take labels back; return the numbers of their entries, and whether each is to be replaced."""
    changes = [each for each in entries if isinstance(each.entry, Replacement | Withdrawal)]
    if not changes:
        return {}
    rows = tx.execute(_SQL["withdraw"], _columns(changes, annotator_no)).fetchall()
    return {row["n"]: row["is_replaced"] for row in rows}


def _count(
    tx: Transaction, annotator_no: int, entries: Sequence[_Numbered], jobs_done: set[int]
) -> dict[int, LabelOutcome]:
    """Count the labels and the replacements; return their outcomes."""
    labels = _labels(entries)
    if not labels:
        jobs.settle(tx, jobs_done)
        return {}
    counted = labelling.submit(tx, annotator_no, list(labels.values()), jobs_done=jobs_done)
    return dict(zip(labels, counted, strict=True))


def _labels(entries: Iterable[_Numbered]) -> dict[int, Label]:
    """Return the labels and the replacements by their numbers."""
    return {
        each.n: Label(each.entry.task_id, each.entry.label)
        for each in entries
        if isinstance(each.entry, Label | Replacement)
    }


def _refuse(
    tx: Transaction, annotator_no: int, entries: Sequence[_Numbered]
) -> dict[int, LabelOutcome]:
    """Return the outcomes of entries of which none counts."""
    labels = _labels(entries)
    refused = labelling.explain_refused(tx, annotator_no, list(labels.values()))
    outcomes = dict(zip(labels, refused, strict=True))
    return outcomes | _explain_refused(tx, annotator_no, entries, outcomes)


def _explain_refused(
    tx: Transaction,
    annotator_no: int,
    entries: Iterable[_Numbered],
    outcomes: dict[int, LabelOutcome],
) -> dict[int, LabelOutcome]:
    """Return the outcomes of entries that were not taken, where `labelling.submit` cannot tell them."""
    refused = [
        each
        for each in entries
        if each.n not in outcomes
        or (isinstance(each.entry, Replacement) and outcomes[each.n] is LabelOutcome.DUPLICATE)
    ]
    if not refused:
        return {}
    rows = tx.execute(_SQL["explain_refused"], _columns(refused, annotator_no)).fetchall()
    return {row["n"]: LabelOutcome(row["outcome"]) for row in rows}


def _columns(entries: Sequence[_Numbered], annotator_no: int) -> dict[str, Any]:
    said = [each.entry for each in entries]
    return {
        "annotator_no": annotator_no,
        "ns": [each.n for each in entries],
        "job_ids": [each.job_id for each in entries],
        "task_nos": [each.task_no for each in entries],
        "labels": [each.label if isinstance(each, Label | Replacement) else None for each in said],
        "reasons": [each.reason.number if isinstance(each, Skip) else None for each in said],
        "notes": [each.note if isinstance(each, Skip) else None for each in said],
    }
