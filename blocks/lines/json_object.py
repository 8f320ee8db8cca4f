"""Split a JSON object into members with the text of each value, by the grammar of RFC 8259.

A decoder would be shorter, but none tells repeated keys, keeps the text of values and survives any
depth: recursive ones give up near a thousand levels, depending on the depth of the caller.
"""

import json
import re
from enum import StrEnum
from typing import NamedTuple

# The group in a string is not possessive: in Python up to 3.11.4, which Debian 12 has, such a group
# accepts the beginning of what it should not (`\u`; https://github.com/python/cpython/issues/106052).
_TOKEN = re.compile(
    r"""[ \t\r\n]*+(?:
        (?P<mark>[{}\[\]:,])
      | (?P<string>"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*")
      | (?P<other>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_CLOSING = {"{": "}", "[": "]"}


class Expect(StrEnum):
    """What may come next, in words for the customer."""

    VALUE = "a value"
    VALUE_OR_END = "a value or ']'"
    KEY = "a key in double quotes"
    KEY_OR_END = "a key in double quotes or '}'"
    COLON = "':'"
    COMMA_OR_END = "',' or the closing bracket"
    NOTHING = "nothing more"


class NotJsonError(ValueError):
    """The text is not one JSON value; the message has what was expected, in which column (1-based)."""


class NotAnObjectError(ValueError):
    """The text is a JSON value of another type."""


class Member(NamedTuple):
    """One `"key": value`: the key with its escapes resolved, the value as it stands."""

    key: str
    raw: str


def parse_members(text: str) -> list[Member]:
    """Return the members of the object that `text` is, in their order, with repeated keys.

    Raises:
        NotJsonError: it is not JSON.
        NotAnObjectError: it is an array, a string, a number, true, false or null.
    """
    reader = _Reader()
    at = 0
    while True:
        token = _TOKEN.match(text, at)
        kind = token.lastgroup if token else None
        if token is None or kind is None or not reader.accept(kind, token[kind], token.start(kind)):
            raise _unexpected(text, at, reader.expected)
        at = token.end()
        if kind == "end":
            break
    if not text.lstrip().startswith("{"):
        raise NotAnObjectError
    return [Member(unescape(key), text[start:end]) for key, start, end in reader.found]


def unescape(string: str) -> str:
    """Return the text that a JSON string, quotes included, stands for.

    Raises:
        NotJsonError: half of a surrogate pair stands in it alone.
    """
    value: str = json.loads(string) if "\\" in string else string[1:-1]
    if _LONE_SURROGATE.search(value):
        raise NotJsonError("half of a surrogate pair stands alone")
    return value


class _Reader:
    """A pushdown automaton over tokens; `found` has (key, start, end) of the outermost members."""

    def __init__(self) -> None:
        self.expected = Expect.VALUE
        self.found: list[tuple[str, int, int]] = []
        self._brackets: list[str] = []  # those that are open
        self._key = ""
        self._value_at = 0

    def accept(self, kind: str, text: str, at: int) -> bool:
        """Take the token `text`, which stands at `at`; return False if the grammar does not allow it."""
        if kind == "end":
            return self.expected == Expect.NOTHING
        if kind == "string" and "\\u" in text:
            unescape(text)
        if kind == "mark":
            return self._mark(text, at)
        if self.expected in {Expect.VALUE, Expect.VALUE_OR_END}:
            self._begin_value(at)
            self._end_value(at + len(text))
            return True
        if kind == "string" and self.expected in {Expect.KEY, Expect.KEY_OR_END}:
            if len(self._brackets) == 1:
                self._key = text
            self.expected = Expect.COLON
            return True
        return False

    def _mark(self, mark: str, at: int) -> bool:
        match mark, self.expected:
            case ":", Expect.COLON:
                self.expected = Expect.VALUE
            case ",", Expect.COMMA_OR_END:
                self.expected = Expect.KEY if self._brackets[-1] == "{" else Expect.VALUE
            case "{" | "[", Expect.VALUE | Expect.VALUE_OR_END:
                self._begin_value(at)
                self._brackets.append(mark)
                self.expected = Expect.KEY_OR_END if mark == "{" else Expect.VALUE_OR_END
            case "}" | "]", _ if self._closes(mark):
                self._brackets.pop()
                self._end_value(at + 1)
            case _:
                return False
        return True

    def _closes(self, mark: str) -> bool:
        either_end = {Expect.COMMA_OR_END, Expect.KEY_OR_END, Expect.VALUE_OR_END}
        innermost = self._brackets[-1] if self._brackets else ""
        return _CLOSING.get(innermost) == mark and self.expected in either_end

    def _begin_value(self, at: int) -> None:
        if len(self._brackets) == 1:
            self._value_at = at

    def _end_value(self, end: int) -> None:
        if self._brackets == ["{"]:
            self.found.append((self._key, self._value_at, end))
        self.expected = Expect.COMMA_OR_END if self._brackets else Expect.NOTHING


def _unexpected(text: str, at: int, expected: str) -> NotJsonError:
    at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
    return NotJsonError(f"expected {expected} in column {at + 1}")
