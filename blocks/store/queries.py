"""SQL by name: a file holds `-- name --` lines, each followed by its statement.

A part that several statements share has a name of its own, and stands in them as `{name}`, or as
`{file.name}` where it is in another file; parts may share parts.
"""

import re
from functools import cache
from importlib import resources

from psycopg import sql
from psycopg.adapt import PyFormat

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_SHARED = re.compile(r"\{(?:(\w+)\.)?(\w+)\}")
_PARAMETER = re.compile(r"%\((\w+)\)s")


class Statement(sql.SQL):
    """A statement by its text.

    `numbered` is the text as libpq takes it, with `$1` for the first of `names`, and so on.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        self.formats = [PyFormat.AUTO] * len(self.names)
        self.may_be_several = not self.names and ";" in text  # if not in a comment
        numbers = {name: f"${n}" for n, name in enumerate(self.names, start=1)}
        self.numbered = _PARAMETER.sub(lambda match: numbers[match[1]], text).encode()

    # Each is made once, and compared by what it is: its text has thousands of characters.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@cache
def load(file: str) -> dict[str, Statement]:
    """Return the statements of `sql/<file>.sql` by their names."""
    return {name: Statement(_whole(file, body)) for name, body in _bodies(file).items()}


@cache
def _bodies(file: str) -> dict[str, str]:
    text = (resources.files("blocks.store") / "sql" / f"{file}.sql").read_text("utf-8")
    _, *parts = _HEADING.split(text)
    return {
        name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _whole(file: str, body: str) -> str:
    """Return a statement of `file` with the parts in it that it shares."""

    def part(match: re.Match[str]) -> str:
        other, name = match[1] or file, match[2]
        return _whole(other, _bodies(other)[name])

    return _SHARED.sub(part, body)
