"""Ranges that are read with few requests come to the same lines as ranges that are read one by one."""

from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from blocks.lines.validated_lines import Counted
from flows.reading import ranges
from flows.reading.ranges import ReadAhead, plan_ranges, read_lines

PARTS = st.lists(st.sampled_from([b"a" * 7, b"b" * 40, b"\n", b"\n\n", b"\r\n", b"\xff"]))


class Store:
    """A manifest in memory that keeps count of what is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def read(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(self.data)  # a store refuses an empty range
        self.asked.append((start, end))
        return self.data[start:end]


@given(PARTS, st.integers(1, 60), st.integers(1, 100), st.integers(0, 30), st.data())
@example([b"a" * 7, b"\n"] * 20, 8, 24, 8, None)
def test_what_is_read_ahead_changes_no_line_and_no_count(
    parts: list[bytes], chunk_bytes: int, request: int, extra: int, choice: st.DataObject | None
) -> None:
    data = b"".join(parts)
    size = len(data)
    wanted = list(plan_ranges(size, chunk_bytes))
    if choice is not None:  # a rerun has only those that are missing
        wanted = [each for each in wanted if choice.draw(st.booleans())]
    store = Store(data)
    with (
        mock.patch.object(ranges, "_REQUEST_BYTES_MIN", request),
        mock.patch.object(ranges, "_AHEAD_BYTES", extra),
    ):
        ahead = ReadAhead(wanted[-1][1] if wanted else 0)
        for start, end in wanted:
            found = read_lines(ahead.over(store.read, size), size, start, end)
            assert text(found) == text(read_lines(Store(data).read, size, start, end))
            # A block of a tail is longer than all of this.
            assert len(ahead._held) <= max(request, chunk_bytes + 1 + extra, size - start)


def text(found: tuple[int, bytes, Counted]) -> tuple[int, bytes, Counted]:
    """The lines without the line feed of the last one, which may be there or not."""
    at, lines, counted = found
    return at, lines.removesuffix(b"\n"), counted


def test_small_ranges_share_a_request_and_a_large_one_needs_no_second_for_its_last_line() -> None:
    line = b"x" * 99 + b"\n"
    data = line * 50_000
    for chunk_bytes, requests_max in ((100_050, 3), (1_400_050, 4), (2_500_050, 3)):
        store = Store(data)
        wanted = list(plan_ranges(len(data), chunk_bytes))
        ahead = ReadAhead(wanted[-1][1])
        lines = b"".join(
            read_lines(ahead.over(store.read, len(data)), len(data), *each)[1] for each in wanted
        )
        assert lines == data
        assert len(store.asked) <= requests_max
        assert sum(end - start for start, end in store.asked) < len(data) * 1.05


def test_nothing_is_read_behind_the_group() -> None:
    data = (b"x" * 99 + b"\n") * 10_000
    store = Store(data)
    ahead = ReadAhead(5000)
    assert read_lines(ahead.over(store.read, len(data)), len(data), 1000, 5000)[0] == 1000
    assert store.asked == [(999, 5000 + 4096)]
