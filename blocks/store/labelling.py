"""Take labels. The rules are in `sql/annotation.sql`."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from blocks.domain.model import LabelOutcome
from blocks.store import (
    archive,
    arrays,
    jobs,
    label_batches,
    review_queue,
    task_numbers,
    webhook_messages,
)
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("annotation")


class Label(msgspec.Struct, frozen=True):
    """One annotator's answer for a task: one of its job's options."""

    task_id: str
    label: str


class _Entry(NamedTuple):
    """The `n`th label of a batch, whose task's id is one of ours."""

    n: int
    job_id: str
    task_no: int
    label: str


def submit(
    tx: Transaction,
    annotator_no: int,
    labels: Sequence[Label],
    *,
    jobs_done: Collection[int] = (),
) -> list[LabelOutcome]:
    """Record labels; return what became of each, in their order.

    A job whose last task has settled goes on to its delivery or its end; so do `jobs_done`, of which
    the transaction has ended a chunk's last task before.
    """
    entries = _read_entries(tx, labels)
    rows = tx.execute(_SQL["submit_labels"], _columns(entries, annotator_no)).fetchall()
    accepted = _sort_accepted(entries, [row for row in rows if row["label"] is not None])
    review_queue.hold_back(tx, [row for row in accepted.values() if row["settled"] is None])
    label_batches.record(tx, annotator_no, list(accepted.values()))
    graded = {row["job_no"] for row in accepted.values() if row["may_bar"]}
    if graded:
        values = {"annotator_no": annotator_no, "job_nos": sorted(graded)}
        tx.execute(_SQL["bar_inaccurate"], values)
    _hand_back(tx, annotator_no, [row for row in rows if row["label"] is None])
    outcomes = {
        n: LabelOutcome.SETTLED if row["settled"] else LabelOutcome.ACCEPTED
        for n, row in accepted.items()
    }
    outcomes |= _explain(tx, annotator_no, [each for each in entries if each.n not in outcomes])
    webhook_messages.announce_tasks(
        tx,
        [
            (row["job_no"], row["job_id"], row["task_no"])
            for row in accepted.values()
            if _is_announced(row)
        ],
    )
    jobs.settle(
        tx, {row["job_no"] for row in accepted.values() if row["chunk_done"]} | {*jobs_done}
    )
    return [outcomes.get(n, LabelOutcome.UNKNOWN_TASK) for n in range(len(labels))]


def explain_refused(
    tx: Transaction, annotator_no: int, labels: Sequence[Label]
) -> list[LabelOutcome]:
    """Return why labels do not count, in their order."""
    outcomes = _explain(tx, annotator_no, _read_entries(tx, labels))
    return [outcomes.get(n, LabelOutcome.UNKNOWN_TASK) for n in range(len(labels))]


def _explain(
    tx: Transaction, annotator_no: int, refused: Sequence[_Entry]
) -> dict[int, LabelOutcome]:
    """Return why labels were not taken, by their numbers."""
    if not refused:
        return {}
    rows = tx.execute(_SQL["explain_refused"], _columns(refused, annotator_no)).fetchall()
    outcomes = {row["n"]: LabelOutcome(row["outcome"]) for row in rows}
    ended = {
        row["n"]: (row["job_no"], row["task_no"])
        for row in rows
        if row["may_be_archived"] and row["outcome"] == LabelOutcome.ALREADY_SETTLED
    }
    archived = archive.find_options(tx, annotator_no, ended.values())
    return outcomes | {n: LabelOutcome.DUPLICATE for n, key in ended.items() if key in archived}


def _hand_back(tx: Transaction, annotator_no: int, rows: Sequence[dict[str, Any]]) -> None:
    """Leave tasks vacant that were let go of by labels that did not count, if they still need one."""
    if rows:
        values = {
            "annotator_no": annotator_no,
            "job_nos": [row["job_no"] for row in rows],
            "task_nos": [row["task_no"] for row in rows],
        }
        tx.execute(_SQL["hand_back"], values)


def _read_entries(tx: Transaction, labels: Sequence[Label]) -> list[_Entry]:
    numbers = task_numbers.find(tx, (label.task_id for label in labels))
    return [
        _Entry(n, *numbers[label.task_id], label.label)
        for n, label in enumerate(labels)
        if label.task_id in numbers
    ]


def _sort_accepted(
    entries: Sequence[_Entry], rows: Sequence[dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return rows by the numbers of their entries, in that order; of equal ones the first was accepted.

    The order of the rows is that of the manifest, which would tell which tasks are gold.
    """
    first_of: dict[tuple[str, int, str], int] = {}
    for entry in entries:
        first_of.setdefault((entry.job_id, entry.task_no, entry.label), entry.n)
    numbered = {first_of[row["job_id"], row["task_no"], row["label"]]: row for row in rows}
    return dict(sorted(numbered.items()))


def _is_announced(row: dict[str, Any]) -> bool:
    return bool(row["settled"] and row["announces"])


def list_options(tx: Transaction, job_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the options of jobs by their ids."""
    rows = tx.execute(_SQL["list_options"], {"job_ids": list(job_ids)}).fetchall()
    return {row["job_id"]: row["options"] for row in rows}


def _columns(entries: Sequence[_Entry], annotator_no: int) -> dict[str, Any]:
    """Return labels as arrays; ids of jobs and texts that they share stand once."""
    ns, job_ids, task_nos, labels = zip(*entries, strict=True) if entries else ((),) * 4
    job_nths = {job_id: nth for nth, job_id in enumerate(dict.fromkeys(job_ids), start=1)}
    label_nths = {label: nth for nth, label in enumerate(dict.fromkeys(labels), start=1)}
    return {
        "annotator_no": annotator_no,
        "job_ids": list(job_nths),
        "labels": list(label_nths),
        "ns": arrays.as_text(ns),
        "job_nths": arrays.as_text(job_nths[job_id] for job_id in job_ids),
        "task_nos": arrays.as_text(task_nos),
        "label_nths": arrays.as_text(label_nths[label] for label in labels),
    }
