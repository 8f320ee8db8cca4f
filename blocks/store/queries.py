"""SQL by name: a file holds `-- name --` lines, each followed by its statement.

A part that several statements share has a name of its own, and stands in them as `{name}`; parts may
share parts.
"""

import re
from functools import cache
from importlib import resources

from psycopg import sql

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_SHARED = re.compile(r"\{(\w+)\}")


@cache
def load(file: str) -> dict[str, sql.SQL]:
    """Return the statements of `sql/<file>.sql` by their names."""
    text = (resources.files("blocks.store") / "sql" / f"{file}.sql").read_text("utf-8")
    _, *parts = _HEADING.split(text)
    bodies = {
        name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)
    }

    def whole(body: str) -> str:
        return _SHARED.sub(lambda match: whole(bodies[match[1]]), body)

    return {name: sql.SQL(whole(body)) for name, body in bodies.items()}
