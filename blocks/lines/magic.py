"""Formats of manifests: the name decides how one is decompressed; its first bytes explain refusals."""

from blocks.domain.model import BadLine, Compression, LineCode

_READ_BY_NAME = {b"\x1f\x8b": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
_NOT_READ = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"Obj\x01": "avro",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# Text may begin with these bytes too, so they count only where the line is not text.
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def codec_of(key: str) -> Compression | None:
    """Return how an object of that name, in letters of any case, is compressed; None if it is not."""
    name = key.lower()
    return next((codec for codec in _READ_BY_NAME.values() if name.endswith(codec.suffix)), None)


def hint(first: BadLine) -> str | None:
    """Return a sentence on the format that a manifest seems to have, by its first bad line, or None."""
    if first.byte_offset != 0:
        return None
    for start, codec in _READ_BY_NAME.items():
        if first.raw.startswith(start):
            return f"It begins like {codec}; name the object {codec.suffix}."
    names = [name for start, name in _NOT_READ.items() if first.raw.startswith(start)]
    if first.code is LineCode.INVALID_UTF8 and first.raw.startswith(_ZLIB):
        names = ["zlib"]
    if not names:
        return None
    if names[0] == "UTF-16":
        return "It begins like UTF-16, which is not supported; use UTF-8."
    return f"It begins like {names[0]}, which is not supported; use gzip or zstd."
