"""Answers that are compressed while they are made."""

import zlib
from collections.abc import Generator

import pyarrow as pa
import pytest

from api.http.encodings import Encoding, choose, compress

BLOCKS = [b'{"line":1}\n', b'{"line":2}\n' * 1000, b'{"line":3}\n']


@pytest.mark.parametrize(
    "accepted, chosen",
    [
        ("", None),
        ("identity", None),
        ("br, deflate", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip ; q=0.2,identity;q=0.1", "gzip"),
        ("gzip;q=0.1, identity;q=0.2", None),
        ("gzip;q=0", None),
        ("gzip;q=much", None),
        ("*", "zstd"),
        ("*, zstd;q=0", "gzip"),
        ("x-gzip-like, gzipped", None),
        (",;=,", None),
    ],
)
def test_the_encoding_is_the_one_that_the_client_likes_best(
    accepted: str, chosen: str | None
) -> None:
    assert choose(accepted) == chosen


@pytest.mark.parametrize("encoding", Encoding)
def test_a_client_has_all_of_a_block_before_the_next_is_made(encoding: Encoding) -> None:
    made = []

    def make() -> Generator[bytes, None, None]:
        for block in BLOCKS:
            made.append(block)
            yield block

    received = b""
    for piece in compress(make(), encoding):
        received += piece
        assert _decompress_begun(received, encoding) == b"".join(made)
    whole = pa.CompressedInputStream(pa.BufferReader(received), encoding.value)
    assert whole.read() == b"".join(BLOCKS)


def _decompress_begun(data: bytes, encoding: Encoding) -> bytes:
    """What can be read of a stream that may not have ended yet."""
    if encoding is Encoding.GZIP:
        return zlib.decompressobj(31).decompress(data)
    stream = pa.CompressedInputStream(pa.BufferReader(data), "zstd")
    found = b""
    while some := _read_on(stream):
        found += some
    return found


def _read_on(stream: pa.CompressedInputStream) -> bytes:
    try:
        return bytes(stream.read(1))
    except OSError:  # the end is missing
        return b""


@pytest.mark.parametrize("encoding", Encoding)
def test_a_body_of_nothing_is_a_whole_stream(encoding: Encoding) -> None:
    nothing: list[bytes] = []
    received = b"".join(compress((block for block in nothing), encoding))
    assert pa.CompressedInputStream(pa.BufferReader(received), encoding.value).read() == b""


def test_what_is_compressed_is_closed_with_it() -> None:
    blocks = (block for block in BLOCKS)
    pieces = compress(blocks, Encoding.GZIP)
    next(pieces)
    pieces.close()
    assert next(blocks, None) is None
