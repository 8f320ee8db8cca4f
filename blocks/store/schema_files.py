"""Read the files of migrations: numbered SQL, each with a head that says what the migrator has to know.

    -- oldest-code: 1
    -- transaction: no

`oldest-code` is the number of the newest migration that code has to know to work with the schema from
this file on. A file that only adds repeats that of the file before it; one that takes something away
names the migration since which no code uses that. `transaction: no` is for the one statement of a file
that PostgreSQL runs in no transaction, such as `create index concurrently if not exists`.
"""

import hashlib
import itertools
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from blocks.domain.errors import RefineryError

_PACKAGE = "blocks.store.migrations"
_OF_HEAD = re.compile(r"-- (oldest-code|transaction): (\w+)")


class BadMigration(RefineryError):
    """The head of a file of migrations lacks something, or the files are not numbered 1, 2, 3."""

    code = "bad_migration"


class Migration(NamedTuple):
    """A file of SQL; `sha256` is of its text, in hexadecimal digits."""

    number: int
    name: str
    text: str
    sha256: str
    oldest_code: int
    is_in_transaction: bool


def read_files(folder: Path | None = None) -> list[Migration]:
    """Return the migrations of a folder, by default those that this code knows, by number.

    Raises:
        BadMigration: a file cannot be applied as it is.
    """
    place = folder or resources.files(_PACKAGE)
    texts = {f.name: f.read_text("utf-8") for f in place.iterdir() if f.name.endswith(".sql")}
    found = [_parse(name, text) for name, text in sorted(texts.items())]
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise BadMigration(
            f"Migrations are not numbered without a gap: {', '.join(sorted(texts))}."
        )
    for before, after in itertools.pairwise(found):
        if not after.is_in_transaction and after.oldest_code != before.oldest_code:
            raise BadMigration(
                f"{after.name} leaves code behind, so it has to be applied in a transaction."
            )
    return found


@lru_cache(maxsize=1)
def own_number() -> int:
    """Return the number of the newest migration that this code knows."""
    return max(
        number_of(f.name) for f in resources.files(_PACKAGE).iterdir() if f.name.endswith(".sql")
    )


def number_of(name: str) -> int:
    """Return the number that a file's name begins with."""
    return int(name[:4])


def _parse(name: str, text: str) -> Migration:
    if not re.fullmatch(r"\d{4}_\w+\.sql", name):
        raise BadMigration(f"{name} is no name of a migration, such as 0002_add_colour.sql.")
    number, head = number_of(name), dict(_OF_HEAD.findall(text.partition("\n\n")[0]))
    said = head.get("oldest-code", "1" if number == 1 else "")
    if not said.isdigit() or not 1 <= int(said) <= number:
        raise BadMigration(
            f"{name} has to say `-- oldest-code: N` at its head, from 1 to {number}."
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Migration(number, name, text, digest, int(said), head.get("transaction") != "no")
