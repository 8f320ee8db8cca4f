"""The layout of a page: up to 256 tasks of one chunk, compressed together.

    number of tasks n (4 bytes), bytes of all URLs and texts (4), first byte offset (8), first line (4)
    n numbers (4 bytes each): byte offset, less the one before; 0 for the first
    n numbers: line, less the one before; 0 for the first
    n numbers: bytes of the URL, or of the text that a task has instead, then with the highest bit set
    n numbers: bytes of the metadata; 0 where there is none
    the URLs and texts, then the metadata, in UTF-8

Numbers are little-endian and unsigned. All of it is packed (`blocks/lines/packing.py`). Equal tasks give
equal bytes.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add

import msgspec
import polars as pl
import pyarrow as pa

from blocks.domain.model import GoodLine
from blocks.lines import columns
from blocks.lines.packing import pack, unpack

_TASKS_MAX = 256
_TEXT_BYTES_MAX = 64 * 1024  # a task with more is a page of its own
_INNER = struct.Struct("<IIQI")
_NUMBER_BYTES = 4
_COLUMNS = 4
_SIZES = 2  # the column of the sizes of URLs and texts
_IS_TEXT = 2**31


_Text = bytes | memoryview


class Page(msgspec.Struct, frozen=True, gc=False):
    """So many tasks, as they are stored."""

    tasks: int
    content: bytes


def make_pages(tasks: pl.DataFrame) -> Iterator[Page]:
    """Yield the pages of tasks of one chunk: rows of `TASK_COLUMNS`, in manifest order."""
    if tasks.is_empty():
        return
    byte_offsets, lines = tasks["byte_offset"], tasks["line"]
    data = tasks["data_url"]
    sizes = data.str.len_bytes()
    if data.has_nulls():
        data = tasks.select(pl.coalesce("data_url", "text")).to_series()
        sizes = data.str.len_bytes() + tasks["text"].is_not_null().cast(pl.UInt32) * _IS_TEXT
    urls, url_ends = columns.join(data)
    metadata, metadata_ends = columns.join(tasks["metadata"])
    numbers = (
        _numbers(byte_offsets.diff().fill_null(0)),
        _numbers(lines.diff().fill_null(0)),
        _numbers(sizes),
        _numbers(tasks["metadata"].str.len_bytes().fill_null(0)),
    )
    for start, end in _cuts(url_ends, metadata_ends):
        yield _page(
            (byte_offsets[start], lines[start]),
            [column[start:end] for column in numbers],
            urls[url_ends[start] : url_ends[end]],
            metadata[metadata_ends[start] : metadata_ends[end]],
        )


def make_inline_pages(lines: Sequence[GoodLine]) -> Iterator[Page]:
    """Yield the pages of tasks without a manifest, whose places do not count."""
    urls = [(line.data_url or line.text or "").encode() for line in lines]
    metadata = [(line.metadata or "").encode() for line in lines]
    flags = [0 if line.text is None else _IS_TEXT for line in lines]
    sizes = [array("I", map(len, each)) for each in (urls, metadata)]
    stored = [array("I", map(add, sizes[0], flags)), sizes[1]]
    for start, end in _cuts(*(list(accumulate(each, initial=0)) for each in sizes)):
        nowhere = array("I", bytes(_NUMBER_BYTES * (end - start)))
        yield _page(
            (0, 0),
            [memoryview(each) for each in (nowhere, nowhere, *(s[start:end] for s in stored))],
            b"".join(urls[start:end]),
            b"".join(metadata[start:end]),
        )


def _page(
    first: tuple[int, int], numbers: Sequence[memoryview], urls: _Text, metadata: _Text
) -> Page:
    byte_steps, line_steps, url_sizes, metadata_sizes = numbers
    tasks, zero = len(url_sizes), bytes(_NUMBER_BYTES)
    head = _INNER.pack(tasks, len(urls), *first)
    steps = zero, byte_steps[1:], zero, line_steps[1:]
    return Page(tasks, pack(b"".join((head, *steps, url_sizes, metadata_sizes, urls, metadata))))


def read_lines(content: bytes, places: Sequence[int]) -> list[GoodLine]:
    """Return the tasks at some places of a page, 0-based.

    Raises:
        CorruptContent: it is not what was stored.
    """
    raw = unpack(content)
    tasks, url_bytes, byte_offset, line = _INNER.unpack_from(raw)
    texts_at = _INNER.size + _COLUMNS * _NUMBER_BYTES * tasks
    numbers = raw[_INNER.size : texts_at].cast("I")
    firsts = (byte_offset, line, texts_at, texts_at + url_bytes)
    columns_of_numbers = [numbers[n * tasks : (n + 1) * tasks].tolist() for n in range(len(firsts))]
    sizes = columns_of_numbers[_SIZES]
    columns_of_numbers[_SIZES] = [size % _IS_TEXT for size in sizes]
    byte_offsets, lines, url_ends, metadata_ends = (
        list(accumulate(column, initial=first))
        for column, first in zip(columns_of_numbers, firsts, strict=True)
    )
    found = []
    for n in places:
        data = str(raw[url_ends[n] : url_ends[n + 1]], "utf-8")
        metadata = str(raw[metadata_ends[n] : metadata_ends[n + 1]], "utf-8") or None
        url, text = (data, None) if sizes[n] < _IS_TEXT else (None, data)
        found.append(GoodLine(byte_offsets[n + 1], lines[n + 1], url, metadata, text))
    return found


def read_frame(contents: Sequence[bytes]) -> pl.DataFrame:
    """Return all tasks of some pages, one page after the other, as `TASK_COLUMNS`.

    Raises:
        CorruptContent: one is not what was stored.
    """
    parts: list[list[memoryview]] = [[] for _ in range(_COLUMNS)]
    urls, metadata = [], []
    starts, byte_offsets, lines = [0], [], []
    for content in contents:
        raw = unpack(content)
        tasks, url_bytes, byte_offset, line = _INNER.unpack_from(raw)
        at = _INNER.size
        for column in parts:
            column.append(raw[at : at + _NUMBER_BYTES * tasks])
            at += _NUMBER_BYTES * tasks
        urls.append(raw[at : at + url_bytes])
        metadata.append(raw[at + url_bytes :])
        starts.append(starts[-1] + tasks)
        byte_offsets.append(byte_offset)
        lines.append(line)
    total = starts.pop()
    steps, line_steps, url_sizes, metadata_sizes = (
        columns.of_values(pa.uint32(), total, b"".join(column)) for column in parts
    )
    is_text = url_sizes >= _IS_TEXT
    frame = pl.DataFrame(
        {
            "byte_offset": _sums(steps, starts, byte_offsets),
            "line": _sums(line_steps, starts, lines).cast(pl.Int32),
            "data_url": columns.of_parts(pa.large_string(), url_sizes % _IS_TEXT, b"".join(urls)),
            "metadata": columns.of_parts(pa.large_string(), metadata_sizes, b"".join(metadata)),
        }
    ).with_columns(
        pl.when(metadata_sizes > 0).then("metadata").alias("metadata"),
        text=pl.lit(None, pl.String),
    )
    if not is_text.any():
        return frame
    return frame.with_columns(
        data_url=pl.when(~is_text).then("data_url"), text=pl.when(is_text).then("data_url")
    )


def _cuts(url_ends: Sequence[int], metadata_ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of the tasks of each page, bounded by their number and their text."""
    start, total = 0, len(url_ends) - 1
    while start < total:
        end = min(start + _TASKS_MAX, total)
        most = url_ends[start] + metadata_ends[start] + _TEXT_BYTES_MAX
        if url_ends[end] + metadata_ends[end] > most:
            ends = range(start + 1, end)
            fitting = bisect_right(ends, most, key=lambda n: url_ends[n] + metadata_ends[n])
            end = start + max(fitting, 1)
        yield start, end
        start = end


def _numbers(numbers: pl.Series) -> memoryview:
    return columns.values_of(numbers.cast(pl.UInt32)).cast("I")


def _sums(steps: pl.Series, starts: Sequence[int], initial: Sequence[int]) -> pl.Series:
    """Return running sums of `steps` that begin anew, with `initial`, at each of `starts`."""
    sums = steps.cast(pl.Int64).cum_sum()
    sizes = pl.Series([*starts[1:], len(steps)]) - pl.Series(starts)
    shifts = pl.Series(initial, dtype=pl.Int64) - sums.gather(starts)
    return sums + shifts.repeat_by(sizes).explode()
