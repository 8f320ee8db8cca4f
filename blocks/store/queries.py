"""SQL by name: a file holds `-- name --` lines, each followed by its statement."""

import re
from functools import cache
from importlib import resources
from typing import LiteralString, cast

from psycopg import sql

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def load(file: str) -> dict[str, sql.SQL]:
    """The statements of `sql/<file>.sql`."""
    text = (resources.files("blocks.store") / "sql" / f"{file}.sql").read_text()
    _, *parts = _HEADING.split(text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: sql.SQL(cast(LiteralString, body.strip().rstrip(";"))) for name, body in pairs}
