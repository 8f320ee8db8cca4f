"""Explain values that are not of a type: messages name the right values where there are a few."""

from enum import EnumType
from typing import Any, Literal, get_args, get_origin

import msgspec

_WRONG = "Invalid enum value "
_MESSAGE_CHARACTERS_MAX = 300


def explain(error: msgspec.ValidationError, expected: Any) -> str:
    """Return a sentence of some 300 characters at most for a value that is not an `expected`."""
    message, _, at = str(error).partition(" - at `$")
    place = at.strip("`")
    where = f" (at {shorten(place)})" if place else ""
    return f"{add_choices(message, expected)}{where}."


def add_choices(message: str, expected: Any) -> str:
    """Return msgspec's `message` without its full stop; for a wrong enum, one with the right values."""
    choices = _choices(expected)
    if message.startswith(_WRONG) and choices:
        given = shorten(message.removeprefix(_WRONG))
        return f"This must be one of {', '.join(choices)}, not {given}"
    return shorten(message)


def shorten(message: str) -> str:
    """Return the beginning of a message that repeats what it was given, which may have megabytes."""
    cut = len(message) > _MESSAGE_CHARACTERS_MAX
    return f"{message[:_MESSAGE_CHARACTERS_MAX]}…" if cut else message


def _choices(expected: Any) -> list[str]:
    """Return the values of the enums and literals in a type, however deep."""
    if isinstance(expected, EnumType):
        return [str(member.value) for member in expected]  # type: ignore[var-annotated]
    if get_origin(expected) is Literal:
        return [str(value) for value in get_args(expected)]
    return [choice for part in get_args(expected) for choice in _choices(part)]
