"""Read all labels of a job's ended tasks as columns, wherever they are."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import polars as pl

from blocks.domain.errors import Terminal
from blocks.store import archive, arrays, quality
from blocks.store.database import Transaction
from blocks.store.deleted_jobs import check_kept
from blocks.store.queries import Statement, load

_SQL = load("label_columns")

_ROWS_A_STEP = 262_144
_BEFORE_ALL = {"task_no": -1, "annotator_no": -1}
_COLUMNS = pl.Schema(
    {"task_no": pl.Int64, "annotator_no": pl.UInt32, "option": pl.UInt8, "outcome": pl.UInt8}
)
_READERS: dict[str, Callable[[bytes], pl.Series]] = {
    "task_no": arrays.bigints,
    "annotator_no": arrays.integers,
    "option": arrays.smallints,
    "outcome": arrays.smallints,
}


class TooManyLabels(Terminal):
    """A job has more labels than are read at once."""

    code = "too_many_labels"


class EndedLabels(msgspec.Struct, frozen=True):
    """The labels of a job's ended tasks, and the ids of the annotators by their numbers.

    Tasks that failed by skips are left out: their annotators say that no option is right.

    The columns are `task_no` (Int64), `annotator_no` (UInt32), `option` (UInt8, 1-based), and `outcome`
    (UInt8): the option on which the task settled, 0 if it failed.
    """

    labels: pl.DataFrame
    annotator_ids: Mapping[int, str]


def read_ended(tx: Transaction, job_no: int, *, labels_max: int) -> EndedLabels:
    """Return the labels of the ended tasks of a job, archived or not, as of one moment.

    This has to be in a transaction by itself, or after `quality.measure`. A million labels take 14 MB,
    and some more while they are read.

    Raises:
        TooManyLabels: there are more than `labels_max`; those of open tasks count as well.
        ArchiveCorrupt: a page of archived labels is.
        JobDeleted: the job is not there any more.
    """
    quality.begin_snapshot(tx)
    check_kept(tx, job_no)
    tx.execute(_SQL["by_key"])
    frames, rows = [pl.DataFrame(schema=_COLUMNS)], 0
    for frame in _read_parts(tx, job_no):
        rows += len(frame)
        if rows > labels_max:
            raise TooManyLabels(f"There are more than {labels_max:,} labels.")
        frames.append(frame.filter(pl.col("outcome") >= 0).cast(_COLUMNS))
    labels = pl.concat(frames)
    return EndedLabels(labels, quality.find_annotator_ids(tx, labels["annotator_no"].unique()))


def _read_parts(tx: Transaction, job_no: int) -> Iterator[pl.DataFrame]:
    """Yield labels with the outcomes of their tasks, null for an open one: first those of the tables."""
    outcomes = pl.concat(_read(tx, _SQL["outcomes"], job_no, ("task_no", "outcome")))
    for labels in _read(tx, _SQL["labels"], job_no, ("task_no", "annotator_no", "option")):
        yield labels.join(outcomes, on="task_no", how="left", maintain_order="left")
    for labels in archive.read_all(tx, job_no):
        yield labels.filter(pl.col("option") > 0).select(*_COLUMNS)


def _read(
    tx: Transaction, statement: Statement, job_no: int, names: tuple[str, ...]
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a statement that returns arrays, step by step; one frame at least."""
    place: dict[str, Any] = dict(_BEFORE_ALL)
    while True:
        values = {"job_no": job_no, "limit": _ROWS_A_STEP, **place}
        answer = tx.execute(statement, values, binary=True).pgresult
        assert answer is not None  # a statement with rows
        packed = [answer.get_value(0, n) for n in range(len(names))]
        frame = pl.DataFrame(
            {
                name: (_READERS[name](each) if each else pl.Series()).cast(_COLUMNS[name])
                for name, each in zip(names, packed, strict=True)
            }
        )
        yield frame
        if len(frame) < _ROWS_A_STEP:
            return
        place |= frame.row(-1, named=True)
