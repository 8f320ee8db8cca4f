"""One manifest line: a task, or the exact reason why not. No Prefect, no SQL."""

import json
import re

import msgspec

from blocks.model import LINE_BYTES_MAX, BadLine, GoodLine, LineCode
from blocks.urls import URL_CHARACTERS_MAX, is_data_url
from flows.json_object import Member, NotAnObjectError, NotJsonError, members, unescape

_RAW_BYTES_OF_TOO_LONG = 1024
_BLANK = b" \t\r"
_KEYS = {"data_url", "metadata"}
_ESCAPED_LETTER = re.compile(rb"\\u00[567]")  # of which a key could be spelled
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Fault(Exception):
    """Why a line is bad."""

    def __init__(self, code: LineCode, message: str) -> None:
        self.code = code
        self.message = message


def validate(raw: bytes, *, byte_offset: int, line: int) -> GoodLine | BadLine | None:
    """What a line, without its line feed, comes to; None for a blank one.

    A good line is `{"data_url": "<absolute URL>", "metadata": {…}}`, the metadata optional. The
    codes are those of the HTTP contract; of several faults the first in the order of `_read` counts.
    """
    raw = raw.removesuffix(b"\r")
    if len(raw) <= LINE_BYTES_MAX and not raw.strip(_BLANK):
        return None
    try:
        data_url, metadata = _read(raw)
    except _Fault as fault:
        too_long = fault.code is LineCode.LINE_TOO_LONG
        kept = raw[:_RAW_BYTES_OF_TOO_LONG] if too_long else raw
        return BadLine(byte_offset, line, fault.code, fault.message, kept)
    return GoodLine(byte_offset, line, data_url, metadata)


def _read(raw: bytes) -> tuple[str, str | None]:
    """The data URL and the metadata's text."""
    if len(raw) > LINE_BYTES_MAX:
        raise _Fault(LineCode.LINE_TOO_LONG, "The line is longer than 1 MiB.")
    fields = _plain_fields(raw) or _fields(_members(raw))
    if "data_url" not in fields:
        raise _Fault(LineCode.MISSING_DATA_URL, "The field data_url is missing.")
    if not fields["data_url"].startswith('"') or not is_data_url(unescape(fields["data_url"])):
        raise _Fault(
            LineCode.INVALID_DATA_URL,
            "data_url must be an absolute http, https, s3 or gs URL with a valid host, "
            f"of at most {URL_CHARACTERS_MAX} characters.",
        )
    metadata = fields.get("metadata")
    if metadata is not None and not metadata.startswith("{"):
        raise _Fault(LineCode.INVALID_METADATA, "metadata must be a JSON object.")
    return unescape(fields["data_url"]), metadata


def _plain_fields(raw: bytes) -> dict[str, str] | None:
    """The fields, if a decoder that folds repeated keys cannot have missed any: 20 times as fast."""
    if raw.count(b"data_url") != 1 or raw.count(b"metadata") > 1 or _ESCAPED_LETTER.search(raw):
        return None
    try:
        raw.decode()
        fields = _DECODER.decode(raw)
    except (ValueError, RecursionError):
        return None
    if not fields.keys() <= _KEYS:
        return None
    return {key: bytes(value).decode() for key, value in fields.items()}


def _members(raw: bytes) -> list[Member]:
    try:
        return members(raw.decode())
    except UnicodeDecodeError as error:
        message = f"Byte {error.start + 1} of the line is not valid UTF-8."
        raise _Fault(LineCode.INVALID_UTF8, message) from None
    except NotJsonError as error:
        raise _Fault(LineCode.MALFORMED_JSON, f"The line is not valid JSON: {error}.") from None
    except NotAnObjectError:
        raise _Fault(LineCode.NOT_AN_OBJECT, "The line is JSON, but not an object.") from None


def _fields(found: list[Member]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, raw in found:
        shown = json.dumps(key[:64])
        if key in fields:
            raise _Fault(LineCode.DUPLICATE_KEY, f"The key {shown} stands there twice.")
        fields[key] = raw
    for key in fields:
        if key not in _KEYS:
            shown = json.dumps(key[:64])
            message = f"The field {shown} is not known; put fields of your own into metadata."
            raise _Fault(LineCode.UNKNOWN_FIELD, message)
    return fields
