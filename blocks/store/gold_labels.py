"""Read the labels of a job's gold tasks, and estimate by them how often its results are right."""

from collections import defaultdict
from typing import Self

import msgspec
import polars as pl

from blocks.domain.gold import GoldEstimate, Majority, Rule, SkilledLabel, Weighted, estimate
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("gold_labels")


class JobRule(msgspec.Struct, frozen=True):
    """How the tasks of a job settle; confidences are in ten-thousandths."""

    options: int
    """How many there are."""
    consensus_threshold: int
    stop_early: bool
    target_confidence: int | None
    labels_max: int | None

    @property
    def is_weighted(self) -> bool:
        """True if labels are weighed."""
        return self.target_confidence is not None

    def of_gold(self) -> Rule:
        """Return the rule by which gold tasks are judged."""
        if self.target_confidence is None or self.labels_max is None:
            return Majority(threshold=self.consensus_threshold, stop_early=self.stop_early)
        return Weighted(
            target=self.target_confidence,
            labels_min=self.consensus_threshold,
            labels_max=self.labels_max,
        )


class GoldLabels:
    """The true options of a job's gold tasks, and their labels in the order in which they came."""

    def __init__(self, options: dict[int, int]) -> None:
        self._options = options
        self._task_nos = pl.Series(list(options), dtype=pl.Int64).implode()
        self._labels: dict[int, list[SkilledLabel]] = defaultdict(list)

    @classmethod
    def read(cls, tx: Transaction, job_no: int) -> Self:
        """Return them without those that are archived, which `take` adds."""
        values = {"job_no": job_no}
        rows = tx.execute(_SQL["options"], values).fetchall()
        found = cls({row["task_no"]: row["option"] for row in rows})
        if rows:
            for row in tx.execute(_SQL["labels"], values):
                found._labels[row["task_no"]].append(SkilledLabel(row["option"], row["skill"]))
        return found

    def take(self, archived: pl.DataFrame) -> pl.DataFrame:
        """Add the labels of gold among archived ones, which come in their order; return the others."""
        if not self._options:
            return archived
        is_gold = pl.col("task_no").is_in(self._task_nos)
        columns = ("task_no", "option", pl.col("skill").fill_null(0))
        for task_no, option, skill in archived.filter(is_gold).select(columns).iter_rows():
            self._labels[task_no].append(SkilledLabel(option, skill))
        return archived.filter(~is_gold)

    def estimate(self, rule: JobRule) -> GoldEstimate | None:
        """Return how often results are right; None if there is no gold."""
        if not self._options:
            return None
        gold = ((self._options[task_no], labels) for task_no, labels in self._labels.items())
        return estimate(rule.of_gold(), rule.options, gold)
