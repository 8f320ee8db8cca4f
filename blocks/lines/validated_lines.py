"""Validated manifest lines as columns, a batch at a time."""

from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from blocks.domain.model import BadLine, GoodLine

TASK_COLUMNS = {
    "byte_offset": pl.Int64,
    "line": pl.Int32,
    "data_url": pl.String,
    "metadata": pl.String,
    "text": pl.String,
}
"""A row is a `GoodLine` without its gold: `line` is 1-based in its chunk, `metadata` the verbatim JSON
or null. One of `data_url` and `text` is null."""


class Batch(msgspec.Struct, frozen=True):
    """Some lines of a chunk: `lines` counts blank ones too.

    `tasks` has `TASK_COLUMNS`, sorted by `byte_offset`. `gold` has the right options, 1-based, of tasks
    that say them, by their byte offsets, in order.
    """

    lines: int
    tasks: pl.DataFrame
    bad: Sequence[BadLine]
    blank: int = 0
    gold: Mapping[int, int] = {}


class Counted(msgspec.Struct, frozen=True):
    """Counts of the bytes that were read for one chunk, taken before its lines are judged.

    `bytes` are those of the chunk's range, `lines` the lines that begin in it.
    """

    bytes: int
    lines: int


def task_frame(lines: Sequence[GoodLine]) -> pl.DataFrame:
    """Return good lines as a frame of `TASK_COLUMNS`."""
    rows = [msgspec.structs.astuple(line)[: len(TASK_COLUMNS)] for line in lines]
    return pl.DataFrame(rows, schema=TASK_COLUMNS, orient="row")
