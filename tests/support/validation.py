"""The product's verdict on manifests in the words of the reference.

It is the one place of these tests that knows how the product reads them.
"""

from unittest import mock

from blocks.domain.model import BadLine, GoodLine
from blocks.lines.exact_path import validate
from flows.reading.fast_path import validate_lines
from flows.reading.ranges import plan_ranges, read_lines
from tests.support.reference import Bad, Good, Outcome


def outcome(data: bytes, chunk_bytes: int | None = None, *, takes_text: bool = False) -> Outcome:
    """What a whole manifest comes to, read in chunks of that size, or at once."""
    lines, good, bad = 0, list[Good](), list[Bad]()

    def read(start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(data)  # a store refuses an empty range
        return data[start:end]

    for start, end in plan_ranges(len(data), chunk_bytes or max(len(data), 1)):
        at, text, _ = read_lines(read, len(data), start, end)
        chunk_lines = 0
        for batch in validate_lines(text, at, takes_text=takes_text):
            good += [_good(GoodLine(*row), lines) for row in batch.tasks.iter_rows()]
            bad += [_bad(line, lines) for line in batch.bad]
            chunk_lines += batch.lines
        lines += chunk_lines
    return Outcome(lines, good, bad)


def outcome_in_batches(data: bytes, *, bytes_max: int, lines_max: int) -> Outcome:
    """The same, validated in batches that are far smaller than in production."""
    with (
        mock.patch("flows.reading.fast_path._BATCH_BYTES_MAX", bytes_max),
        mock.patch("flows.reading.fast_path._BATCH_LINES_MAX", lines_max),
    ):
        return outcome(data)


def exact(raw: bytes, *, takes_text: bool = False) -> Good | Bad | None:
    """What the exact path makes of the only line of a manifest, given without its line feed."""
    found = validate(raw, byte_offset=0, line=1, takes_text=takes_text)
    if found is None:
        return None
    return _good(found, 0) if isinstance(found, GoodLine) else _bad(found, 0)


def _good(line: GoodLine, lines_before: int) -> Good:
    number = lines_before + line.line
    return Good(line.byte_offset, number, line.data_url, line.metadata, line.text)


def _bad(line: BadLine, lines_before: int) -> Bad:
    return Bad(line.byte_offset, lines_before + line.line, str(line.code), line.raw)
