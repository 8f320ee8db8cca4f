"""What a manifest comes to by the rules, slowly and with the standard library alone.

Nothing of the product is imported, so that both of its paths, the exact one and the vectorised
one, can be held to this. Where it does not know better, it refuses to answer: `UndecidedError`.
"""

import ipaddress
import re
import string
from collections.abc import Generator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

LINE_BYTES_MAX = 1024 * 1024
RAW_BYTES_OF_TOO_LONG = 1024
URL_CHARACTERS_MAX = 2048
BOM = b"\xef\xbb\xbf"

# WHATWG judges a host that is not plain ASCII, or has Punycode in it, by tables of Unicode, which
# the standard library does not have. A person looked these up: UTS #46 with CheckBidi and
# CheckJoiners, transitional processing off, no limits on a label's length.
HOSTS_JUDGED_BY_HAND = {
    "bücher.example": True,
    "b%C3%BCcher.example": True,
    "BÜCHER.example": True,
    "faß.example": True,  # ß stays
    "例え.テスト": True,
    "אב.example": True,  # right to left throughout
    "☃.example": True,  # UTS #46 allows symbols
    "😀.example": True,
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11": True,  # full-width digits are mapped to ASCII: 127.0.0.1
    "a。b": True,  # the ideographic full stop separates labels
    "a\u00adb.example": True,  # a soft hyphen is ignored
    "xn--bcher-kva.example": True,
    "XN--BCHER-KVA.example": True,
    "\uff12\uff15\uff16.1.1.1": False,  # mapped to 256.1.1.1
    "\u00ad": False,  # ignored, and nothing is left
    "\u200b": False,  # likewise
    "%E2%80%8B": False,
    "a\u200db.example": False,  # a joiner where nothing can be joined
    "\u0301a.example": False,  # a label must not begin with a combining mark
    "a\uff0fb.example": False,  # mapped to a slash
    "a\uff0541.example": False,  # mapped to a percent sign
    "אa.example": False,  # right to left, then left to right
    "\ue000.example": False,  # private use
    "xn--a": False,  # no Punycode
    "xn--": False,
}


class UndecidedError(Exception):
    """The reference does not know whether WHATWG accepts the host; judge it by hand."""


class Good(NamedTuple):
    """A line that becomes a task; `line` is 1-based in the manifest, `metadata` verbatim."""

    byte_offset: int
    line: int
    data_url: str | None
    metadata: str | None
    text: str | None = None


class Bad(NamedTuple):
    """A line that does not, with the bytes that are kept of it."""

    byte_offset: int
    line: int
    code: str
    raw: bytes


class Outcome(NamedTuple):
    """What a whole manifest comes to, in its order; `lines` counts blank ones too."""

    lines: int
    good: list[Good]
    bad: list[Bad]


def judge(manifest: bytes, *, takes_text: bool = False) -> Outcome:
    """What a whole manifest comes to; `takes_text`: a line may have a text instead of a URL.

    Raises:
        UndecidedError: a line that is right otherwise has a host that is beyond the reference.
    """
    pieces = manifest.split(b"\n")
    if pieces[-1] == b"":  # after the last line feed there is no line
        pieces.pop()
    outcome = Outcome(len(pieces), [], [])
    byte_offset = 0
    for number, piece in enumerate(pieces, 1):
        line = piece.removeprefix(BOM) if number == 1 else piece
        found = judge_line(line, byte_offset, number, takes_text=takes_text)
        if isinstance(found, Good):
            outcome.good.append(found)
        elif found is not None:
            outcome.bad.append(found)
        byte_offset += len(piece) + 1
    return outcome


def judge_line(
    line: bytes, byte_offset: int = 0, number: int = 1, *, takes_text: bool = False
) -> Good | Bad | None:
    """What one line comes to, without its line feed and byte order mark; None for a blank one."""
    line = line.removesuffix(b"\r")
    if len(line) > LINE_BYTES_MAX:  # before blanks: nobody reads on to see whether it is all blank
        return Bad(byte_offset, number, "line_too_long", line[:RAW_BYTES_OF_TOO_LONG])
    if all(byte in b" \t\r" for byte in line):
        return None
    try:
        text = line.decode("utf-8", errors="strict")
    except UnicodeDecodeError:
        return Bad(byte_offset, number, "invalid_utf8", line)
    found = _judge_text(text, takes_text=takes_text)
    if isinstance(found, str):
        return Bad(byte_offset, number, found, line)
    metadata = found.get("metadata")
    return Good(
        byte_offset,
        number,
        found["data_url"].string if "data_url" in found else None,
        text[metadata.start : metadata.end] if metadata else None,
        found["text"].string if "text" in found else None,
    )


def _judge_text(  # noqa: PLR0911 – a list of rules
    text: str, *, takes_text: bool
) -> "str | dict[str, Value]":
    """The code of a bad line, the fields of a good one."""
    try:
        value = parse(text)
    except NotJsonError:
        return "malformed_json"
    if value.members is None:
        return "not_an_object"
    keys = {key for key, _ in value.members}
    if len(keys) < len(value.members):
        return "duplicate_key"
    known = {"data_url", "metadata", *(["text"] if takes_text else [])}
    if not keys & known - {"metadata"}:
        return "missing_data_url"
    if not keys <= known:
        return "unknown_field"
    if {"data_url", "text"} <= keys:
        return "invalid_text"
    fields = dict(value.members)
    if "data_url" in fields and not is_data_url(fields["data_url"].string or ""):
        return "invalid_data_url"
    if "text" in fields and not is_text(fields["text"].string or ""):
        return "invalid_text"
    if "metadata" in fields and fields["metadata"].members is None:
        return "invalid_metadata"
    return fields


def is_text(text: str) -> bool:
    """Whether it is of more than blanks, and can be stored."""
    return any(letter not in " \t\r\n" for letter in text) and "\0" not in text


class NotJsonError(Exception):
    """The text is not one JSON value by RFC 8259."""


class Value(NamedTuple):
    """One JSON value, `text[start:end]`; `string` is None unless it is one, and so `members`."""

    start: int
    end: int
    string: str | None = None
    members: "list[tuple[str, Value]] | None" = None


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')  # what stands for itself in a string
_ESCAPES = dict(zip('"\\/bfnrt', '"\\/\b\f\n\r\t', strict=True))

# A function of the grammar yields a function that it calls, and is sent what that one returned. So
# the calls are on a list instead of the stack of the machine, and may be nested to any depth.
_Call = Generator[Any, Any, Value]


def parse(text: str) -> Value:
    """The JSON value that `text` is, with space around it.

    Raises:
        NotJsonError: it is not JSON.
    """
    calls: list[_Call] = [_value(text, _skip_space(text, 0))]
    returned: Value | None = None
    while calls:
        try:
            calls.append(calls[-1].send(returned))
            returned = None
        except StopIteration as stop:
            calls.pop()
            returned = stop.value
    if returned is None or _skip_space(text, returned.end) != len(text):
        raise NotJsonError
    return returned


def _value(text: str, at: int) -> _Call:
    if text.startswith(("{", "["), at):
        value: Value = yield _object(text, at) if text[at] == "{" else _array(text, at)
        return value
    if text.startswith('"', at):
        return _string(text, at)
    for literal in ("true", "false", "null"):
        if text.startswith(literal, at):
            return Value(at, at + len(literal))
    number = _NUMBER.match(text, at)
    if number is None:
        raise NotJsonError
    return Value(at, number.end())


def _object(text: str, start: int) -> _Call:
    members: list[tuple[str, Value]] = []
    at = _skip_space(text, start + 1)
    if text.startswith("}", at):
        return Value(start, at + 1, members=members)
    while True:
        key = _string(text, at)
        at = _expect(":", text, _skip_space(text, key.end))
        value = yield _value(text, _skip_space(text, at))
        members.append((key.string or "", value))
        at = _skip_space(text, value.end)
        if text.startswith("}", at):
            return Value(start, at + 1, members=members)
        at = _skip_space(text, _expect(",", text, at))


def _array(text: str, start: int) -> _Call:
    at = _skip_space(text, start + 1)
    if text.startswith("]", at):
        return Value(start, at + 1)
    while True:
        value = yield _value(text, at)
        at = _skip_space(text, value.end)
        if text.startswith("]", at):
            return Value(start, at + 1)
        at = _skip_space(text, _expect(",", text, at))


def _string(text: str, start: int) -> Value:
    at = _expect('"', text, start)
    units: list[str] = []
    while not text.startswith('"', at):
        plain = _PLAIN.match(text, at)
        if plain is not None and plain.end() > at:
            units.append(plain[0])
            at = plain.end()
            continue
        at = _expect("\\", text, at)  # neither is the end of the text, nor a control character
        letter, digits = text[at : at + 1], text[at + 1 : at + 5]
        if letter == "u" and len(digits) == 4 and set(digits) <= set(string.hexdigits):
            units.append(chr(int(digits, 16)))
            at += 5
        elif letter in _ESCAPES:
            units.append(_ESCAPES[letter])
            at += 1
        else:
            raise NotJsonError
    try:  # halves of surrogate pairs become one character; one that is alone cannot be read again
        decoded = "".join(units).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise NotJsonError from None
    return Value(start, at + 1, string=decoded)


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\t", "\r", "\n"}:
        at += 1
    return at


def _expect(character: str, text: str, at: int) -> int:
    if not text.startswith(character, at):
        raise NotJsonError
    return at + 1


def is_data_url(text: str) -> bool:
    """Whether `text` is an absolute http, https, s3 or gs URL with a valid host.

    Raises:
        UndecidedError: its host is beyond the reference.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes or not scheme.isascii() or len(text) > URL_CHARACTERS_MAX:
        return False
    if scheme.lower() in {"s3", "gs"}:  # white space is part of a key
        bucket, _, key = rest.partition("/")
        return _is_bucket(bucket) and not any(_is_control(letter) for letter in key)
    if any(letter.isspace() or _is_control(letter) for letter in text):
        return False
    return scheme.lower() in {"http", "https"} and _is_authority(re.split(r"[/\\?#]", rest)[0])


def _is_control(letter: str) -> bool:
    return ord(letter) < 0x20 or letter in "\x7f\x85"


def _is_bucket(name: str) -> bool:
    ends = set(string.ascii_letters + string.digits)
    return 3 <= len(name) <= 222 and set(name) <= ends | set("._-") and {name[0], name[-1]} <= ends


def _is_authority(authority: str) -> bool:
    """User info, host and port of an http or https URL."""
    address = authority.rpartition("@")[2]
    # The colons of an IPv6 address are within brackets, so no port begins with them.
    host, port = address, ""
    colon = address.find(":", address.rfind("]") + 1)
    if colon >= 0:
        host, port = address[:colon], address[colon + 1 :]
    significant = port.lstrip("0")
    if not set(port) <= set(string.digits) or len(significant) > 5 or int(port or 0) > 65535:
        return False
    return _is_host(host)


def _is_host(host: str) -> bool:
    """By "host parsing" of the URL standard, for a special URL."""
    if host in HOSTS_JUDGED_BY_HAND:
        return HOSTS_JUDGED_BY_HAND[host]
    if host.startswith("["):
        return host.endswith("]") and _is_ipv6(host[1:-1])
    try:
        domain = unquote_to_bytes(host).decode()
    except UnicodeDecodeError:
        return False  # decoded to U+FFFD, which no domain may have
    if not domain.isascii() or any(label.startswith("xn--") for label in _labels(domain)):
        raise UndecidedError(f"Is {host!a} a valid host? Put it into HOSTS_JUDGED_BY_HAND.")
    if domain == "" or any(_is_forbidden(letter) for letter in domain):
        return False
    labels = _labels(domain)
    if labels[-1] == "" and len(labels) > 1:
        labels.pop()
    ends_in_number = labels[-1].isdigit() or _ipv4_number(labels[-1]) is not None
    return not ends_in_number or _is_ipv4(labels)


def _labels(domain: str) -> list[str]:
    return domain.lower().split(".")


def _is_forbidden(letter: str) -> bool:
    """A "forbidden domain code point"."""
    return ord(letter) <= 0x20 or ord(letter) == 0x7F or letter in "#/:<>?@[\\]^|%"


def _is_ipv4(labels: list[str]) -> bool:
    numbers = [_ipv4_number(label) for label in labels]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(numbers) > 4:
        return False
    return all(number <= 255 for number in known[:-1]) and known[-1] < 256 ** (5 - len(known))


def _ipv4_number(label: str) -> int | None:
    """The value of a decimal, an octal ("017") or a hexadecimal ("0x1f", "0x") number."""
    base, digits = 10, label
    if label[:2] == "0x":  # labels are in lower case
        base, digits = 16, label[2:] or "0"
    elif label[:1] == "0" and len(label) > 1:
        base, digits = 8, label[1:]
    if not digits or not set(digits) <= set(string.hexdigits[:base]):
        return None
    return int(digits, base)


def _is_ipv6(address: str) -> bool:
    if "%" in address:  # Python reads a zone there, the URL standard does not
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True
