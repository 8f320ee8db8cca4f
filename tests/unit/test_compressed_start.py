"""The first text of compressed manifests."""

import gzip
import random
import tracemalloc

import pyarrow as pa
import pytest

from blocks.domain.errors import ManifestCorrupt
from blocks.domain.model import Compression
from blocks.lines.compressed_start import decompress_start

MOST = 64 * 1024
FIRST = 256 * 1024


def compress(text: bytes, codec: Compression) -> bytes:
    if codec is Compression.GZIP:
        return gzip.compress(text)
    return bytes(pa.Codec("zstd").compress(text, asbytes=True))


CODECS = pytest.mark.parametrize("codec", [Compression.GZIP, Compression.ZSTD])


@CODECS
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, MOST - 1, MOST, MOST + 1, 10 * MOST])
def test_the_text_is_read_to_its_end_or_to_the_bound(codec: Compression, size: int) -> None:
    text = random.Random(size).randbytes(size)
    found = decompress_start(compress(text, codec), codec, has_more=False, bytes_max=MOST)
    assert found == (text[:MOST], size <= MOST)


@CODECS
def test_members_that_follow_each_other_are_one_text(codec: Compression) -> None:
    compressed = compress(b"one\n", codec) + compress(b"two\n", codec)
    found = decompress_start(compressed, codec, has_more=False, bytes_max=MOST)
    assert found == (b"one\ntwo\n", True)


@CODECS
def test_of_a_long_manifest_the_first_bytes_are_enough(codec: Compression) -> None:
    text = random.Random(1).randbytes(3 * FIRST)
    first = compress(text, codec)[:FIRST]
    found = decompress_start(first, codec, has_more=True, bytes_max=MOST)
    assert found == (text[:MOST], False)


@CODECS
def test_a_bomb_comes_to_nothing(codec: Compression) -> None:
    bomb = compress(bytes(256 * 1024 * 1024), codec)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    found = decompress_start(bomb[:FIRST], codec, has_more=True, bytes_max=MOST)
    assert len(found.text) == MOST
    assert tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before < 4 * FIRST
    tracemalloc.stop()


@CODECS
@pytest.mark.parametrize("damage", ["no such data", "cut short", "changed"])
def test_what_is_damaged_is_told(codec: Compression, damage: str) -> None:
    good = compress(b"abc\n" * 1000, codec)
    bad = {"no such data": b"{}\n" * 99, "cut short": good[:-9], "changed": b"\0" * 4 + good[4:]}
    with pytest.raises(ManifestCorrupt, match=f"not valid {codec} data"):
        decompress_start(bad[damage], codec, has_more=False, bytes_max=MOST)
