"""The search for secrets: each form of one is found where it was planted, and nothing where it was not."""

import base64
import json
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.support.canaries import compress, find, forms, in_folder, places_of

SECRET = 'canary/0f+9a"8b &ü=7c'
PLAIN = "sk_n1v6o3Xk-Jq_8s2wTZrY5w"


def encoded(encode: Callable[[bytes], bytes], before: int, text: str) -> bytes:
    """A text inside of something longer that is encoded."""
    return encode(b"x" * before + text.encode() + b"yz")


WAYS: dict[str, Callable[[str], bytes]] = {
    "raw": lambda text: text.encode(),
    "JSON": lambda text: json.dumps({"a": text}).encode(),
    "JSON of JSON in UTF-8": lambda text: json.dumps([text], ensure_ascii=False).encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    "repr": lambda text: repr(text.encode()).encode(),
    "URL": lambda text: quote(text, safe="").encode(),
    "a form": lambda text: quote_plus(text).encode(),
    "a lower-case URL": lambda text: b"".join(b"%%%02x" % byte for byte in text.encode()),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 BE": lambda text: text.encode("utf-16-be"),
    **{f"base64 after {n} bytes": partial(encoded, base64.b64encode, n) for n in range(6)},
    **{
        f"url-safe base64 after {n} bytes": partial(encoded, base64.urlsafe_b64encode, n)
        for n in range(3)
    },
}


@pytest.mark.parametrize("secret", [SECRET, PLAIN])
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_however_it_is_written(secret: str, way: str) -> None:
    planted = secrets.token_bytes(1000) + WAYS[way](secret) + secrets.token_bytes(1000)
    assert find(secret, planted)
    assert find(secret[:-1] + "!", planted) == set()


@pytest.mark.parametrize("kinds", [["gzip"], ["zstd"], ["gzip", "zstd"], ["zstd", "gzip", "zstd"]])
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_in_what_is_compressed(kinds: list[str], way: str) -> None:
    planted = b"before" * 20 + WAYS[way](SECRET) + b"after" * 20
    for kind in kinds:
        planted = secrets.token_bytes(100) + compress(planted, kind) + secrets.token_bytes(100)
    inside = "".join(f" in {kind}" for kind in reversed(kinds))
    # Short texts are legible in a packed form too.
    assert [form for form in find(SECRET, planted) if form.endswith(inside)]
    assert find(PLAIN, planted) == set()


def test_compressed_bytes_in_a_dump_as_text_are_unpacked() -> None:
    dump = (
        rb"insert into pages values ('\x"
        + compress(SECRET.encode(), "gzip").hex().encode()
        + b"');"
    )
    assert find(SECRET, dump) == {"raw in hex in gzip"}


def test_rubbish_that_begins_like_something_compressed_is_passed_over() -> None:
    rubbish = b"\x1f\x8b\x08\x00 no gzip \x28\xb5\x2f\xfd no zstd " + rb"\x1f8b08z"
    assert find(SECRET, rubbish + SECRET.encode()) == {"raw"}


def test_every_form_is_one_that_a_test_plants() -> None:
    found = {form for way in WAYS.values() for form in find(SECRET, way(SECRET))}
    assert found == set(forms(SECRET))


def test_a_secret_that_would_be_found_by_chance_is_refused() -> None:
    with pytest.raises(AssertionError, match="by chance"):
        find("cat", b"cat")


def test_places_are_named_and_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.log").write_bytes(b"key=" + PLAIN.encode())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_bytes(PLAIN.encode())
    assert places_of({"a key": PLAIN}, in_folder(tmp_path, ["data"])) == [
        "a key: logs/api.log (raw)"
    ]
    with pytest.raises(AssertionError, match="nothing to search"):
        places_of({"a key": PLAIN}, [("logs", b"")])
