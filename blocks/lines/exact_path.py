"""Judge one manifest line: a task, or the exact reason why not. No Prefect, no SQL."""

import json
import re
from collections.abc import Sequence

import msgspec

from blocks.domain.data_urls import URL_CHARACTERS_MAX, is_data_url
from blocks.domain.model import LINE_BYTES_MAX, BadLine, GoodLine, LineCode
from blocks.lines.json_object import Member, NotAnObjectError, NotJsonError, parse_members, unescape

_RAW_BYTES_OF_TOO_LONG = 1024
_BLANK = b" \t\r"
_KEYS = {"data_url", "metadata", "gold"}
_KEYS_WITH_TEXT = _KEYS | {"text"}
BLANK_TEXT = " \t\r\n"
"""A text of nothing but these characters is blank."""
_INVALID_URL = (
    "data_url must be an absolute http, https, s3 or gs URL with a valid host, "
    f"of at most {URL_CHARACTERS_MAX} characters."
)
# Names for data_url in other tools, without hyphens, underscores and capitals.
_ALIASES = frozenset(
    {"asset", "assetdata", "audio", "audiourl", "content", "contenturi", "dataurl", "dataurls"}
    | {"document", "file", "filename", "filepath", "fileuri", "fileurl", "gcsuri", "href"}
    | {"image", "imagegcsuri", "images", "imageuri", "imageurl", "img", "imgurl", "inputuri"}
    | {"link", "media", "mediaurl", "path", "photo", "picture", "rowdata", "s3path", "s3uri"}
    | {"source", "sourceref", "sourceurl", "src", "text", "textgcsuri", "texturl", "uri", "url"}
    | {"urls", "video", "videourl"}
)
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Fault(Exception):
    """Why a line is bad."""

    def __init__(self, code: LineCode, message: str) -> None:
        self.code = code
        self.message = message


def validate(
    raw: bytes,
    *,
    byte_offset: int,
    line: int,
    takes_text: bool = False,
    options: Sequence[str] = (),
) -> GoodLine | BadLine | None:
    """Return the task or the bad line that a line, without its line feed, is; None for a blank one.

    A good line is `{"data_url": "<absolute URL>", "metadata": {…}}`, the metadata optional. Where it
    `takes_text`, `"text": "…"` may stand instead of the URL. One with `"gold": "…"`, which is one of the
    `options`, is a task whose answer is known. The codes are those of the HTTP contract;
    of several faults the first in the order of `_read` counts.
    """
    raw = raw.removesuffix(b"\r")
    if len(raw) <= LINE_BYTES_MAX and not raw.strip(_BLANK):
        return None
    try:
        data_url, metadata, text, gold = _read(raw, options, takes_text=takes_text)
    except _Fault as fault:
        too_long = fault.code is LineCode.LINE_TOO_LONG
        kept = raw[:_RAW_BYTES_OF_TOO_LONG] if too_long else raw
        return BadLine(byte_offset, line, fault.code, fault.message, kept)
    return GoodLine(byte_offset, line, data_url, metadata, text, gold)


def judge_start(
    text: bytes,
    *,
    whole: bool,
    lines_max: int,
    takes_text: bool = False,
    options: Sequence[str] = (),
) -> list[GoodLine | BadLine]:
    """Return what the first lines are of a manifest that begins with `text`, without the blank ones.

    Looks at up to `lines_max` lines. `whole` says that `text` is all of the manifest; else a line
    without a line feed at its end is passed over. Their offsets say whether it is the first line alone.
    """
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n", lines_max)
    complete = lines if whole and len(lines) <= lines_max else lines[:-1]
    judged = (
        validate(raw, byte_offset=min(n - 1, 1), line=n, takes_text=takes_text, options=options)
        for n, raw in enumerate(complete, 1)
    )
    return [found for found in judged if found]


def find_bad_start(judged: Sequence[GoodLine | BadLine]) -> BadLine | None:
    """Return the first line of a manifest's start if it is bad, and none of the others is good."""
    bad = [line for line in judged if isinstance(line, BadLine)]
    return bad[0] if bad and len(bad) == len(judged) else None


def _read(
    raw: bytes, options: Sequence[str], *, takes_text: bool
) -> tuple[str | None, str | None, str | None, int | None]:
    """Return the data URL, the metadata as it was written, the text, and the gold option, 1-based."""
    if len(raw) > LINE_BYTES_MAX:
        raise _Fault(LineCode.LINE_TOO_LONG, "The line is longer than 1 MiB.")
    fields = _plain_fields(raw)
    if fields is None:
        fields = _fields(_members(raw))
    _check_keys(fields, takes_text=takes_text)
    data_url = _read_url(fields["data_url"]) if "data_url" in fields else None
    text = _read_text(fields["text"]) if "text" in fields else None
    metadata = fields.get("metadata")
    if metadata is not None and not metadata.startswith("{"):
        raise _Fault(LineCode.INVALID_METADATA, "metadata must be a JSON object.")
    gold = _read_gold(fields["gold"], options) if "gold" in fields else None
    return data_url, metadata, text, gold


def _read_gold(field: str, options: Sequence[str]) -> int:
    option = unescape(field) if field.startswith('"') else None
    if option not in options:
        message = f"gold must be one of the job's options; this is {field[:64]}."
        raise _Fault(LineCode.INVALID_GOLD, message)
    return options.index(option) + 1


def _read_url(field: str) -> str:
    if not field.startswith('"'):
        raise _Fault(LineCode.INVALID_DATA_URL, _INVALID_URL)
    data_url = unescape(field)
    if not is_data_url(data_url):
        raise _Fault(LineCode.INVALID_DATA_URL, _white_space(data_url) or _INVALID_URL)
    return data_url


def _read_text(field: str) -> str:
    text = unescape(field) if field.startswith('"') else ""
    if not text.strip(BLANK_TEXT):
        raise _Fault(LineCode.INVALID_TEXT, "text must be a string that is not blank.")
    if "\x00" in text:
        raise _Fault(LineCode.INVALID_TEXT, "text must not have the character U+0000 in it.")
    return text


def _plain_fields(raw: bytes) -> dict[str, str] | None:
    """Return the fields, 20 times as fast, or None: the line is bad, or a key may stand there twice."""
    try:
        raw.decode()
        values = _DECODER.decode(raw)
    except (ValueError, RecursionError):
        return None
    fields = {key: bytes(value).decode() for key, value in values.items()}
    # The decoder keeps one of several equal keys, and the quotes of the others are missing here.
    quotes = sum(value.count('"') for value in fields.values()) + 2 * len(fields)
    return fields if quotes == raw.count(b'"') else None


def _members(raw: bytes) -> list[Member]:
    try:
        return parse_members(raw.decode())
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
    return fields


def _check_keys(fields: dict[str, str], *, takes_text: bool) -> None:
    has_text = takes_text and "text" in fields
    unknown = [key for key in fields if key not in (_KEYS_WITH_TEXT if takes_text else _KEYS)]
    if "data_url" not in fields and not has_text:
        missing = "data_url or text" if takes_text else "data_url"
        raise _Fault(LineCode.MISSING_DATA_URL, _missing(missing, unknown, fields))
    if unknown:
        shown = json.dumps(unknown[0][:64])
        message = f"The field {shown} is not known; put fields of your own into metadata."
        raise _Fault(LineCode.UNKNOWN_FIELD, message)
    if has_text and "data_url" in fields:
        message = "A line has either data_url or text, and this one has both."
        raise _Fault(LineCode.INVALID_TEXT, message)


def _missing(what: str, unknown: list[str], fields: dict[str, str]) -> str:
    """Say which of the line's fields was probably meant by `what` is missing."""
    names = [key for key in unknown if _is_alias(key)]
    # Some tools have their fields one level deeper: {"data": {"image": "https://…"}}.
    for outer in ("data", "metadata"):
        if fields.get(outer, "").startswith("{"):
            inner = [member.key for member in parse_members(fields[outer])]
            names += [f"{outer}.{key}" for key in inner if _is_alias(key)]
    if names:
        return f"{what} is missing; the line has {names[0]}. Did you mean that?"
    if unknown:
        return f"{what} is missing; the line has {json.dumps(unknown[0][:64])}."
    return f"The field {what} is missing."


def _is_alias(key: str) -> bool:
    return re.sub("[-_ ]", "", key).lower() in _ALIASES


def _white_space(url: str) -> str | None:
    """Say where an http URL has white space, if it has."""
    found = re.search(r"\s", url)
    if found is None or not url.lstrip().lower().startswith(("http://", "https://")):
        return None
    return (
        f"data_url has white space (U+{ord(found[0]):04X}) as its character {found.start() + 1}; "
        "in an http or https URL a space is written %20."
    )
