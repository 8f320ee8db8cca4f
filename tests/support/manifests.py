"""Manifests with a known outcome, written down line by line and not computed by the product."""

import json
import random
from dataclasses import dataclass, field

# Each bad line with the code that the HTTP contract gives it.
BAD_LINES: list[tuple[bytes, str]] = [
    (b'{"data_url": "https://img.example.com/cut.jpg"', "malformed_json"),
    (b'{"data_url": "https://img.example.com/nan.jpg", "metadata": {"x": NaN}}', "malformed_json"),
    (b"[1, 2, 3]", "not_an_object"),
    (b'"https://img.example.com/a.jpg"', "not_an_object"),
    (b'{"metadata": {"a": 1}}', "missing_data_url"),
    (b'{"data_url": "img.example.com/a.jpg"}', "invalid_data_url"),
    (b'{"data_url": "ftp://img.example.com/a.jpg"}', "invalid_data_url"),
    (b'{"data_url": 17}', "invalid_data_url"),
    (b'{"data_url": "https://img.example.com/a.jpg", "metadata": [1]}', "invalid_metadata"),
    (
        b'{"data_url": "https://a.example.com/", "data_url": "https://b.example.com/"}',
        "duplicate_key",
    ),
    (b'{"data_url": "https://img.example.com/\xff.jpg"}', "invalid_utf8"),
    (b'{"data_url": "https://img.example.com/a.jpg", "label": "cat"}', "unknown_field"),
]
# Metadata whose exact text must come out again: spacing, spelling of numbers, escapes, order of keys.
METADATA = [
    '{"b":1,"a":2}',
    '{ "n" : 1.10, "e": 1e5, "big": 12345678901234567890123456789012345678901234567890 }',
    '{"text":"caf\\u00e9 \\ud83d\\ude00","raw":"🦊\\t"}',
    '{"nested":{"list":[1,[2,[3,{"x":null}]]],"t":true}}',
    "{}",
    '{"dup":1,"dup":2}',
]

LINE_BYTES_MAX = 1024 * 1024


@dataclass
class Manifest:
    """`good` has (line, data_url, metadata text or None), `bad` has (line, byte_offset, code)."""

    data: bytes = b""
    good: list[tuple[int, str, str | None]] = field(default_factory=list)
    bad: list[tuple[int, int, str]] = field(default_factory=list)


def make_manifest(
    lines: int, *, bad_share: float = 0.01, seed: int = 1, padding_max: int = 0, hard: bool = False
) -> Manifest:
    """A manifest of that many lines, blank ones among them, some ending in CRLF.

    Metadata is padded by up to `padding_max` bytes. A `hard` one begins with a BOM, and has a line of the
    longest kind and one that is too long in it.
    """
    dice = random.Random(seed)
    manifest = Manifest()
    parts: list[bytes] = []
    offset = 0
    for line in range(1, lines + 1):
        raw = b"\xef\xbb\xbf" if hard and line == 1 else b""
        if hard and line in {lines // 3, lines // 2}:
            raw += _long_line(manifest, line, offset, too_long=line == lines // 2)
        else:
            raw += _line(manifest, line, offset, dice, bad_share, padding_max)
        raw += b"\r\n" if dice.random() < 0.02 else b"\n"
        parts.append(raw)
        offset += len(raw)
    manifest.data = b"".join(parts)
    return manifest


def _long_line(manifest: Manifest, line: int, offset: int, *, too_long: bool) -> bytes:
    data_url = f"https://img.example.com/{line % 7}/{line}.jpg"
    before, after = f'{{"data_url":"{data_url}","metadata":', "}"
    padding = LINE_BYTES_MAX - len(before) - len('{"a":""}') - len(after)
    metadata = f'{{"a":"{"x" * (padding + too_long)}"}}'
    if too_long:
        manifest.bad.append((line, offset, "line_too_long"))
    else:
        manifest.good.append((line, data_url, metadata))
    return f"{before}{metadata}{after}".encode()


def _line(
    manifest: Manifest,
    line: int,
    offset: int,
    dice: random.Random,
    bad_share: float,
    padding_max: int,
) -> bytes:
    chance = dice.random()
    if chance < bad_share:
        raw, code = dice.choice(BAD_LINES)
        manifest.bad.append((line, offset, code))
        return raw
    if chance < bad_share + 0.002:
        return dice.choice([b"", b"   ", b"\t"])
    data_url = f"https://img.example.com/{line % 7}/{line}.jpg"
    metadata = dice.choice([None, *METADATA, json.dumps({"line": line})])
    if padding_max:
        metadata = f'{{"padding": "{dice.randbytes(dice.randrange(padding_max) // 2).hex()}"}}'
    manifest.good.append((line, data_url, metadata))
    if metadata is None:
        return json.dumps({"data_url": data_url}).encode()
    return f'{{"data_url":"{data_url}","metadata":{metadata}}}'.encode()
