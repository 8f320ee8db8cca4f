"""Make up crowds of any size: annotators of mixed skill, and their labels for tasks."""

from dataclasses import dataclass

import polars as pl

from blocks.inference.patterns import LABEL_COLUMNS

_LEAST, _MOST = 0.6, 0.98
_HASH_END = 2.0**64


@dataclass(frozen=True)
class Crowd:
    """Labels, `patterns.LABEL_COLUMNS`, of tasks from 0 and annotators from 1 on; `truth` by task."""

    labels: pl.DataFrame
    truth: pl.Series

    def right(self, options: pl.Series) -> float:
        """Return the share of the tasks whose option is the true one."""
        return float((options == self.truth).mean() or 0.0)  # type: ignore[arg-type]


def make_crowd(*, tasks: int, annotators: int, options: int, each: int) -> Crowd:
    """Return a crowd whose tasks have `each` labels by others, drawn anew for each task.

    Annotators are right in 60 to 98 % of their labels. Half of the wrong labels are the next option. The
    same numbers give the same crowd.
    """
    frame = pl.select(task_no=pl.int_range(tasks, dtype=pl.Int64)).with_columns(
        truth=_below(options, 0)
    )
    drawn: list[str] = []
    for n in range(
        each
    ):  # without replacement: step over those that were drawn, the smallest first
        place = _below(annotators - n, n + 1)
        for before in drawn and _ascending(len(drawn)):
            place = place + (place >= before).cast(pl.Int64)
        name = f"annotator {n}"
        frame = frame.with_columns(place.alias(name))
        drawn.append(name)
        frame = frame.with_columns(
            pl.concat_list(drawn).list.sort().list.get(k).alias(f"sorted {k}")
            for k in range(len(drawn))
        )
    labels = (
        frame.select("task_no", "truth", *drawn)
        .unpivot(on=drawn, index=["task_no", "truth"], value_name="annotator")
        .drop("variable")
        .sort("task_no")
        .with_row_index("row")
    )
    skill = _LEAST + (_MOST - _LEAST) * pl.col("annotator") / max(annotators - 1, 1)
    near = pl.col("truth") + 1
    far = pl.col("truth") + 1 + _below(options - 1, 91, "row")
    wrong = pl.when(_uniform(92, "row") < 0.5).then(near).otherwise(far) % options
    said = pl.when(_uniform(93, "row") < skill).then("truth").otherwise(wrong)
    columns = labels.select("task_no", annotator_no=pl.col("annotator") + 1, option=said + 1)
    return Crowd(columns.cast(LABEL_COLUMNS), frame["truth"] + 1)


def _ascending(count: int) -> list[pl.Expr]:
    return [pl.col(f"sorted {n}") for n in range(count)]


def _uniform(seed: int, column: str = "task_no") -> pl.Expr:
    """Return numbers from 0 to less than 1 that look random."""
    return pl.col(column).hash(seed).cast(pl.Float64) / _HASH_END


def _below(count: int, seed: int, column: str = "task_no") -> pl.Expr:
    return (_uniform(seed, column) * count).floor().cast(pl.Int64).clip(0, count - 1)
