"""Columns of Polars out of bytes, and bytes out of columns, by Arrow."""

import polars as pl
import pyarrow as pa

TIME = pl.Datetime("us", "UTC")
_OLDEST = pl.CompatLevel.oldest()


def of_values(kind: pa.DataType, size: int, values: object) -> pl.Series:
    """Return a column of `size` values of one width, which stand in the buffer `values`."""
    array = pa.Array.from_buffers(kind, size, [None, pa.py_buffer(values)])
    return pl.Series(pl.from_arrow(array))


def of_parts(kind: pa.DataType, sizes: pl.Series, data: object) -> pl.Series:
    """Return a column of large strings or binaries of these sizes in bytes, which `data` is made of."""
    ends = pl.concat([pl.Series([0], dtype=pl.Int64), sizes.cast(pl.Int64).cum_sum()])
    buffers = [None, pa.py_buffer(values_of(ends)), pa.py_buffer(data)]
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(kind, len(sizes), buffers)))


def values_of(column: pl.Series) -> memoryview:
    """Return the bytes of a column of values of one width, without nulls, as `of_values` takes them."""
    array = column.rechunk().to_arrow()
    # A part of another column lies somewhere in that one's buffer.
    width = array.type.bit_width // 8
    start = array.offset * width
    return memoryview(array.buffers()[1])[start : start + len(array) * width]


def join(texts: pl.Series) -> tuple[memoryview, memoryview]:
    """Return the UTF-8 of texts, one after the other, and where each begins and the last one ends."""
    _, ends, data = texts.rechunk().to_arrow(compat_level=_OLDEST).buffers()
    return memoryview(data or b""), memoryview(ends).cast("q")[: len(texts) + 1]
