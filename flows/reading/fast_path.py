"""Validate manifest lines as columns: most in one sweep of Polars, the rest one by one."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import polars as pl
from polars.exceptions import ComputeError

from blocks.domain.data_urls import URL_CHARACTERS_MAX
from blocks.domain.model import LINE_BYTES_MAX, BadLine, GoodLine
from blocks.lines.exact_path import BLANK_TEXT, validate
from blocks.lines.validated_lines import Batch, task_frame
from flows.reading.good_line import (
    GOOD_LINE,
    GOOD_TEXT_LINE,
    HEAD,
    TEXT_BODY,
    TEXT_HEAD,
    TURNED_HEAD,
    TURNED_TAIL,
)

# A sweep costs a millisecond however few its lines are, so batches are large; yet their results have to
# fit into memory however short the lines are: a bad line of two bytes takes more than two hundred.
_BATCH_BYTES_MAX = 2 * 1024 * 1024
_BATCH_LINES_MAX = 64 * 1024
# Where a byte is not UTF-8, so many bytes around it are looked at line by line.
_UTF8_WINDOW_BYTES = 4 * 1024
_BOM = b"\xef\xbb\xbf"

Judge = Callable[..., GoodLine | BadLine | None]
"""`validate`, with all that is the same for the lines of a job."""

_TEXT = pl.col("text")
_URL_AT, _URL_END = pl.col("url_at"), pl.col("url_end")


def validate_lines(
    text: bytes,
    byte_offset: int,
    lines: int | None = None,
    *,
    takes_text: bool = False,
    options: Sequence[str] = (),
) -> Iterator[Batch]:
    """Yield the lines of `text`, which begins at `byte_offset` of the manifest, in bounded batches.

    `lines` is how many they are, if that is known; then they need not be counted. `takes_text` says
    that a line may have a text instead of a URL; `options` are what a line's `gold` may be.
    """
    number = 1
    for start, end in _cuts(text, lines):
        judge = partial(validate, takes_text=takes_text, options=options)
        batch = _validate(
            text[start:end], byte_offset + start, number, judge, takes_text=takes_text
        )
        number += batch.lines
        yield batch


def _cuts(text: bytes, lines: int | None) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each batch, cut behind a line feed. A long line is a batch of its own."""
    is_few = lines is not None and lines <= _BATCH_LINES_MAX
    start = 0
    while start < len(text):
        size = _BATCH_BYTES_MAX
        while True:
            end = text.find(b"\n", start + size - 1) + 1 or len(text)
            if is_few or text.count(b"\n", start, end) <= _BATCH_LINES_MAX:
                break
            size //= 2
        yield start, end
        start = end


def _validate(
    text: bytes, byte_offset: int, first_number: int, judge: Judge, *, takes_text: bool
) -> Batch:
    lines = _judge(_split(text, byte_offset, first_number))
    tasks = _tasks(lines.filter("good"))
    rest = lines.remove("good")
    if takes_text and rest.get_column("text").str.starts_with(TEXT_HEAD).any():
        texts = _text_tasks(rest)
        tasks = tasks.merge_sorted(texts, key="byte_offset")
        rest = rest.join(texts, on="line", how="anti", maintain_order="left")
    if rest.get_column("text").str.starts_with(TURNED_HEAD).any():
        turned = _judge(_turn(rest)).filter("good")
        tasks = tasks.merge_sorted(_tasks(turned), key="byte_offset")
        rest = rest.join(turned, on="line", how="anti", maintain_order="left")
    good, bad, blank = _validate_each(rest, text, byte_offset, judge)
    if good:
        tasks = tasks.merge_sorted(task_frame(good), key="byte_offset")
    gold = {line.byte_offset: line.gold for line in good if line.gold}
    return Batch(len(lines), tasks, bad, blank, gold)


def _split(text: bytes, byte_offset: int, first_number: int) -> pl.DataFrame:
    """Return a row for each line: its place, its `text` without the line's end, and its `size` in bytes.

    The text of a line that is not UTF-8 is so many spaces. A line `fits` if its text is not too long.
    """
    # `pl.read_lines` drops carriage returns, and decompresses what begins like gzip, zlib or zstd.
    try:
        whole = pl.Series("text", [text]).cast(pl.String)
    except ComputeError:
        whole = pl.Series("text", [_blank_invalid(text)]).cast(pl.String)
    lines = whole.str.split("\n").explode().to_frame()
    size, number = pl.col("size"), pl.int_range(pl.len(), dtype=pl.Int32)
    return (
        (lines.head(-1) if text.endswith(b"\n") else lines)
        .with_columns(size=_TEXT.str.len_bytes().cast(pl.Int64))
        .with_columns(
            _TEXT.str.strip_suffix("\r") if b"\r" in text else _TEXT,
            byte_offset=size.cum_sum() - size + number + byte_offset,
            line=number + first_number,
        )
        .with_columns(fits=_TEXT.str.len_bytes() <= LINE_BYTES_MAX)
    )


def _judge(lines: pl.DataFrame) -> pl.DataFrame:
    """Add whether each line is surely `good`, and where in the bytes of its text its URL would be."""
    size = _TEXT.str.len_bytes()
    return lines.with_columns(
        url_at=len(HEAD) + 1 + _TEXT.str.starts_with(f"{HEAD} ").cast(pl.UInt32),
        # There is no quote in a URL, and none before a comma in front of it.
        url_end=_TEXT.str.find('",', literal=True).fill_null(size - len('"}')),
    ).with_columns(
        # A line that was turned about may be shorter now.
        good=pl.col("fits")
        & _TEXT.str.contains(GOOD_LINE)
        & (_URL_END - _URL_AT <= URL_CHARACTERS_MAX)
    )


def _tasks(good: pl.DataFrame) -> pl.DataFrame:
    """Return good lines as tasks, by slices of their texts, which are copied nowhere."""
    return _with_metadata(good, behind=_URL_END).select(
        "byte_offset",
        "line",
        data_url=_slice(_TEXT, _URL_AT, _URL_END - _URL_AT),
        metadata=pl.col("metadata"),
        text=pl.lit(None, pl.String),
    )


def _with_metadata(good: pl.DataFrame, *, behind: pl.Expr) -> pl.DataFrame:
    """Add the `metadata` of good lines, which stands behind so many bytes; null where there is none."""
    rest, brace = pl.col("rest"), pl.col("brace")
    return (
        good.with_columns(rest=_slice(_TEXT, behind))
        .with_columns(brace=rest.str.find("{", literal=True))
        .with_columns(
            metadata=pl.when(brace.is_not_null()).then(
                _slice(rest, brace, rest.str.len_bytes() - 1 - brace)
            )
        )
    )


def _text_tasks(lines: pl.DataFrame) -> pl.DataFrame:
    """Return those lines as tasks that are surely good and have a text."""
    body = pl.col("body")
    at = len(TEXT_HEAD) + 1 + _TEXT.str.starts_with(f"{TEXT_HEAD} ").cast(pl.UInt32)
    good = lines.filter(pl.col("fits") & _TEXT.str.contains(GOOD_TEXT_LINE)).with_columns(
        body=_slice(_TEXT, at).str.extract(TEXT_BODY)
    )
    found = _with_metadata(good, behind=at + body.str.len_bytes()).select(
        "byte_offset",
        "line",
        data_url=pl.lit(None, pl.String),
        metadata=pl.col("metadata"),
        text=body,
    )
    return found.with_columns(_unescape(found["text"])).filter(
        _TEXT.str.strip_chars(BLANK_TEXT).str.len_bytes() > 0,
        ~_TEXT.str.contains("\x00", literal=True),
    )


def _unescape(bodies: pl.Series) -> pl.Series:
    """Return the texts that JSON strings stand for, which are given without their quotes."""
    is_escaped = bodies.str.contains("\\", literal=True)
    if not is_escaped.any():
        return bodies
    escaped = bodies.filter(is_escaped).str.join('","').item()
    texts = msgspec.json.decode(f'["{escaped}"]', type=list[str])
    return bodies.scatter(is_escaped.arg_true(), pl.Series(texts, dtype=pl.String))


def _slice(text: pl.Expr, start: pl.Expr, size: pl.Expr | None = None) -> pl.Expr:
    # `str.slice` walks over characters from the start.
    return text.cast(pl.Binary).bin.slice(start, size).cast(pl.String)


def _turn(lines: pl.DataFrame) -> pl.DataFrame:
    """Return the lines that have their metadata first, with the fields of `text` turned about."""
    at = pl.col("tail_at")
    return (
        lines.filter(_TEXT.str.starts_with(TURNED_HEAD))
        .with_columns(tail_at=_TEXT.str.find(TURNED_TAIL))
        .filter(at.is_not_null())
        .with_columns(
            text=pl.concat_str(
                pl.lit("{"),
                _slice(_TEXT, at + 1, _TEXT.str.len_bytes() - 2 - at).str.strip_chars_start(" \t"),
                pl.lit(","),
                _slice(_TEXT, pl.lit(1), at - 1),
                pl.lit("}"),
            )
        )
    )


def _validate_each(
    lines: pl.DataFrame, text: bytes, byte_offset: int, judge: Judge
) -> tuple[list[GoodLine], list[BadLine], int]:
    good: list[GoodLine] = []
    bad: list[BadLine] = []
    blank = 0
    for at, size, number in lines.select("byte_offset", "size", "line").iter_rows():
        start = at - byte_offset
        raw = text[start : start + size]
        raw = raw.removeprefix(_BOM) if at == 0 else raw
        line = judge(raw, byte_offset=at, line=number)
        if isinstance(line, GoodLine):
            good.append(line)
        elif line is not None:
            bad.append(line)
        else:
            blank += 1
    return good, bad, blank


def _blank_invalid(text: bytes) -> bytes:
    """Return `text` with so many spaces for each line that is not UTF-8."""
    windows = []
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + _UTF8_WINDOW_BYTES) + 1 or len(text)
        window = text[start:end]
        if not _is_utf8(window):
            lines = window.split(b"\n")
            window = b"\n".join(raw if _is_utf8(raw) else b" " * len(raw) for raw in lines)
        windows.append(window)
        start = end
    return b"".join(windows)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
