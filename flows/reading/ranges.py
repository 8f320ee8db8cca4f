"""Cut a manifest into byte ranges, and a range into lines. No Prefect, no SQL.

A line belongs to the range in which its first byte lies; a range reads on to the end of its last
line. So every cut gives the same lines, and (start, end) is all that has to be passed around.
"""

import math
from collections.abc import Callable, Iterator
from itertools import count

from blocks.domain.model import LINE_BYTES_MAX
from blocks.lines.validated_lines import Counted

Read = Callable[[int, int], bytes]
"""Return bytes `start` to `end` of the manifest; more if that saves a request, and fewer where it ends,
if its size is not known."""

_BOM = b"\xef\xbb\xbf"
_TAIL_BLOCK_BYTES = 64 * 1024
# A request takes as long as reading so many bytes does, so small chunks share one.
_REQUEST_BYTES_MIN = 4 * 1024 * 1024
# Most lines that go on behind their range end within so many bytes.
_AHEAD_BYTES = 4 * 1024
# A manifest makes so many chunks for each that is in flight, within the bounds on a chunk's size, so
# that no machine waits long for the last one.
_CHUNKS_FOR_EACH_IN_FLIGHT = 4
# The first chunk is read alone, so that rubbish is refused at once. The others wait for it.
_FIRST_CHUNK_BYTES_MAX = 1024 * 1024


def choose_chunk_bytes(
    size: int, *, in_flight: int, chunk_bytes_min: int, chunk_bytes_max: int
) -> int:
    """Return the bytes of a manifest's chunks, so that there are enough to keep all cores busy."""
    even = math.ceil(size / (in_flight * _CHUNKS_FOR_EACH_IN_FLIGHT))
    return min(max(even, chunk_bytes_min), chunk_bytes_max)


def chunk_range(chunk_no: int, chunk_bytes: int) -> tuple[int, int]:
    """Return a chunk's byte range (start, end), whatever the manifest's size. The first may be small."""
    first = min(chunk_bytes, _FIRST_CHUNK_BYTES_MAX)
    start = first + (chunk_no - 1) * chunk_bytes
    return max(start, 0), start + chunk_bytes


def plan_ranges(size: int, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges (start, end) that cover a manifest of `size` bytes, in order."""
    for chunk_no in count():
        start, end = chunk_range(chunk_no, chunk_bytes)
        if start >= size:
            return
        yield start, min(end, size)


def read_lines(read: Read, size: int, start: int, end: int) -> tuple[int, bytes, Counted]:
    """Return the lines whose first byte lies in `start` to `end`: their byte offset, text, and counts.

    A line that goes on after the range is read up to just beyond the longest that is allowed, which is
    enough to tell that it is too long. Raises whatever `read` raises.
    """
    # The byte before the range tells whether a line begins at its first byte.
    at = max(start - 1, 0)
    text = read(at, end)
    size_of_range = min(end - at, len(text))
    counted = _count(text, start, size_of_range)
    skip = 0
    if start > 0:
        skip = text.find(b"\n", 0, size_of_range) + 1
        if skip == 0 or at + skip == end:
            return end, b"", counted  # one line covers the range, and belongs to an earlier one
    stop, tail = size_of_range, b""
    if not text.endswith(b"\n", 0, size_of_range):
        line = text.rfind(b"\n", 0, size_of_range) + 1
        stop = text.find(b"\n", size_of_range) + 1 or len(text)
        if not text.endswith(b"\n", 0, stop):
            tail = _read_tail(read, size, at + stop, stop - line)
    # One copy of all of it, instead of one for each end.
    return at + skip, b"".join((memoryview(text)[skip:stop], tail)), counted


def _count(raw: bytes, start: int, size: int) -> Counted:
    """Count a range that begins at `start`, by `size` bytes of `raw` from the one in front of it on."""
    before = 1 if start > 0 else 0
    # A line feed that is the last byte begins a line of the next range, if there is one.
    lines = raw.count(b"\n", 0, size - 1) if size else 0
    return Counted(size - before, lines + (1 if size and not before else 0))


def _read_tail(read: Read, size: int, at: int, bytes_so_far: int) -> bytes:
    """Return the rest of a line, from `at` on, of which `bytes_so_far` were read; no line feed."""
    tail = b""
    longest = len(_BOM) + LINE_BYTES_MAX + len(b"\r\n")
    stop = min(size, at + longest - bytes_so_far)
    while at < stop:
        block = read(at, min(at + _TAIL_BLOCK_BYTES, stop))
        if not block:
            break
        line, feed, _ = block.partition(b"\n")
        tail += line
        if feed:
            break
        at += len(block)
    return tail


class ReadAhead:
    """Read the ranges of one group by few requests: each reads on for the ranges that come next.

    Holds at most `_REQUEST_BYTES_MIN` bytes. `end` is where the last range ends.
    """

    def __init__(self, end: int) -> None:
        self._stop = end + _AHEAD_BYTES
        self._at = 0
        self._held = b""

    def over(self, read: Read, size: int) -> Read:
        """Return a reader that asks `read` for what is not held, of a manifest of `size` bytes."""

        def ahead(start: int, end: int) -> bytes:
            held = b""
            if self._at <= start < self._at + len(self._held):
                held = self._held[start - self._at :]
            if start + len(held) < end:
                stop = max(end + _AHEAD_BYTES, start + _REQUEST_BYTES_MIN)
                held += read(start + len(held), max(end, min(stop, self._stop, size)))
            is_large = (
                end - start >= _REQUEST_BYTES_MIN
            )  # nothing of it is of use for the next range
            self._at, self._held = start, b"" if is_large else held
            return held if is_large else held[: end - start + _AHEAD_BYTES]

        return ahead
