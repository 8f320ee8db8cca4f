"""The lines of a delivery, read strictly: nothing that a decoder would pass over is passed over."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from api.cli.delivered_objects import read_lines, read_rows
from blocks.lines.json_object import Member, parse_members

Verbatim = msgspec.Raw | msgspec.UnsetType
"""A value that is not looked at; unset where it is not there, or was not read."""


class SingleLabel(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A label of a line; `skill` is there where labels are weighed."""

    annotator: str
    label: str
    skill: int | float | None = None
    at: Verbatim = msgspec.UNSET


class ResultLine(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The fields of a delivered line, in the order in which they are written."""

    task_id: str
    line: int | None
    data_url: Verbatim = msgspec.UNSET
    text: Verbatim = msgspec.UNSET
    metadata: Verbatim = msgspec.UNSET
    status: Verbatim = msgspec.UNSET
    consensus_label: str
    confidence: int | float
    worker_count: int
    agreement_count: int
    votes: dict[str, int]
    settled_by: str | None = None
    created_at: Verbatim = msgspec.UNSET
    settled_at: Verbatim = msgspec.UNSET
    gold: bool = False
    labels: list[SingleLabel]


Fault = tuple[str, str]
"""A field that is wrong, and how."""

_LINES = msgspec.json.Decoder(ResultLine)
_write = msgspec.json.Encoder().encode
_CHECKED = (
    "task_id", "line", "consensus_label", "confidence", "worker_count", "agreement_count", "votes",
    "settled_by", "gold", "labels",
)  # fmt: skip
_NOT_READ = ("labels.list.element.at",)  # nothing follows from it, and times are slow to make
_TWICE = "is there more than once."


def read(fs: Any, path: str) -> Iterator[ResultLine | Fault]:
    """Yield the lines of an object of results, and of one that is none what is wrong with it.

    Raises:
        OSError, ValueError, EOFError, zlib.error: the object is damaged.
    """
    if path.endswith(".parquet"):
        return (_read_row(row) for row in read_rows(fs, path, _CHECKED, without=_NOT_READ))
    return (read_line(line) for line in read_lines(fs, path))


def read_line(text: bytes) -> ResultLine | Fault:
    """Read a line of JSON; one with a repeated key is faulty, whatever its values."""
    try:
        line = _LINES.decode(text)
        # A decoder takes the last of equal keys. A line that is written as it stands has none.
        return line if _write(line) == text else _read_slowly(text)
    except RecursionError:
        return _read_slowly(text)
    except ValueError as error:
        return _no_result(error)


def _read_slowly(text: bytes) -> ResultLine | Fault:
    """Read a line that is written otherwise than ours are, or whose metadata is too deep."""
    try:
        members = parse_members(text.decode())
        checked = [f"{_text(key)}:{raw}" for key, raw in members if key in _CHECKED]
        line = _LINES.decode(f"{{{','.join(checked)}}}")
        return _find_repeated(members) or line
    except (ValueError, RecursionError) as error:
        return _no_result(error)


def _find_repeated(members: Sequence[Member]) -> Fault | None:
    if (key := _repeated(members)) is not None:
        return key, f"It {_TWICE}"
    values = dict(members)
    if (option := _repeated(parse_members(values["votes"]))) is not None:
        return "votes", f"{option!r} {_TWICE}"
    for label in msgspec.json.decode(values["labels"], type=list[msgspec.Raw]):
        if (key := _repeated(parse_members(bytes(label).decode()))) is not None:
            return "labels", f"{key!r} {_TWICE}"
    return None


def _repeated(members: Sequence[Member]) -> str | None:
    """Return a key that two members have; None if there is none."""
    known = set()
    for key, _ in members:
        if key in known:
            return key
        known.add(key)
    return None


def _read_row(row: dict[str, Any]) -> ResultLine | Fault:
    """Read a row of Parquet, in which votes with a repeated option are a list."""
    if isinstance(row.get("votes"), list):
        return "votes", f"An option {_TWICE}"
    try:
        return msgspec.convert(row, ResultLine)
    except ValueError as error:
        return _no_result(error)


def _no_result(error: Exception) -> Fault:
    return "it", f"This is not a line of results: {error}."


def _text(key: str) -> str:
    return msgspec.json.encode(key).decode()
