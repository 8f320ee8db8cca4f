"""Validate manifest lines as columns: most in one sweep of Polars, the rest one by one."""

from collections.abc import Iterator

import polars as pl
from polars.exceptions import ComputeError

from blocks.domain.data_urls import URL_CHARACTERS_MAX
from blocks.domain.model import LINE_BYTES_MAX, BadLine, GoodLine
from blocks.lines.exact_path import validate
from blocks.lines.validated_lines import Batch, task_frame
from flows.reading.good_line import GOOD_LINE, HEAD

# A sweep costs a millisecond however few its lines are, so batches are large; yet their results have to
# fit into memory however short the lines are: a bad line of two bytes takes more than two hundred.
_BATCH_BYTES_MAX = 4 * 1024 * 1024
_BATCH_LINES_MAX = 64 * 1024
_BOM = b"\xef\xbb\xbf"


def validate_lines(text: bytes, byte_offset: int) -> Iterator[Batch]:
    """Yield the lines of `text`, which begins at `byte_offset` of the manifest, in bounded batches."""
    number = 1
    for start, end in _cuts(text):
        batch = _validate(text[start:end], byte_offset + start, number)
        number += batch.lines
        yield batch


def _cuts(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each batch, cut behind a line feed. A long line is a batch of its own."""
    start = 0
    while start < len(text):
        size = _BATCH_BYTES_MAX
        while True:
            end = text.find(b"\n", start + size - 1) + 1 or len(text)
            if text.count(b"\n", start, end) <= _BATCH_LINES_MAX:
                break
            size //= 2
        yield start, end
        start = end


def _validate(text: bytes, byte_offset: int, first_number: int) -> Batch:
    lines = _sweep(_lines(text), byte_offset, first_number, any_cr=b"\r" in text)
    tail, url_size = pl.col("tail"), pl.col("url_size")
    rest = tail.str.slice(url_size)
    tasks = lines.filter("good").select(
        "byte_offset",
        "line",
        data_url=tail.str.slice(0, url_size),
        metadata=rest.str.slice(rest.str.find("{", literal=True)).str.head(-1),
    )
    good, bad, blank = _validate_each(lines.remove("good"), text, byte_offset)
    if good:
        tasks = tasks.merge_sorted(task_frame(good), key="byte_offset")
    return Batch(len(lines), tasks, bad, blank)


def _sweep(lines: pl.Series, byte_offset: int, first_number: int, *, any_cr: bool) -> pl.DataFrame:
    """Return a row for each line, with its place and whether it is surely `good`.

    `size` is in bytes; `tail` is the text after the opening quote of a good line's URL, and `url_size`
    how many bytes of it come before the closing one.
    """
    text, size = pl.col("text"), pl.col("size")
    number = pl.int_range(pl.len(), dtype=pl.Int32)
    return (
        lines.to_frame("text")
        .with_columns(size=text.str.len_bytes().cast(pl.Int64))
        .with_columns(
            text.str.strip_suffix("\r") if any_cr else text,
            byte_offset=size.cum_sum() - size + number + byte_offset,
            line=number + first_number,
        )
        .with_columns(tail=text.str.slice(len(HEAD) + 1).str.strip_prefix('"'))
        .with_columns(url_size=pl.col("tail").str.find('"', literal=True))
        .with_columns(
            good=text.str.contains(GOOD_LINE)
            & (text.str.len_bytes() <= LINE_BYTES_MAX)
            & (pl.col("url_size") <= URL_CHARACTERS_MAX)
        )
    )


def _validate_each(
    lines: pl.DataFrame, text: bytes, byte_offset: int
) -> tuple[list[GoodLine], list[BadLine], int]:
    good: list[GoodLine] = []
    bad: list[BadLine] = []
    blank = 0
    for at, size, number in lines.select("byte_offset", "size", "line").iter_rows():
        start = at - byte_offset
        raw = text[start : start + size]
        raw = raw.removeprefix(_BOM) if at == 0 else raw
        line = validate(raw, byte_offset=at, line=number)
        if isinstance(line, GoodLine):
            good.append(line)
        elif line is not None:
            bad.append(line)
        else:
            blank += 1
    return good, bad, blank


def _lines(text: bytes) -> pl.Series:
    """Return the lines without their line feeds; one that is not UTF-8 as so many spaces."""
    try:
        return _split(text)
    except ComputeError:
        return _split(b"\n".join(map(_utf8_or_spaces, text.split(b"\n"))))


def _split(text: bytes) -> pl.Series:
    # Polars drops one carriage return before a line feed, and the offsets would no longer be right.
    text = text.replace(b"\r\n", b"\r\r\n")
    end = b"\r" if text.endswith(b"\r") else b""
    # Polars decompresses a text that begins like gzip, zlib or zstd. A line feed in front prevents that.
    return pl.read_lines(b"".join((b"\n", text, end))).to_series()[1:]


def _utf8_or_spaces(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return b" " * len(line)
    return line
