"""Read the results and votes of ended tasks as columns, thousands at a time.

The server sends them as arrays, whose binary form has elements of one size; a row for each task would
take the driver half a second a million.
"""

import struct
import sys
from array import array

import polars as pl
import pyarrow as pa

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("ballots")

_TIME = pl.Datetime("us", "UTC")
BALLOT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "outcome": pl.UInt16,
    "votes": pl.Binary,
    "labelled_at": _TIME,
}
"""A row is a task that has ended: `outcome` is the option that won, 1-based, or 0; `unpack_votes` reads
`votes`."""

_ARRAY_HEAD_BYTES, _DIMENSION_BYTES, _LENGTH_BYTES, _SMALLINT_BYTES = 12, 8, 4, 2
# PostgreSQL counts time from 2000 on.
_EPOCH_US = 946_684_800_000_000


def read_ended(tx: Transaction, job_no: int, from_task: int, until_task: int) -> pl.DataFrame:
    """Return `BALLOT_COLUMNS` of the ended tasks from `from_task` to before `until_task`."""
    values = {"job_no": job_no, "from_task": from_task, "until_task": until_task}
    answer = tx.execute(_SQL["read_ended"], values, binary=True).pgresult
    assert answer is not None  # a statement with rows
    task_nos, outcomes, votes, labelled_at = (answer.get_value(0, n) for n in range(4))
    if task_nos is None or outcomes is None or votes is None or labelled_at is None:
        return pl.DataFrame(schema=BALLOT_COLUMNS)
    outcome = _numbers(outcomes, "H")[2::3]  # of each element two words are its length
    return pl.DataFrame(
        {
            "task_no": _bigints(task_nos),
            "outcome": _series(pa.uint16(), len(outcome), outcome),
            "votes": _votes(votes, len(outcome)),
            "labelled_at": (_bigints(labelled_at) + _EPOCH_US).cast(_TIME),
        }
    )


def unpack_votes(packed: bytes) -> tuple[int, ...]:
    """Return the number of votes for each option."""
    size = _LENGTH_BYTES + _SMALLINT_BYTES
    return struct.unpack(">" + "ih" * (len(packed) // size), packed)[1::2]


def _votes(packed: bytes, tasks: int) -> pl.Series:
    rows = packed[_ARRAY_HEAD_BYTES + 2 * _DIMENSION_BYTES :]
    return _series(pa.binary(len(rows) // tasks), tasks, rows)


def _bigints(packed: bytes) -> pl.Series:
    words = _numbers(packed, "I")  # of each element: its length, the high half, the low half
    halves = (_series(pa.uint32(), len(words) // 3, words[n::3]).cast(pl.Int64) for n in (1, 2))
    high, low = halves
    return high * 2**32 + low


def _numbers(packed: bytes, code: str) -> "array[int]":
    numbers = array(code)
    numbers.frombytes(packed[_ARRAY_HEAD_BYTES + _DIMENSION_BYTES :])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _series(kind: pa.DataType, size: int, values: "bytes | array[int]") -> pl.Series:
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(kind, size, [None, pa.py_buffer(values)])))
