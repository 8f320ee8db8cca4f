"""Sentences about values that are wrong: where they stand, what is allowed there, what was meant.

They are made from the type that a value should have, so that none of them has the words of a library.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as types

_MESSAGE_CHARACTERS_MAX = 300
_COMPARED_CHARACTERS_MAX = 64
_LIKENESS_MIN = 0.61  # by 0.6, which is the default, "page" means "target"

_PATH = re.compile(r" - at `(?:key in )?\$([^`]*)`\Z")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_GIVEN = re.compile(r", got `(\w+)`\Z")
HINTS_MAX = 5
"""So many mistyped names of one request are compared with the right ones."""

_WRONG_CHOICE = "Invalid enum value "
_BYTE = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)")
_KINDS = {
    "str": "a string",
    "int": "a number",
    "float": "a decimal number",
    "bool": "a boolean",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
_PLURALS: dict[type[types.Type], str] = {
    types.StrType: "strings",
    types.IntType: "whole numbers",
    types.FloatType: "numbers",
    types.StructType: "objects",
    types.DictType: "objects",
}


class Explained(NamedTuple):
    """What is wrong with a value: `place` is the path inside it, such as `.options[2]`, or empty."""

    place: str
    message: str


def explain(error: msgspec.ValidationError, expected: Any) -> Explained:
    """Return where a value that is no `expected` is wrong, and a sentence that says what is allowed.

    The sentence has at most some hundred characters, and of the value no more than a wrong choice.
    """
    text = str(error)
    path = _PATH.search(text)
    message = text[: path.start()] if path else text
    info, place = types.type_info(expected), ""
    is_told = True
    for name, index in _STEP.findall(path.group(1) if path else ""):
        info = _inner(info, name)
        # The members of an object have no names in the path: what lies in them is told of the object.
        is_told &= index != "..."
        place += (f".{name}" if name else f"[{index}]") if is_told else ""
    what = "This" if is_told else "Each member of this"
    return Explained(place, _sentence(what, info, _given(message)))


def must_be(expected: Any, given: str = "") -> str:
    """Return a sentence that says what is allowed, and, where it is told, that it is not `given`."""
    return _sentence("This", types.type_info(expected), given)


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `given` probably means; None if it is like none of them."""
    folded = {each.casefold().strip()[:_COMPARED_CHARACTERS_MAX]: each for each in known}
    key = given.casefold().strip()[:_COMPARED_CHARACTERS_MAX]
    found = difflib.get_close_matches(key, folded, n=1, cutoff=_LIKENESS_MIN)
    return folded[found[0]] if found else None


def did_you_mean(given: str, known: Iterable[str], hints: Iterator[int]) -> str:
    """Return the end of a sentence that names what was probably meant, or nothing.

    Each call takes one of `hints`, because looking for similar names takes time, and people mistype a
    name or two.
    """
    if next(hints, None) is None:
        return ""
    near = nearest(given, known)
    return f" Did you mean {shorten(near)}?" if near else ""


def shorten(message: str) -> str:
    """Return the beginning of a message that repeats what it was given, which may have megabytes."""
    cut = len(message) > _MESSAGE_CHARACTERS_MAX
    return f"{message[:_MESSAGE_CHARACTERS_MAX]}…" if cut else message


def why_not_json(error: Exception) -> str:
    """Return the end of a sentence that begins with "This is not valid JSON: "."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        return "it has bytes that are not UTF-8."
    if malformed := _BYTE.fullmatch(str(error)):
        return f"{malformed.group(1)}, at byte {malformed.group(2)}."
    if "truncated" in str(error):
        return r"it ends too early, or an escape such as \ud800 is half a character."
    return "it has a number that is out of range."


def _sentence(what: str, info: types.Type, given: str) -> str:
    return f"{what} must be {_phrase(info)}{f', not {given}' if given else ''}."


def _given(message: str) -> str:
    """Return what was found instead: a wrong choice itself, and of anything else only its kind."""
    if message.startswith(_WRONG_CHOICE):
        return shorten(message.removeprefix(_WRONG_CHOICE))
    found = _GIVEN.search(message)
    return _KINDS.get(found.group(1), "") if found else ""


def _bare(info: types.Type) -> types.Type:
    while isinstance(info, types.Metadata):
        info = info.type
    return info


def _parts(info: types.Type) -> Iterator[types.Type]:
    """Yield the types that a value may have one of."""
    info = _bare(info)
    if isinstance(info, types.UnionType):
        for part in info.types:
            yield from _parts(part)
    else:
        yield info


def _inner(info: types.Type, name: str) -> types.Type:
    """Return the type of the field `name`, or of the items or members where there is no name."""
    for part in _parts(info):
        match part:
            case types.StructType(fields=fields) if name:
                return next(field.type for field in fields if field.encode_name == name)
            case types.ListType(item_type=item) if not name:
                return item
            case types.DictType(value_type=value) if not name:
                return value
    return info


def _phrase(info: types.Type) -> str:
    """Return what is allowed, as the object of "must be"."""
    return ", or ".join(_one(part) for part in _parts(info))


def _one(info: types.Type) -> str:
    return next(
        (words(info) for kind, words in _WORDS.items() if isinstance(info, kind)), "a JSON value"
    )


def _string(info: types.StrType) -> str:
    if (info.min_length, info.max_length) == (1, None):
        return "a string that is not empty"
    return f"a string{_of(info, 'characters') if info.min_length or info.max_length else ''}"


def _array(info: types.ListType) -> str:
    item = _bare(info.item_type)
    plural = _PLURALS.get(type(item))
    return f"an array{_of(info, plural) if plural else _of(info, 'items', _phrase(item))}"


def _object(info: types.DictType) -> str:
    return f"an object{_of(info, 'members', _phrase(info.value_type))}"


def _struct(info: types.StructType) -> str:
    required = [field.encode_name for field in info.fields if field.required]
    return f"an object with {' and '.join(required)}" if required else "an object"


_WORDS: dict[type[types.Type], Callable[[Any], str]] = {
    types.NoneType: lambda _: "null",
    types.BoolType: lambda _: "true or false",
    types.IntType: lambda info: f"a whole number{_between(info.ge, info.le)}",
    types.FloatType: lambda info: f"a number{_between(info.ge, info.le)}",
    types.StrType: _string,
    types.EnumType: lambda info: f"one of {', '.join(str(choice.value) for choice in info.cls)}",
    types.LiteralType: lambda info: f"one of {', '.join(map(str, info.values))}",
    types.DateTimeType: lambda _: "a date and a time, such as 2026-10-15T09:30:00Z",
    types.ListType: _array,
    types.DictType: _object,
    types.StructType: _struct,
}


def _between(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    if most is not None:
        return f" of at most {_number(most)}"
    return "" if least is None else f" of at least {_number(least)}"


def _number(bound: float) -> str:
    """Return a bound as people write it: 100 where the type says 100.0."""
    return f"{int(bound) if bound == int(bound) else bound:,}"


def _of(info: types.StrType | types.ListType | types.DictType, what: str, each: str = "") -> str:
    """Return how many of what there may be, and what each of them is."""
    each = f", each of them {each}" if each else ""
    match info.min_length or 0, info.max_length:
        case 0, None:
            return f" of {what}{each}"
        case 0, most:
            return f" of at most {most:,} {what}{each}"
        case least, None:
            return f" of at least {least:,} {what}{each}"
        case least, most:
            return f" of {least:,} to {most:,} {what}{each}"
