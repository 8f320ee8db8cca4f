"""Every way of cutting a manifest gives the same lines, and none reads more than it may."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocks.domain.errors import Transient
from blocks.domain.model import LINE_BYTES_MAX, BadLine, GoodLine, LineCode
from blocks.lines.exact_path import validate
from flows.reading.fast_path import validate_lines
from flows.reading.ranges import Read, choose_chunk_bytes, plan_ranges, read_lines

MIB = 1024 * 1024
BLOCK = 64 * 1024
BOM = b"\xef\xbb\xbf"
A = b'{"data_url": "https://a.example.com/"}'
B = b'{"data_url": "s3://bucket/b", "metadata": {"b": 1.0}}'
HARD = b'{"data_url": "https://b\\u00fccher.example/"}'  # good, by the exact path alone

Line = tuple[int, bytes]


def plain(data: bytes) -> list[Line]:
    """(byte offset, line) of the whole manifest, the obvious way."""
    lines: list[Line] = []
    at = 0
    for raw in data.split(b"\n"):
        lines.append((at, raw))
        at += len(raw) + 1
    if lines[-1][1] == b"":  # there is no line after the last line feed
        lines.pop()
    if lines and lines[0][1].startswith(BOM):
        lines[0] = (0, lines[0][1][len(BOM) :])
    return lines


@dataclass
class Store:
    """A manifest in memory that keeps to the bounds of the contract, and keeps count."""

    data: bytes
    calls: list[tuple[int, int]] = field(default_factory=list)

    def read(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(self.data)  # a store refuses an empty range
        self.calls.append((start, end))
        return self.data[start:end]


def cut_lines(read: Read, size: int, start: int, end: int) -> Iterator[Line]:
    """The lines of a range."""
    at, text, _ = read_lines(read, size, start, end)
    for raw in text.removesuffix(b"\n").split(b"\n") if text else []:
        yield at, raw.removeprefix(BOM) if at == 0 else raw
        at += len(raw) + 1


@dataclass
class Chunk:
    """What the lines of a range came to."""

    lines: int
    tasks: list[GoodLine]
    bad: list[BadLine]


def read_chunk(read: Read, size: int, start: int, end: int) -> Chunk:
    """The lines of a range, validated."""
    at, text, _ = read_lines(read, size, start, end)
    batches = list(validate_lines(text, at))
    return Chunk(
        sum(batch.lines for batch in batches),
        [GoodLine(*row) for batch in batches for row in batch.tasks.iter_rows()],
        [line for batch in batches for line in batch.bad],
    )


def cut(data: bytes, chunk_bytes: int) -> list[list[Line]]:
    """The lines of each chunk."""
    ranges = plan_ranges(len(data), chunk_bytes)
    return [list(cut_lines(Store(data).read, len(data), *limits)) for limits in ranges]


NASTY = {
    "nothing": b"",
    "a line feed": b"\n",
    "line feeds": b"\n\n\n\n",
    "one line": A + b"\n",
    "no final newline": A + b"\n" + B,
    "one line without newline": A,
    "crlf": A + b"\r\n" + B + b"\r\n",
    "carriage returns alone": A + b"\r" + B + b"\r",
    "crlf and no end": A + b"\r\n" + B + b"\r",
    "blank lines": b"\n\r\n" + A + b"\n\n  \n\t\r\n" + B + b"\n\n",
    "bom": BOM + A + b"\n" + B + b"\n",
    "bom alone": BOM,
    "bom and newline": BOM + b"\n" + A,
    "bom and crlf": BOM + b"\r\n" + A,
    "half a bom": BOM[:2],
    "two boms": BOM + BOM + A + b"\n" + A,
    "bom in the middle": A + b"\n" + BOM + B + b"\n",
    "bom without end": BOM + A,
    "other line ends": A + b"\x0b\x0c\x85\xe2\x80\xa8\n" + B,
    "not utf-8": b"\xff\n\xfe\xff\n" + A,
    "mixed": BOM + A + b"\r\n\n" + b"x" * 70 + b"\n{}\n" + B + b"\r\n\r\n" + b"[1]",
}


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY.keys())
def test_every_chunk_size_from_one_byte_up_gives_the_same_lines(data: bytes) -> None:
    for chunk_bytes in range(1, len(data) + 2):
        found = list(itertools.chain.from_iterable(cut(data, chunk_bytes)))
        assert found == plain(data), chunk_bytes


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY.keys())
def test_a_line_is_given_by_the_chunk_in_which_its_first_byte_lies(data: bytes) -> None:
    for chunk_bytes in range(1, len(data) + 2):
        ranges = plan_ranges(len(data), chunk_bytes)
        for (start, end), lines in zip(ranges, cut(data, chunk_bytes), strict=True):
            assert all(start <= at < end for at, _ in lines), chunk_bytes


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY.keys())
def test_chunks_come_to_the_same_tasks_and_bad_lines_with_the_same_numbers(data: bytes) -> None:
    expected = [
        line
        for number, (at, raw) in enumerate(plain(data), 1)
        if (line := validate(raw, byte_offset=at, line=number)) is not None
    ]
    for chunk_bytes in range(1, len(data) + 2):
        found: list[GoodLine | BadLine] = []
        before = 0  # the number of a line is the sum of the chunks before, and its own in its chunk
        for limits in plan_ranges(len(data), chunk_bytes):
            chunk = read_chunk(Store(data).read, len(data), *limits)
            found += [
                GoodLine(t.byte_offset, before + t.line, t.data_url, t.metadata, t.text)
                for t in chunk.tasks
            ]
            found += [
                BadLine(b.byte_offset, before + b.line, b.code, b.message, b.raw) for b in chunk.bad
            ]
            before += chunk.lines
        assert sorted(found, key=lambda line: line.line) == expected, chunk_bytes
        assert before == len(plain(data))


@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from(
            [A, B, b"", b"\r", b"x", b" ", b"\n", b"\n\n", b"\r\n", BOM, b"\xff", b"\x00"]
        )
    ),
    st.integers(1, 80),
)
@example([A, b"\n"], len(A))
@example([A, b"\n"], len(A) + 1)
@example([b"\n", A], 1)
def test_any_manifest_in_any_cut_gives_the_lines_of_the_whole(
    parts: list[bytes], size: int
) -> None:
    data = b"".join(parts)
    assert list(itertools.chain.from_iterable(cut(data, size))) == plain(data)


@given(st.lists(st.sampled_from([A, B, HARD, b"", b"x", b"\xff"]), max_size=30))
@example([HARD, A, b"\xff", HARD, B])
def test_tasks_come_in_the_order_of_their_lines_however_each_was_judged(lines: list[bytes]) -> None:
    data = b"\n".join(lines) + b"\n"
    (batch,) = validate_lines(data, 0)
    expected = [at for at, raw in plain(data) if raw in {A, B, HARD}]
    assert batch.tasks["byte_offset"].to_list() == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("start", [b"", A + b"\n", b"\n"])
def test_a_line_of_about_1_mib_is_judged_the_same_in_every_cut(
    start: bytes, extra: int, end: bytes
) -> None:
    head, tail = b'{"data_url": "https://a.example.com/", "metadata": {"x": "', b'"}}'
    line = head + b"x" * (LINE_BYTES_MAX + extra - len(head) - len(tail)) + tail
    data = start + line + end + (B if end else b"")
    for chunk_bytes in (BLOCK - 1, BLOCK, MIB - 1, MIB, MIB + 1, MIB + 2, MIB + 3, 2 * MIB):
        ranges = plan_ranges(len(data), chunk_bytes)
        chunks = [read_chunk(Store(data).read, len(data), *limits) for limits in ranges]
        tasks = [task for chunk in chunks for task in chunk.tasks]
        bad = [line for chunk in chunks for line in chunk.bad]
        assert len(tasks) + len(bad) == 1 + start.startswith(A) + bool(end)
        assert [(b.byte_offset, b.code, b.raw) for b in bad] == (
            [(len(start), LineCode.LINE_TOO_LONG, line[:1024])] if extra > 0 else []
        )
        assert sum(chunk.lines for chunk in chunks) == len(plain(data))


@pytest.mark.parametrize("extra", [-1, 0, 1, 2, 3])
def test_a_first_line_of_about_1_mib_after_a_bom_is_judged_the_same_in_every_cut(
    extra: int,
) -> None:
    line = b" " * (LINE_BYTES_MAX + extra - len(A)) + A
    data = BOM + line + b"\r\n" + B
    for chunk_bytes in (MIB, 2 * MIB):
        first, *_ = plan_ranges(len(data), chunk_bytes)
        chunk = read_chunk(Store(data).read, len(data), *first)
        codes = [bad.code for bad in chunk.bad]
        assert codes == ([LineCode.LINE_TOO_LONG] if extra > 0 else []), chunk_bytes


@dataclass
class Endless:
    """One line of `size` bytes that is never held: what is asked for is made on the way."""

    size: int
    feed_every: int | None = None
    calls: list[tuple[int, int]] = field(default_factory=list)

    def read(self, start: int, end: int) -> bytes:
        self.calls.append((start, end))
        assert end - start <= 40 * MIB, "that much must not be asked for at once"
        block = bytearray(b"x" * (end - start))
        if self.feed_every:
            first = -start % self.feed_every
            block[first :: self.feed_every] = b"\n" * len(range(first, len(block), self.feed_every))
        return bytes(block)


THREE_GIB = 3 * 1024 * MIB


@pytest.mark.parametrize("chunk_bytes", [1, 1000, BLOCK, MIB, 32 * MIB])
def test_a_line_of_3_gib_is_never_read_further_than_1_mib_and_a_block(chunk_bytes: int) -> None:
    line = Endless(THREE_GIB)
    chunk = read_chunk(line.read, THREE_GIB, 0, chunk_bytes)
    assert [(b.line, b.code, b.raw) for b in chunk.bad] == [
        (1, LineCode.LINE_TOO_LONG, b"x" * 1024)
    ]
    assert (chunk.lines, chunk.tasks) == (1, [])
    assert max(end for _, end in line.calls) <= chunk_bytes + MIB + BLOCK
    assert sum(end - start for start, end in line.calls) <= chunk_bytes + MIB + BLOCK


@pytest.mark.parametrize("at", [1, 1000, MIB, THREE_GIB // 2, THREE_GIB - MIB])
def test_a_range_inside_of_it_has_no_line_and_reads_nothing_beyond_itself(at: int) -> None:
    line = Endless(THREE_GIB)
    assert read_chunk(line.read, THREE_GIB, at, at + MIB).lines == 0
    assert line.calls == [(at - 1, at + MIB)]


@settings(max_examples=60)
@given(
    st.integers(0, 4 * MIB),
    st.integers(1, 2 * MIB),
    st.sampled_from([None, 100, 5000, MIB - 1, MIB, MIB + 1, MIB + 2, MIB + 3, 3 * MIB]),
)
def test_no_range_of_any_manifest_reads_more_than_a_line_beyond_its_end(
    start: int, length: int, feed_every: int | None
) -> None:
    size = 7 * MIB
    end = start + length
    manifest = Endless(size, feed_every)
    for _ in cut_lines(manifest.read, size, start, end):
        pass
    assert all(max(start - 1, 0) <= first < after <= size for first, after in manifest.calls)
    assert max(after for _, after in manifest.calls) <= end + MIB + BLOCK
    assert all(after - first <= BLOCK for first, after in manifest.calls[1:])
    spans = sorted(manifest.calls)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), "nothing is read twice"


def test_a_line_that_ends_at_the_end_of_its_range_needs_no_second_read() -> None:
    data = A + b"\n" + B + b"\n"
    store = Store(data)
    assert list(cut_lines(store.read, len(data), 0, len(A) + 1)) == [(0, A)]
    assert store.calls == [(0, len(A) + 1)]


def test_what_the_store_raises_comes_through() -> None:
    def read(start: int, end: int) -> bytes:
        raise Transient("The store cannot be reached.")

    with pytest.raises(Transient):
        read_chunk(read, 100, 0, 50)


@given(st.integers(0, 10**8), st.integers(1, 10**7))
@example(0, 1)
@example(1, 1)
@example(MIB, 2 * MIB)
@example(MIB + 1, 2 * MIB)
def test_ranges_cover_the_manifest_without_gap_or_overlap(size: int, chunk_bytes: int) -> None:
    chunk_bytes = max(chunk_bytes, size // 500, 1)
    ranges = list(plan_ranges(size, chunk_bytes))
    assert [start for start, _ in ranges] == [0, *[end for _, end in ranges]][: len(ranges)]
    assert (ranges[-1][1] if ranges else 0) == size
    assert all(0 < end - start <= chunk_bytes for start, end in ranges)


@pytest.mark.parametrize("chunk_bytes", [MIB, 8 * MIB, 16 * MIB])
def test_the_first_chunk_is_small_since_the_others_wait_for_it(chunk_bytes: int) -> None:
    first, second, *_ = plan_ranges(100 * MIB, chunk_bytes)
    assert first == (0, MIB)
    assert second == (MIB, MIB + chunk_bytes)


@pytest.mark.parametrize(
    "size, in_flight, expected",
    [
        (0, 4, MIB),
        (1, 4, MIB),
        (16 * MIB, 4, MIB),
        (16 * MIB + 1, 4, MIB + 1),
        (32 * MIB, 4, 2 * MIB),
        (32 * MIB, 8, MIB),
        (512 * MIB, 4, 32 * MIB),
        (10**15, 4, 32 * MIB),
        (1024 * MIB, 1, 32 * MIB),
    ],
)
def test_chunks_are_enough_for_all_workers_within_the_bounds(
    size: int, in_flight: int, expected: int
) -> None:
    chunk_bytes = choose_chunk_bytes(
        size, in_flight=in_flight, chunk_bytes_min=MIB, chunk_bytes_max=32 * MIB
    )
    assert chunk_bytes == expected
