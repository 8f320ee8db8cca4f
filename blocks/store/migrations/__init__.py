"""Numbered, forward-only migrations in plain SQL; what they come to is blocks/store/schema.sql."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import NamedTuple

import psycopg

from blocks.domain.errors import RefineryError
from blocks.store.database import translated

# Two API processes that start at once take turns to migrate.
_ADVISORY_LOCK = 7_310_563_212
_LOCK_TIMEOUT = "10s"
_STATEMENT_TIMEOUT = "15min"


class MigrationChanged(RefineryError):
    """A migration that was applied does not read as it did, or is not there any more.

    Either it was edited, and a new one should have been added; or a development version made the
    database, of which none is upgraded before 0.2.0.
    """

    code = "migration_changed"


class SchemaMissing(RefineryError):
    """The database does not have the schema of this version: nobody has migrated it."""

    code = "schema_missing"


class ForeignTables(RefineryError):
    """The database holds tables of another program."""

    code = "foreign_tables"


class _Migration(NamedTuple):
    """A file of SQL; `sha256` is of its text, in hexadecimal digits."""

    name: str
    text: str
    sha256: str


def check(database_url: str) -> None:
    """Pass if the database has exactly the schema of this version. Change nothing.

    Raises:
        MigrationChanged: another version has made it.
        SchemaMissing: it has not been migrated to this one.
        DatabaseUnavailable: the server cannot be reached.
    """
    with translated(), psycopg.connect(database_url, autocommit=True) as connection:
        try:
            known = _find_applied(connection)
        except psycopg.errors.UndefinedTable:
            known = {}
    wanted = _read_migrations()
    _check_applied(known, wanted)
    missing = {migration.name for migration in wanted} - known.keys()
    if missing:
        raise SchemaMissing(
            f"The database has not the schema of this version ({', '.join(sorted(missing))}); "
            "`refinery db migrate` makes it."
        )


def migrate(database_url: str) -> list[str]:
    """Apply the files that have not been applied yet, each in one transaction; return their names.

    Raises:
        MigrationChanged: an applied file was edited or removed since; nothing is changed.
        ForeignTables: something of another program is in the way; none of the file is applied.
        DatabaseUnavailable: the server cannot be reached, or a lock was not free in time.
    """
    applied = []
    with (
        translated(),
        _foreign_tables(),
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        connection.execute("select pg_advisory_lock(%s)", [_ADVISORY_LOCK])
        connection.execute(
            "create table if not exists migrations ("
            "name text primary key, sha256 text not null, applied_at timestamptz default now())"
        )
        known, wanted = _find_applied(connection), _read_migrations()
        _check_applied(known, wanted)
        for migration in wanted:
            if migration.name not in known:
                _apply(connection, migration)
                applied.append(migration.name)
    return applied


@contextmanager
def _foreign_tables() -> Iterator[None]:
    try:
        yield
    except (
        psycopg.errors.DuplicateTable,
        psycopg.errors.DuplicateFunction,
        psycopg.errors.UndefinedColumn,
    ) as error:
        said = str(error).partition("\n")[0]
        raise ForeignTables(
            f"The database holds something that is not Refinery's ({said}): give it one of its own."
        ) from error


def _find_applied(connection: psycopg.Connection) -> dict[str, str]:
    """Return the digests of the migrations that the database has, by their names."""
    return dict(connection.execute("select name, sha256 from migrations").fetchall())


def _check_applied(known: Mapping[str, str], wanted: Sequence[_Migration]) -> None:
    digests = {migration.name: migration.sha256 for migration in wanted}
    for name, digest in known.items():
        if digests.get(name) != digest:
            raise MigrationChanged(
                f"The database was made by another version, whose {name} is not the one of this. "
                "Development versions before 0.2.0 cannot be upgraded: make a new database "
                "(`createdb`, or another --data-dir), and keep the old one until its results are "
                "exported."
            )


def _apply(connection: psycopg.Connection, migration: _Migration) -> None:
    with connection.transaction():
        connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
        connection.execute(f"set local statement_timeout = '{_STATEMENT_TIMEOUT}'")
        connection.execute(migration.text.encode())
        row = [migration.name, migration.sha256]
        connection.execute("insert into migrations (name, sha256) values (%s, %s)", row)


def _read_migrations() -> list[_Migration]:
    return [
        _Migration(name, text, hashlib.sha256(text.encode()).hexdigest()) for name, text in _files()
    ]


def _files() -> list[tuple[str, str]]:
    """Return the names and the texts of all files, in the order of their numbers."""
    folder = resources.files(__name__)
    found = [(f.name, f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql")]
    return sorted(found)
