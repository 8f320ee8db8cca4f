"""Search for secrets where none may be: in any of the forms that a program may write them in.

A search that finds nothing proves nothing by itself, so `tests/unit/test_canaries.py` plants a secret in
each form, and each test that searches a place for a secret searches it for something that is there too.
"""

import base64
import binascii
import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, quote_plus

import psycopg
import pyarrow as pa
from psycopg import sql

Place = tuple[str, bytes]
"""What a place is called, and what is in it."""

_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_DEPTH_MAX = 3
_UNPACKED_BYTES_MAX = 64 * 2**20
# A shorter piece of base 64 is found anywhere.
_SECRET_BYTES_MIN = 12


@cache
def forms(secret: str) -> dict[str, list[bytes]]:
    """The ways to write a secret, by name, each as the bytes to look for."""
    raw = secret.encode()
    assert len(raw) >= _SECRET_BYTES_MIN, "a secret as short as this is found by chance"
    digits = raw.hex()
    escaped = "".join(rf"\u{unit:04x}" for unit in _utf_16_units(secret))
    return {
        "raw": [raw],
        "JSON": [json.dumps(secret)[1:-1].encode(), json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
                 escaped.encode(), json.dumps(secret)[1:-1].replace("/", r"\/").encode()],
        "hex": [digits.encode(), digits.upper().encode()],
        "escaped bytes": [repr(raw)[2:-1].encode(), "".join(rf"\x{byte:02x}" for byte in raw).encode()],
        "base64": list(_base_64(raw)),
        "URL": [
            each.encode()
            for whole in (quote(secret, safe=""), quote(secret), quote_plus(secret))
            for each in (whole, _lower_escapes(whole))
        ] + ["".join(f"%{byte:02X}" for byte in raw).encode(),
             "".join(f"%{byte:02x}" for byte in raw).encode()],
        "UTF-16": [secret.encode("utf-16-le"), secret.encode("utf-16-be")],
    }  # fmt: skip


def _utf_16_units(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2)]


def _base_64(raw: bytes) -> Iterator[bytes]:
    """A secret in base 64 inside of something longer, at each of the three places of a group."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw)
        start = (before * 8 + 5) // 6  # characters before have bits of what stands before
        end = (before + len(raw)) * 8 // 6  # those after, of what stands behind
        yield whole[start:end]
        yield whole[start:end].translate(bytes.maketrans(b"+/", b"-_"))


def _lower_escapes(url: str) -> str:
    parts = url.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def find(secret: str, haystack: bytes) -> set[str]:
    """The names of the forms that the secret has somewhere in the haystack, also in compressed parts."""
    needles = {needle: name for name, ways in reversed(forms(secret).items()) for needle in ways}
    return {
        f"{name}{inside}"
        for text, inside in _unpacked(haystack, _DEPTH_MAX)
        for needle, name in needles.items()
        if needle in text
    }


def _unpacked(data: bytes, depth: int) -> Iterator[tuple[bytes, str]]:
    """The data itself, and what looks like compressed parts of it, unpacked, and the same of those."""
    yield data, ""
    if depth:
        for kind, part in _parts(data):
            for text, inside in _unpacked(part, depth - 1):
                yield text, f" in {kind}{inside}"


def _parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    for start in _places(data, _GZIP):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            yield "gzip", unpacker.decompress(data[start:], _UNPACKED_BYTES_MAX)
        except zlib.error:
            continue
    for start in _places(data, _ZSTD):
        yield "zstd", _unpack_zstd(data[start:])
    for start in _places(data, rb"\x1f8b08"):  # bytea as text
        yield "hex", _from_hex(data[start + 2 :])


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 1)


def _unpack_zstd(data: bytes) -> bytes:
    """The beginning of a frame, unpacked; nothing of what is none."""
    found = b""
    try:
        frame = data[: _zstd_frame_bytes(data)]
        with pa.CompressedInputStream(pa.BufferReader(frame), "zstd") as stream:
            while len(found) < _UNPACKED_BYTES_MAX and (block := stream.read(2**20)):
                found += block
    except (OSError, IndexError):
        pass
    return found


def _zstd_frame_bytes(data: bytes) -> int:
    """How long a frame is (RFC 8878): pyarrow refuses all of it if something follows that is none."""
    flags = data[4]
    is_single = flags >> 5 & 1
    at = 5 + (1 - is_single) + (0, 1, 2, 4)[flags & 3] + (is_single, 2, 4, 8)[flags >> 6]
    is_last = False
    while not is_last:
        block = int.from_bytes((data[at], data[at + 1], data[at + 2]), "little")
        is_last, is_repeated = bool(block & 1), block >> 1 & 3 == 1
        at += 3 + (1 if is_repeated else block >> 3)
    return at + 4 * (flags >> 2 & 1)


def _from_hex(data: bytes) -> bytes:
    length = next((n for n, byte in enumerate(data) if byte not in b"0123456789abcdef"), len(data))
    return binascii.unhexlify(data[: length - length % 2])


def places_of(secrets: Mapping[str, str], places: Iterable[Place]) -> list[str]:
    """Where secrets are, each as `what: where (in which form)`; the places must have something in them."""
    found, seen = [], 0
    for place, content in places:
        seen += len(content)
        for what, secret in secrets.items():
            found += [f"{what}: {place} ({form})" for form in sorted(find(secret, content))]
    assert seen, "there is nothing to search"
    return found


def in_database(url: str, without: Sequence[str] = ()) -> Iterator[Place]:
    """Each column of each table of a database, its rows behind each other: bytes as they are, others as text."""
    tables = (
        "select table_schema, table_name from information_schema.tables "
        "where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')"
    )
    with psycopg.connect(url) as connection:
        for schema, table in connection.execute(tables).fetchall():
            rows = connection.execute(
                sql.SQL("select * from {}").format(sql.Identifier(schema, table))
            )
            columns = [each.name for each in rows.description or ()]
            values = [*zip(*rows.fetchall(), strict=True)]
            for column, cells in zip(columns, values, strict=False):
                if f"{table}.{column}" not in without:
                    yield f"{table}.{column}", b"\n".join(map(_as_bytes, cells))


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return codecs.encode(text, "utf-8", "surrogatepass")


def in_folder(folder: Path, without: Sequence[str] = ()) -> Iterator[Place]:
    """Each file below a folder, but for those below the folders or files of it that are named."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and inside.parts[0] not in without:
            yield str(inside), path.read_bytes()


def compress(data: bytes, kind: str) -> bytes:
    """Pack, for a test of what is found in packed data."""
    if kind == "gzip":
        return gzip.compress(data)
    return cast(bytes, pa.Codec("zstd").compress(data, asbytes=True))
