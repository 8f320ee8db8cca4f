"""Read columns that the server sends as arrays, whose binary form has elements of one size.

A row for each element would take the driver half a second a million.
"""

import sys
from array import array

import polars as pl
import pyarrow as pa

_HEAD_BYTES, _DIMENSION_BYTES, _LENGTH_BYTES, _SMALLINT_BYTES = 12, 8, 4, 2
# PostgreSQL counts time from 2000 on.
_EPOCH_US = 946_684_800_000_000
TIME = pl.Datetime("us", "UTC")


def smallints(packed: bytes) -> pl.Series:
    """Return the elements of a `smallint[]` without nulls."""
    return _series(pa.uint16(), _numbers(packed, "H")[2::3])  # two words of each are its length


def integers(packed: bytes) -> pl.Series:
    """Return the elements of an `integer[]` without nulls."""
    return _series(pa.uint32(), _numbers(packed, "I")[1::2])


def bigints(packed: bytes) -> pl.Series:
    """Return the elements of a `bigint[]` without nulls."""
    words = _numbers(packed, "I")  # of each: its length, the high half, the low half
    high, low = (_series(pa.uint32(), words[n::3]).cast(pl.Int64) for n in (1, 2))
    return high * 2**32 + low


def times(packed: bytes) -> pl.Series:
    """Return the elements of a `timestamptz[]` without nulls."""
    return (bigints(packed) + _EPOCH_US).cast(TIME)


def rows_of_smallints(packed: bytes, rows: int) -> pl.Series:
    """Return the rows of a `smallint[][]` without nulls, each as bytes: `pack_smallints` of it."""
    raw = packed[_HEAD_BYTES + 2 * _DIMENSION_BYTES :]
    kind = pa.binary(len(raw) // rows)
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(raw)])))


def _numbers(packed: bytes, code: str) -> "array[int]":
    numbers = array(code)
    numbers.frombytes(packed[_HEAD_BYTES + _DIMENSION_BYTES :])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _series(kind: pa.DataType, values: "array[int]") -> pl.Series:
    buffers = [None, pa.py_buffer(values)]
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(kind, len(values), buffers)))
