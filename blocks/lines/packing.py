"""Compress what is stored in bulk, with a checksum.

    1 byte    the layout, 1
    4 bytes   CRC-32 of all that follows
    4 bytes   bytes of the rest before it was compressed
    the rest  zstd

Numbers are little-endian and unsigned.
"""

import struct
import zlib
from collections.abc import Mapping

import pyarrow as pa

_LAYOUT = 1
_HEAD = struct.Struct("<BII")
_SIZE_BYTES = 4
_ZSTD = pa.Codec("zstd")


class CorruptContent(ValueError):
    """The bytes are not those that were packed."""


def pack(raw: bytes) -> bytes:
    """Return `raw` compressed. Equal bytes give equal bytes."""
    packed: bytes = _ZSTD.compress(raw, asbytes=True)
    size = struct.pack("<I", len(raw))
    return _HEAD.pack(_LAYOUT, zlib.crc32(packed, zlib.crc32(size)), len(raw)) + packed


def count_bytes(content: bytes) -> int:
    """Return how many bytes the content has unpacked, by its own words; 0 if it is too short."""
    return _HEAD.unpack_from(content)[2] if len(content) >= _HEAD.size else 0


def find_corrupt(contents: Mapping[int, bytes]) -> int | None:
    """Return the key of the first content that is corrupt."""
    for key, content in contents.items():
        try:
            unpack(content)
        except CorruptContent:
            return key
    return None


def unpack(content: bytes) -> memoryview:
    """Return what was packed.

    Raises:
        CorruptContent: it was something else.
    """
    if len(content) < _HEAD.size:
        raise CorruptContent("it is too short")
    layout, checksum, size = _HEAD.unpack_from(content)
    if layout != _LAYOUT:
        raise CorruptContent(f"its layout is {layout}")
    if zlib.crc32(memoryview(content)[_HEAD.size - _SIZE_BYTES :]) != checksum:
        raise CorruptContent("its checksum is wrong")
    return memoryview(_ZSTD.decompress(memoryview(content)[_HEAD.size :], size))
