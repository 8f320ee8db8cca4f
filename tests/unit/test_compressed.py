"""A compressed manifest is cut into the chunks that its text would be cut into, and no bomb goes off."""

import gzip
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.errors import ManifestCorrupt, ManifestTooLarge, RefineryError, Transient
from blocks.lines.magic import Codec, codec_of
from blocks.lines.validated_lines import Counted
from flows.reading.compressed import read_chunks
from flows.reading.ranges import plan_ranges, read_lines
from tests.support.manifests import make_manifest

MIB = 1024 * 1024
TEXT = make_manifest(3000, bad_share=0.05).data
SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"  # a zstd frame that decoders pass over

Chunks = list[tuple[int, int, bytes, Counted]]


def zstd(text: bytes) -> bytes:
    return bytes(pa.compress(text, codec="zstd", asbytes=True))


def chunks(data: bytes, codec: Codec, chunk_bytes: int, bytes_max: int = 1 << 40) -> Chunks:
    found = read_chunks(
        lambda start, end: data[start:end],
        len(data),
        codec,
        chunk_bytes=chunk_bytes,
        bytes_max=bytes_max,
    )
    return list(found)


def plain(text: bytes, chunk_bytes: int) -> Chunks:
    ranges = plan_ranges(len(text), chunk_bytes)
    read = [read_lines(lambda start, end: text[start:end], len(text), *limits) for limits in ranges]
    return [(number, at, lines, counted) for number, (at, lines, counted) in enumerate(read)]


SHAPES: dict[str, tuple[bytes, Codec]] = {
    "gzip": (gzip.compress(TEXT), "gzip"),
    "gzip of many members": (b"".join(gzip.compress(TEXT[n : n + 7001]) for n in range(0, len(TEXT), 7001)), "gzip"),
    "gzip with empty members": (gzip.compress(b"") + gzip.compress(TEXT) + gzip.compress(b""), "gzip"),
    "zstd": (zstd(TEXT), "zstd"),
    "zstd of many frames": (b"".join(zstd(TEXT[n : n + 7001]) for n in range(0, len(TEXT), 7001)), "zstd"),
    "zstd with skippable frames": (SKIPPABLE + zstd(TEXT) + SKIPPABLE, "zstd"),
}  # fmt: skip


@pytest.mark.parametrize("chunk_bytes", [1000, 65_536, 100_003, len(TEXT) - 1, len(TEXT), 8 * MIB])
@pytest.mark.parametrize("data, codec", SHAPES.values(), ids=SHAPES.keys())
def test_the_chunks_are_those_of_the_text(data: bytes, codec: Codec, chunk_bytes: int) -> None:
    assert chunks(data, codec, chunk_bytes) == plain(TEXT, chunk_bytes)


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"bcd\n", b"\r\n", b"\xef\xbb\xbf"])), st.integers(1, 9)
)
def test_so_they_are_for_any_text_and_size(parts: list[bytes], chunk_bytes: int) -> None:
    text = b"".join(parts)
    assert chunks(gzip.compress(text), "gzip", chunk_bytes) == plain(text, chunk_bytes)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_an_object_of_no_bytes_has_no_chunks(codec: Codec) -> None:
    assert chunks(b"", codec, 1000) == []


@pytest.mark.parametrize(
    "data, codec",
    [
        (gzip.compress(TEXT)[:-1], "gzip"),
        (gzip.compress(TEXT)[: len(TEXT) // 20], "gzip"),
        (gzip.compress(TEXT) + b"and more", "gzip"),
        (gzip.compress(TEXT)[:-8] + bytes(4) + gzip.compress(TEXT)[-4:], "gzip"),  # its checksum
        (TEXT, "gzip"),
        (zstd(TEXT), "gzip"),
        (zstd(TEXT)[:-1], "zstd"),
        (zstd(TEXT) + b"and more", "zstd"),
        (TEXT, "zstd"),
        (gzip.compress(TEXT), "zstd"),
    ],
)
def test_what_is_damaged_or_something_else_is_said_to_be(data: bytes, codec: Codec) -> None:
    with pytest.raises(ManifestCorrupt, match=codec):
        chunks(data, codec, 8 * MIB)


def test_a_text_may_be_as_long_as_allowed_and_no_longer() -> None:
    data = gzip.compress(TEXT)
    assert chunks(data, "gzip", 10_000, bytes_max=len(TEXT))
    with pytest.raises(ManifestTooLarge):
        chunks(data, "gzip", 10_000, bytes_max=len(TEXT) - 1)


@pytest.mark.parametrize("text", [bytes(200 * MIB), b"\n" * (200 * MIB)], ids=["nul", "line feeds"])
def test_a_bomb_is_refused_before_it_fills_the_memory(text: bytes) -> None:
    data = zstd(text)
    assert len(text) > 1000 * len(data)
    tracemalloc.start()
    with pytest.raises(ManifestTooLarge, match="1000 times"):
        for _ in read_chunks(
            lambda start, end: data[start:end],
            len(data),
            "zstd",
            chunk_bytes=MIB,
            bytes_max=1 << 40,
        ):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * MIB


def test_a_line_of_50_mib_is_passed_over_in_the_memory_of_a_chunk() -> None:
    data = zstd(b"first\n" + b"x" * (50 * MIB) + b"\nlast\n")
    tracemalloc.start()
    read = read_chunks(
        lambda start, end: data[start:end], len(data), "zstd", chunk_bytes=MIB, bytes_max=1 << 40
    )
    found = [(lines[:7], lines[-5:], len(lines)) for _, _, lines, _ in read if lines]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(head, tail) for head, tail, _ in found] == [
        (b"first\nx", b"xxxxx"),
        (b"last\n", b"last\n"),
    ]
    assert found[0][2] < 3 * MIB
    assert peak < 40 * MIB


def test_what_the_store_raises_comes_through() -> None:
    def read(start: int, end: int) -> bytes:
        raise Transient("The store cannot be reached.")

    with pytest.raises(Transient):
        list(read_chunks(read, 100, "gzip", chunk_bytes=1000, bytes_max=1000))


def test_a_read_that_fails_for_a_time_can_be_repeated_without_a_new_start() -> None:
    data = gzip.compress(TEXT)
    calls: list[int] = []

    def read(start: int, end: int) -> bytes:
        calls.append(start)
        return data[start:end]

    found = read_chunks(read, len(data), "gzip", chunk_bytes=10_000, bytes_max=1 << 40)
    assert list(found) == plain(TEXT, 10_000)
    assert calls == sorted(set(calls)), "every byte is read once, in order"


@pytest.mark.parametrize(
    "key, codec",
    [("a.jsonl.gz", "gzip"), ("a.zst", "zstd"), ("a.jsonl", None), ("a.gz/b", None), ("gz", None)],
)
def test_the_name_says_how_an_object_is_compressed(key: str, codec: Codec | None) -> None:
    assert codec_of(key) == codec


def test_both_refusals_are_final() -> None:
    assert issubclass(ManifestCorrupt, RefineryError)
    assert not issubclass(ManifestCorrupt, Transient)
    assert not issubclass(ManifestTooLarge, Transient)
