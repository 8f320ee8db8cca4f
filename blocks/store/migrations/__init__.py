"""Numbered, forward-only migrations in plain SQL; what they come to is blocks/store/schema.sql."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

import psycopg

from blocks.domain.errors import RefineryError
from blocks.store.database import translated

# An exclusive lock for all who migrate: two API processes that start at once must take turns.
_ADVISORY_LOCK = 7_310_563_212
_LOCK_TIMEOUT = "10s"
_STATEMENT_TIMEOUT = "15min"


class MigrationChanged(RefineryError):
    """A migration that was applied no longer reads as it did, or is no longer there.

    Either it was edited, and a new one should have been added; or a development version made the
    database, of which none is upgraded before 0.2.0.
    """

    code = "migration_changed"


class SchemaMissing(RefineryError):
    """The database has not the schema of this version: nobody has migrated it."""

    code = "schema_missing"


class ForeignTables(RefineryError):
    """The database holds tables of somebody else."""

    code = "foreign_tables"


def check(database_url: str) -> None:
    """Pass if the database has just the schema of this version; changes nothing.

    Raises:
        MigrationChanged: another version has made it.
        SchemaMissing: it was not migrated to this one.
        DatabaseUnavailable: the server cannot be reached.
    """
    with translated(), psycopg.connect(database_url, autocommit=True) as connection:
        try:
            known = _applied(connection)
        except psycopg.errors.UndefinedTable:
            known = {}
    missing = _digests().keys() - known.keys()
    _check_applied(known)
    if missing:
        raise SchemaMissing(
            f"The database has not the schema of this version ({', '.join(sorted(missing))}); "
            "`refinery db migrate` makes it."
        )


def migrate(database_url: str) -> list[str]:
    """Apply what has not been applied yet, each file in one transaction; returns their names.

    Raises:
        MigrationChanged: an applied file was edited or removed since; nothing is changed then.
        ForeignTables: something else is in the way; nothing of the file is applied.
        DatabaseUnavailable: the server cannot be reached, or a lock was not to be had in time.
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
        known = _applied(connection)
        _check_applied(known)
        for name, text in _files():
            if name not in known:
                _apply(connection, name, text)
                applied.append(name)
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


def _applied(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("select name, sha256 from migrations").fetchall())


def _check_applied(known: dict[str, str]) -> None:
    files = _digests()
    for name, digest in known.items():
        if files.get(name) != digest:
            raise MigrationChanged(
                f"The database was made by another version, whose {name} is not the one of this. "
                "Development versions before 0.2.0 cannot be upgraded: make a new database "
                "(`createdb`, or another --data-dir), and keep the old one until its results are "
                "exported."
            )


def _digests() -> dict[str, str]:
    return {name: _digest(text) for name, text in _files()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _apply(connection: psycopg.Connection, name: str, text: str) -> None:
    with connection.transaction():
        connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
        connection.execute(f"set local statement_timeout = '{_STATEMENT_TIMEOUT}'")
        connection.execute(text.encode())
        row = [name, _digest(text)]
        connection.execute("insert into migrations (name, sha256) values (%s, %s)", row)


def _files() -> list[tuple[str, str]]:
    folder = resources.files(__name__)
    found = [(f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql")]
    return sorted(found)
