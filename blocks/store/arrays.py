"""Write arrays, and read columns that the server sends as arrays, whose elements have one size there.

A row for each element would take the driver half a second a million.
"""

import sys
from array import array
from collections.abc import Iterable

import polars as pl
import pyarrow as pa

from blocks.lines import columns

_HEAD_BYTES, _DIMENSION_BYTES = 12, 8
# PostgreSQL counts time from 2000 on.
_EPOCH_US = 946_684_800_000_000


def as_text(values: Iterable[object]) -> str:
    """Return numbers, or booleans, as an array is written; the driver's own way takes 2 µs for each."""
    return f"{{{','.join(map(str, values))}}}"


def smallints(packed: bytes) -> pl.Series:
    """Return the elements of a `smallint[]` without nulls."""
    numbers = _numbers(packed, "h")[2::3]  # two words of each are its length
    return columns.of_values(pa.int16(), len(numbers), numbers)


def integers(packed: bytes) -> pl.Series:
    """Return the elements of an `integer[]` without nulls."""
    return _column(_numbers(packed, "I")[1::2])


def bigints(packed: bytes) -> pl.Series:
    """Return the elements of a `bigint[]` without nulls."""
    words = _numbers(packed, "I")  # of each: its length, the high half, the low half
    high, low = (_column(words[n::3]).cast(pl.Int64) for n in (1, 2))
    return high * 2**32 + low


def times(packed: bytes) -> pl.Series:
    """Return the elements of a `timestamptz[]` without nulls."""
    return (bigints(packed) + _EPOCH_US).cast(columns.TIME)


def rows_of_smallints(packed: bytes, rows: int) -> pl.Series:
    """Return the rows of a `smallint[][]` without nulls, each as bytes."""
    raw = packed[_HEAD_BYTES + 2 * _DIMENSION_BYTES :]
    return columns.of_values(pa.binary(len(raw) // rows), rows, raw)


def elements_of_rows(packed: bytes) -> pl.Series:
    """Return the elements of an `integer[][]` without nulls or numbers below 0, row by row."""
    return _column(_numbers(packed, "I")[3::2])  # of two dimensions: the head is two words longer


def _column(numbers: "array[int]") -> pl.Series:
    return columns.of_values(pa.uint32(), len(numbers), numbers)


def _numbers(packed: bytes, code: str) -> "array[int]":
    numbers = array(code)
    numbers.frombytes(packed[_HEAD_BYTES + _DIMENSION_BYTES :])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
