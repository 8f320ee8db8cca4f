"""The layout of the labels of one page of tasks, once their job is over: columns, compressed together.

    number of labels n (4 bytes), then columns of n values each:
    the task's place on its page, 0-based   1 byte each
    the task's outcome: 0 no consensus, 1-based option, 254 to 252 for -1 to -3 (failed by skips),
        255 for an open task                1 byte each
    the option, 1-based; 0: no label        1 byte each
    the annotator's number                  4 bytes each
    their skill; 65,535 where labels are not weighed
                                            2 bytes each
    the time, in µs since 1970-01-01 UTC    8 bytes each

The labels of a task stand together, in the order in which they were counted. Behind those of a task that
failed by skips, or was under review, stands a row for its end, with option 0 and annotator 0. Numbers
are little-endian. All of it is packed (`blocks/lines/packing.py`).
"""

import struct
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from blocks.domain.model import SkipReason
from blocks.lines import columns
from blocks.lines.packing import pack, unpack

OPEN = 255
"""The outcome of a task that was still open when its job ended."""

_NEGATIVE = OPEN - len(SkipReason)  # outcomes from here to OPEN are below 0

LABEL_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "outcome": pl.Int16,
    "option": pl.UInt8,
    "annotator_no": pl.UInt32,
    "skill": pl.UInt16,
    "created_at": columns.TIME,
}
"""A row is a label, or the end of a task that failed by skips or was under review, with `option` 0;
`outcome` is that of the task, null for an open one; `option` is 1-based; `skill` is in ten-thousandths,
null where labels are not weighed."""

_COUNT = struct.Struct("<I")
_STORED = (pa.uint8(), pa.uint8(), pa.uint8(), pa.uint32(), pa.uint16(), pa.int64())
_NO_SKILL = 65_535


def make_archived(labels: pl.DataFrame, first_task: int) -> bytes:
    """Return the labels of one page, which begins with `first_task`, as they are stored."""
    stored = labels.select(
        (pl.col("task_no") - first_task).cast(pl.UInt8),
        pl.when(pl.col("outcome") < 0)
        .then(pl.col("outcome") + OPEN)
        .otherwise(pl.col("outcome"))
        .fill_null(OPEN)
        .cast(pl.UInt8)
        .alias("outcome"),
        pl.col("option").cast(pl.UInt8),
        pl.col("annotator_no").cast(pl.UInt32),
        pl.col("skill").cast(pl.UInt16).fill_null(_NO_SKILL),
        pl.col("created_at").cast(pl.Int64),
    )
    values = (columns.values_of(column) for column in stored)
    return pack(b"".join([_COUNT.pack(len(labels)), *values]))


def read_archived(contents: Sequence[bytes], first_tasks: Sequence[int]) -> pl.DataFrame:
    """Return the labels of some pages, which begin with `first_tasks`, as `LABEL_COLUMNS`.

    Raises:
        CorruptContent: one is not what was stored.
    """
    parts: list[list[memoryview]] = [[] for _ in _STORED]
    counts = []
    for content in contents:
        raw = unpack(content)
        (count,) = _COUNT.unpack_from(raw)
        at = _COUNT.size
        for column, kind in zip(parts, _STORED, strict=True):
            end = at + count * (kind.bit_width // 8)
            column.append(raw[at:end])
            at = end
        counts.append(count)
    place, outcome, option, annotator_no, skill, time = (
        columns.of_values(kind, sum(counts), b"".join(column))
        for kind, column in zip(_STORED, parts, strict=True)
    )
    firsts = (
        pl.Series(first_tasks, dtype=pl.Int64)
        .repeat_by(pl.Series(counts, dtype=pl.UInt32))
        .explode()
    )
    return pl.DataFrame(
        {
            "task_no": firsts.drop_nulls() + place,
            "outcome": outcome,
            "option": option,
            "annotator_no": annotator_no,
            "skill": skill.set(skill == _NO_SKILL, None),
            "created_at": time.cast(columns.TIME),
        }
    ).with_columns(outcome=_outcomes(outcome))


def _outcomes(stored: pl.Series) -> pl.Series:
    """Return outcomes as the tables have them; null for open tasks."""
    numbers = stored.cast(pl.Int16)
    signed = numbers - OPEN * (numbers >= _NEGATIVE).cast(pl.Int16)
    return signed.set(numbers == OPEN, None)
