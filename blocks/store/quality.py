"""Measure how well annotators agree on the tasks of a job."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import polars as pl

from blocks.store import archive
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("quality")


class Outcomes(msgspec.Struct, frozen=True):
    """How many `tasks` ended alike: settled or not, after `labels` labels, of which `agreed` agreed.

    `settled` is None for open tasks that have labels.
    """

    settled: bool | None
    labels: int
    agreed: int
    tasks: int


class OptionCount(msgspec.Struct, frozen=True):
    """Labels for an option, 1-based, and tasks that settled on it; `open`: labels on open tasks."""

    option: int
    labels: int
    tasks: int
    open: int


class AnnotatorCount(msgspec.Struct, frozen=True):
    """Labels of an annotator on settled tasks, and those that agree with the consensus.

    `open` counts their labels on open tasks.
    """

    annotator_id: str
    labels: int
    agreed: int
    open: int


class Quality(msgspec.Struct, frozen=True):
    """Counts over the tasks of a job that have labels; options without a label are left out."""

    outcomes: Sequence[Outcomes]
    options: Sequence[OptionCount]
    annotators: Sequence[AnnotatorCount]


def measure(tx: Transaction, job_no: int) -> Quality:
    """Count over all labels of the job, archived or not; a million tasks take a second or two.

    This has to come first in its transaction, so that all counts are of one moment.
    """
    begin_snapshot(tx)
    tx.execute(_SQL["without_nested_loops"])
    outcomes, options, annotators = (
        tx.execute(_SQL[query], {"job_no": job_no}).fetchall()
        for query in ("outcomes", "options", "annotators")
    )
    for archived in archive.read_all(tx, job_no):
        outcomes += _count_outcomes(archived)
        labels = archived.filter(_IS_LABEL)
        options += _count_options(labels)
        annotators += _count_annotators(labels)
    ids = find_annotator_ids(tx, [row["annotator_no"] for row in annotators])
    named = [{"annotator_id": ids[row.pop("annotator_no")]} | row for row in annotators]
    return Quality(
        [Outcomes(**row) for row in _sum(outcomes, "settled", "labels", "agreed")],
        [OptionCount(**row) for row in _sum(options, "option") if row["labels"] or row["open"]],
        [AnnotatorCount(**row) for row in _sum(named, "annotator_id")],
    )


def begin_snapshot(tx: Transaction) -> None:
    """Have all statements of a transaction see one moment; this comes first, and may come again."""
    tx.execute(_SQL["one_snapshot"])


def find_annotator_ids(tx: Transaction, annotator_nos: Iterable[int]) -> dict[int, str]:
    """Return the ids of annotators by their numbers."""
    rows = tx.execute(_SQL["annotator_ids"], {"nos": list(annotator_nos)})
    return {row["annotator_no"]: row["annotator_id"] for row in rows}


_IS_SETTLED = pl.col("outcome") > 0
_AGREES = pl.col("option") == pl.col("outcome")
_IS_OPEN = pl.col("outcome").is_null()
_IS_LABEL = pl.col("option") > 0


def _count_outcomes(labels: pl.DataFrame) -> list[dict[str, Any]]:
    tasks = labels.group_by("task_no").agg(
        settled=_IS_SETTLED.first(), labels=_IS_LABEL.sum(), agreed=_AGREES.sum()
    )
    return tasks.group_by("settled", "labels", "agreed").agg(tasks=pl.len()).to_dicts()


def _count_options(labels: pl.DataFrame) -> list[dict[str, Any]]:
    won = pl.col("task_no").filter(_AGREES).n_unique()
    counts = labels.group_by("option").agg(labels=(~_IS_OPEN).sum(), tasks=won, open=_IS_OPEN.sum())
    return counts.to_dicts()


def _count_annotators(labels: pl.DataFrame) -> list[dict[str, Any]]:
    counted = labels.filter(_IS_SETTLED | _IS_OPEN).group_by("annotator_no")
    return counted.agg(
        labels=_IS_SETTLED.sum(), agreed=_AGREES.sum(), open=_IS_OPEN.sum()
    ).to_dicts()


def _sum(rows: Iterable[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Add up rows that have equal values of `keys`, and return them in the order of those."""
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        key = tuple(row[name] for name in keys)
        sums[key].update({name: n for name, n in row.items() if name not in keys})
    # As PostgreSQL orders them: false, true, null.
    ordered = sorted(sums, key=lambda key: [(value is None, value) for value in key])
    return [dict(zip(keys, key, strict=True)) | sums[key] for key in ordered]
