"""Find the tasks that have the same labels by the same annotators: they have the same posterior."""

from dataclasses import dataclass
from functools import cached_property

import polars as pl
import pyarrow as pa

from blocks.inference.index_lists import IndexLists
from blocks.lines import columns

LABEL_COLUMNS = pl.Schema({"task_no": pl.Int64, "annotator_no": pl.UInt32, "option": pl.UInt8})
"""A row is a label; `option` is 1-based. An annotator has one label for a task."""

_PLACE_BYTES = 4


@dataclass(frozen=True)
class Patterns:
    """The distinct patterns of labels, and the tasks that have each.

    An *answer* is an annotator with an option: the place of the annotator in `annotators` times the
    number of options, plus the place of the option in `options`. A pattern is the answers that a task
    has got.
    """

    annotators: pl.Series
    """Their numbers, ascending."""
    options: pl.Series
    """Those that have a label, 1-based and ascending."""
    answers: pl.Series
    """The answers of each pattern, one pattern after the other; UInt32."""
    sizes: pl.Series
    """How many answers each pattern has."""
    tasks: pl.Series
    """How many tasks have each pattern."""
    task_nos: pl.Series
    """The numbers of all tasks, ascending."""
    pattern_of: pl.Series
    """The place of each task's pattern; UInt32."""

    @cached_property
    def weights(self) -> pl.Series:
        """How many tasks of each pattern compare annotators: none of a single answer; Float64."""
        return self.tasks.cast(pl.Float64) * (self.sizes > 1).cast(pl.Float64)

    @cached_property
    def compared(self) -> int:
        """How many labels the tasks have that compare annotators."""
        return int((self.weights * self.sizes).sum())

    @cached_property
    def answers_of_patterns(self) -> IndexLists:
        """For each pattern its answers, as places in a column that has a value for each answer."""
        return IndexLists(self.answers, self.sizes)

    @cached_property
    def patterns_of_answers(self) -> IndexLists:
        """For each answer the patterns that have it, as places in a column of patterns."""
        pattern = pl.int_range(len(self.sizes), dtype=pl.UInt32, eager=True)
        rows = pl.DataFrame({"answer": self.answers, "pattern": _repeat(pattern, self.sizes)}).sort(
            "answer", maintain_order=True
        )
        counted = rows.group_by("answer").len()
        answers = pl.DataFrame({"answer": self.all_answers})
        sizes = answers.join(counted, on="answer", how="left", maintain_order="left")["len"]
        return IndexLists(rows["pattern"], sizes.fill_null(0))

    @cached_property
    def all_answers(self) -> pl.Series:
        """Every answer that there may be; UInt32."""
        count = len(self.annotators) * len(self.options)
        return pl.int_range(count, dtype=pl.UInt32, eager=True)

    @cached_property
    def annotator_of(self) -> pl.Series:
        """The place of each answer's annotator."""
        return self.all_answers // len(self.options)

    def has_option(self, place: int) -> pl.Series:
        """Return 1.0 for each answer with the option at that place, 0.0 for others."""
        return (self.all_answers % len(self.options) == place).cast(pl.Float64)


def find_patterns(labels: pl.DataFrame) -> Patterns:
    """Return the patterns of labels: `LABEL_COLUMNS`, in any order, and at least one."""
    annotators = labels["annotator_no"].unique().sort()
    options = labels["option"].unique().sort()
    answer = (
        annotators.search_sorted(labels["annotator_no"]) * len(options)
        + options.search_sorted(labels["option"])
    ).cast(pl.UInt32)
    answers = labels.select("task_no", answer=answer).sort("task_no", "answer")
    runs = answers["task_no"].rle().struct.unnest()
    # The answers of a task, in order, are bytes that stand for its pattern.
    written = columns.of_parts(
        pa.large_binary(), runs["len"] * _PLACE_BYTES, columns.values_of(answers["answer"])
    )
    kinds = (
        pl.DataFrame({"written": written})
        .with_row_index()
        .select("index", first=pl.first("index").over("written"), tasks=pl.len().over("written"))
    )
    is_first = kinds["index"] == kinds["first"]
    place = (is_first.cum_sum() - 1).cast(pl.UInt32)
    return Patterns(
        annotators=annotators,
        options=options,
        answers=answers["answer"].filter(_repeat(is_first, runs["len"])),
        sizes=runs["len"].filter(is_first),
        tasks=kinds["tasks"].filter(is_first),
        task_nos=runs["value"],
        pattern_of=place.gather(kinds["first"]),
    )


def _repeat(column: pl.Series, times: pl.Series) -> pl.Series:
    """Return each value as many times as `times` says, 1 or more."""
    return column.repeat_by(times).explode()
