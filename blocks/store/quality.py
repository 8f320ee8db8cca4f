"""Measure how well annotators agree on the tasks of a job."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from blocks.domain.consensus import confidence
from blocks.domain.gold import GoldEstimate
from blocks.domain.model import SkipReason
from blocks.store import archive, ballots
from blocks.store.database import Transaction
from blocks.store.deleted_jobs import check_kept
from blocks.store.gold_labels import GoldLabels, JobRule
from blocks.store.label_times import Times
from blocks.store.queries import load

_SQL = load("quality")


class Outcomes(msgspec.Struct, frozen=True):
    """How many `tasks` ended alike: with one `outcome`, after `labels` labels, of which `agreed` agreed.

    `outcome` is None for open tasks that have labels, else the option on which they settled, 1-based, or
    0 or less where they failed. A reviewer may settle on an option that no label has. Where labels are
    weighed, settled tasks have the same `confidence`, in ten-thousandths.
    """

    outcome: int | None
    labels: int
    agreed: int
    tasks: int
    confidence: int | None = None

    @property
    def has_ended(self) -> bool:
        """False for tasks that are open or under review."""
        return self.outcome is not None

    @property
    def is_settled(self) -> bool:
        """False for open and for failed tasks."""
        return (self.outcome or 0) > 0


class VoteCount(msgspec.Struct, frozen=True):
    """Labels that chose `option`, 1-based, on tasks of one `outcome`.

    `outcome` is None for open tasks, else the option on which they settled, 1-based, or 0 or less where
    they failed.
    """

    outcome: int | None
    option: int
    labels: int


class KnownSkill(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of an annotator on gold, and those that were right; `earlier`: in other jobs.

    Those are the customer's jobs of the same question that came before. `skill` is in ten-thousandths,
    None where it counts for nothing.
    """

    gold_seen: int
    gold_right: int
    earlier_gold_seen: int
    earlier_gold_right: int
    skill: int | None
    excluded_at: datetime | None


class AnnotatorCount(msgspec.Struct, frozen=True, kw_only=True):
    """What an annotator has done: labels on settled, failed and open tasks, skips and changes.

    `agreed` labels on settled tasks agree with the consensus. `seconds` is the median time of a label,
    within 2.5 %; None where none is known.
    """

    annotator_id: str
    labels: int
    agreed: int
    failed: int
    open: int
    skips: Mapping[SkipReason, int]
    replaced: int
    withdrawn: int
    seconds: float | None
    known: KnownSkill | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the tasks of a job that have labels, but for gold; and what annotators did besides.

    `votes` are those of all annotators. `confusion` has those on settled tasks, by all annotators or by
    the one that was asked for. `seconds` is the median time of a label, as each annotator's is. `gold`
    is None without gold.
    """

    outcomes: Sequence[Outcomes]
    votes: Sequence[VoteCount]
    confusion: Sequence[VoteCount]
    annotators: Sequence[AnnotatorCount]
    seconds: float | None
    gold: GoldEstimate | None


def measure(tx: Transaction, job_no: int, *, confusion_of: str | None = None) -> Quality:
    """Count over all labels of the job, archived or not; a million tasks take a second or two.

    This has to come first in its transaction, so that all counts are of one moment. `confusion_of` is
    the id of the annotator whose confusion is wanted.

    Raises:
        JobDeleted: the job is not there any more.
    """
    begin_snapshot(tx)
    check_kept(tx, job_no)
    tx.execute(_SQL["without_nested_loops"])
    one = None if confusion_of is None else find_annotator(tx, confusion_of)
    values = {"job_no": job_no, "annotator_no": one}
    outcomes, votes, annotators = (
        tx.execute(_SQL[query], values).fetchall() for query in ("outcomes", "votes", "annotators")
    )
    theirs = tx.execute(_SQL["votes_of"], values).fetchall() if one else []
    rule = msgspec.convert(tx.execute(_SQL["rule"], values).fetchone(), JobRule)
    gold = GoldLabels.read(tx, job_no)
    for archived in map(gold.take, archive.read_all(tx, job_no)):
        outcomes += _count_outcomes(archived, rule)
        labels = archived.filter(_IS_LABEL)
        votes += _count_votes(labels)
        annotators += _count_annotators(labels)
        theirs += _count_votes(labels.filter(annotator_no=one)) if one else []
    counted = [VoteCount(**row) for row in _sum(votes, "outcome", "option")]
    confusion = (
        counted
        if confusion_of is None
        else [VoteCount(**row) for row in _sum(theirs, "outcome", "option")]
    )
    times = Times.read(tx, job_no)
    return Quality(
        outcomes=[
            Outcomes(**row) for row in _sum(outcomes, "outcome", "labels", "agreed", "confidence")
        ],
        votes=counted,
        confusion=[each for each in confusion if each.outcome and each.outcome > 0],
        annotators=_list_annotators(tx, job_no, annotators, times),
        seconds=times.median(),
        gold=gold.estimate(rule),
    )


def _read_skills(tx: Transaction, job_no: int) -> dict[int, KnownSkill]:
    """Return what is known of annotators by their numbers."""
    rows = tx.execute(_SQL["skills"], {"job_no": job_no}).fetchall()
    return {row.pop("annotator_no"): KnownSkill(**row) for row in rows}


def _list_annotators(
    tx: Transaction, job_no: int, labelled: Iterable[dict[str, Any]], times: Times
) -> list[AnnotatorCount]:
    """Return what each annotator of the job has done, in the order of their ids."""
    counts = {row.pop("annotator_no"): row for row in _sum(labelled, "annotator_no")}
    skips: dict[int, dict[SkipReason, int]] = defaultdict(dict)
    for row in tx.execute(_SQL["skips"], {"job_no": job_no}):
        skips[row["annotator_no"]][SkipReason.of_number(row["reason"])] = row["tasks"]
    changes = {
        row.pop("annotator_no"): row for row in tx.execute(_SQL["changes"], {"job_no": job_no})
    }
    known = _read_skills(tx, job_no)
    shown = {no for no, each in known.items() if each.gold_seen or each.excluded_at}
    ids = find_annotator_ids(tx, counts.keys() | skips.keys() | changes.keys() | shown)
    return [
        AnnotatorCount(
            annotator_id=annotator_id,
            **counts.get(number) or dict.fromkeys(("labels", "agreed", "failed", "open"), 0),
            skips=skips.get(number, {}),
            **changes.get(number) or dict.fromkeys(("replaced", "withdrawn"), 0),
            seconds=times.median(number),
            known=known.get(number),
        )
        for number, annotator_id in sorted(ids.items(), key=lambda item: item[1])
    ]


def begin_snapshot(tx: Transaction) -> None:
    """Have all statements of a transaction see one moment; this comes first, and may come again."""
    tx.execute(_SQL["one_snapshot"])


def find_annotator_ids(tx: Transaction, annotator_nos: Iterable[int]) -> dict[int, str]:
    """Return the ids of annotators by their numbers."""
    rows = tx.execute(_SQL["annotator_ids"], {"nos": list(annotator_nos)})
    return {row["annotator_no"]: row["annotator_id"] for row in rows}


def find_annotator(tx: Transaction, annotator_id: str) -> int | None:
    """Return the number of the annotator of that id; None if there is none."""
    row = tx.execute(_SQL["find_annotator"], {"annotator_id": annotator_id}).fetchone()
    return None if row is None else int(row["annotator_no"])


_IS_SETTLED = pl.col("outcome") > 0
_AGREES = (pl.col("option") == pl.col("outcome")) & (pl.col("option") > 0)
_IS_OPEN = pl.col("outcome").is_null()
_IS_LABEL = pl.col("option") > 0


def _count_outcomes(labels: pl.DataFrame, rule: JobRule) -> list[dict[str, Any]]:
    tasks = labels.group_by("task_no").agg(
        outcome=pl.col("outcome").first(), labels=_IS_LABEL.sum(), agreed=_AGREES.sum()
    )
    if rule.is_weighted:
        found = ballots.confidences_of(labels.filter(_IS_SETTLED), rule.options)
        likely = pl.when(_IS_SETTLED).then(
            pl.col("confidence").fill_null(confidence([0] * rule.options))
        )
        tasks = tasks.join(found, on="task_no", how="left").with_columns(confidence=likely)
    else:
        tasks = tasks.with_columns(confidence=pl.lit(None, dtype=pl.UInt16))
    alike = tasks.group_by("outcome", "labels", "agreed", "confidence")
    return alike.agg(tasks=pl.len()).to_dicts()


def _count_votes(labels: pl.DataFrame) -> list[dict[str, Any]]:
    return labels.group_by("outcome", "option").agg(labels=pl.len()).to_dicts()


def _count_annotators(labels: pl.DataFrame) -> list[dict[str, Any]]:
    counts = labels.group_by("annotator_no").agg(
        labels=_IS_SETTLED.sum(),
        agreed=_AGREES.sum(),
        failed=(pl.col("outcome") <= 0).sum(),
        open=_IS_OPEN.sum(),
    )
    return counts.to_dicts()


def _sum(rows: Iterable[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Add up rows that have equal values of `keys`, and return them in the order of those."""
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        key = tuple(row[name] for name in keys)
        sums[key].update({name: n for name, n in row.items() if name not in keys})
    # As PostgreSQL orders them: false, true, null.
    ordered = sorted(sums, key=lambda key: [(value is None, value) for value in key])
    return [dict(zip(keys, key, strict=True)) | sums[key] for key in ordered]
