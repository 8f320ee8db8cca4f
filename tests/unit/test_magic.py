"""Customers' bytes are lines whatever they begin with: no library unpacks or decodes them."""

import bz2
import gzip
import lzma
import subprocess
import sys
import zlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.reading import fast_path
from tests.support import validation
from tests.support.reference import judge

MAGICS = {
    "gzip": b"\x1f\x8b\x08\x00",
    "zlib, fastest": b"\x78\x01",
    "zlib, fast": b"\x78\x5e",
    "zlib": b"\x78\x9c",
    "zlib, best": b"\x78\xda",
    "zlib with a dictionary": b"\x78\xbb",
    "zstd": b"\x28\xb5\x2f\xfd",
    "zstd, skippable": b"\x50\x2a\x4d\x18",
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\x00",
    "lzma": b"\x5d\x00\x00\x80\x00",
    "lz4": b"\x04\x22\x4d\x18",
    "lz4, legacy": b"\x02\x21\x4c\x18",
    "snappy": b"\xff\x06\x00\x00sNaPpY",
    "compress": b"\x1f\x9d\x90",
    "brotli": b"\xce\xb2\xcf\x81",
    "zip": b"PK\x03\x04",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "parquet": b"PAR1",
    "arrow": b"ARROW1\x00\x00",
    "avro": b"Obj\x01",
    "orc": b"ORC",
    "sqlite": b"SQLite format 3\x00",
    "utf-8": b"\xef\xbb\xbf",
    "utf-16": b"\xff\xfe",
    "utf-16, big": b"\xfe\xff",
    "utf-32": b"\xff\xfe\x00\x00",
    "tex": b"x^2 + y^2",
}
GOOD = b'{"data_url": "https://a.example/1.jpg", "metadata": {"n": 1}}'
TEXT = b"".join(b'{"data_url": "https://a.example/%d.jpg"}\n' % n for n in range(200))
PACKED = {
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "zlib": zlib.compress(TEXT),
    "zlib, fastest": zlib.compress(TEXT, 1),
    "zlib, best": zlib.compress(TEXT, 9),
    **{codec: pa.compress(TEXT, codec, asbytes=True) for codec in ("zstd", "lz4", "snappy")},
}


@pytest.mark.parametrize("name", MAGICS)
@pytest.mark.parametrize("rest", [b"", b" ", GOOD], ids=["alone", "a space", "a good line"])
def test_lines_chunks_and_batches_may_begin_with_any_magic(name: str, rest: bytes) -> None:
    odd = MAGICS[name] + rest
    data = b"\n".join([odd, GOOD, odd, odd, b"", GOOD, odd + b"\r", GOOD, odd])
    wanted = judge(data)
    assert validation.outcome(data) == wanted
    for chunk_bytes in (1, len(odd) + 1, len(odd) + len(GOOD) + 2):
        assert validation.outcome(data, chunk_bytes) == wanted
    for lines_max in (1, 2):
        found = validation.outcome_in_batches(data, bytes_max=64, lines_max=lines_max)
        assert found == wanted


@pytest.mark.parametrize("name", PACKED)
def test_no_line_is_read_out_of_packed_ones(name: str) -> None:
    for data in (PACKED[name], PACKED[name] + b"\n" + TEXT, TEXT + PACKED[name]):
        assert validation.outcome(data) == judge(data)
        assert validation.outcome(data, 100) == judge(data)


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd", "tex"])
def test_a_batch_of_full_size_may_end_before_a_magic(name: str) -> None:
    blank = b"\n" * fast_path._BATCH_LINES_MAX
    large = (b" " * 1023 + b"\n") * (fast_path._BATCH_BYTES_MAX // 1024)
    for before in (blank, large):
        data = before + MAGICS[name] + b"\n" + GOOD
        assert validation.outcome(data) == judge(data)


_LINES = st.lists(
    st.builds(
        lambda start, rest, end: (start + rest + end).replace(b"\n", b""),
        st.sampled_from([b"", *MAGICS.values()]),
        st.sampled_from([b"", GOOD, PACKED["gzip"], PACKED["zstd"]]) | st.binary(max_size=8),
        st.sampled_from([b"", b"\r", b"\r\r"]),
    ),
    max_size=12,
)


@given(_LINES, st.integers(1, 300), st.integers(1, 300), st.integers(1, 4))
def test_any_lines_come_to_what_the_reference_says(
    lines: list[bytes], chunk_bytes: int, bytes_max: int, lines_max: int
) -> None:
    data = b"\n".join(lines)
    wanted = judge(data)
    assert validation.outcome(data, chunk_bytes) == wanted
    assert validation.outcome_in_batches(data, bytes_max=bytes_max, lines_max=lines_max) == wanted


_PEAK_OF_A_BOMB = """
import resource, sys
from flows.reading.fast_path import validate_lines

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

list(validate_lines(b"{}", 0))
before = peak_kib()
list(validate_lines(sys.stdin.buffer.read(), 0))
print(peak_kib() - before)
"""


def test_a_bomb_among_the_lines_does_not_grow() -> None:
    bomb = pa.compress(bytes(256 * 1024 * 1024), "zstd", asbytes=True)
    assert len(bomb) < 64 * 1024
    run = [sys.executable, "-c", _PEAK_OF_A_BOMB]
    grown_kib = subprocess.run(run, input=bomb, check=True, timeout=60, stdout=subprocess.PIPE)
    assert int(grown_kib.stdout) < 32 * 1024
