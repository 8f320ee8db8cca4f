"""Numbered, forward-only migrations in plain SQL; what they come to is blocks/store/schema.sql.

They are applied while the service works, by one migrator at a time. A file is applied in one transaction
that waits only briefly for each lock, since all who come later wait behind it; if a table is in use for
longer, all is undone and tried again. What cannot be done in a transaction is one statement in a file of
its own, and blocks nobody. A migrator that is killed leaves files that are applied, and others that are
not: the next one goes on.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
from psycopg import errors, sql

from blocks.domain.errors import RefineryError
from blocks.store.database import connect
from blocks.store.schema_files import Migration, number_of, read_files
from blocks.store.schema_versions import CODE_LOCK, judge, version
from blocks.store.unavailable import Locked, translated

_ADVISORY_LOCK = 7_310_563_212
# Whoever waits for a lock that a statement of ours holds waits for so long, and no longer.
_STATEMENT_TIMEOUT = "10s"
_TURN_S = 0.2


class MigrationChanged(RefineryError):
    """A migration that was applied does not read as it did, or is not there any more.

    Either it was edited, and a new one should have been added; or a development version made the
    database, of which none is upgraded before 0.2.0.
    """

    code = "migration_changed"


class ForeignTables(RefineryError):
    """The database holds tables of another program."""

    code = "foreign_tables"


class MigrationTooSlow(RefineryError):
    """A statement of a migration would have kept others from their tables for too long."""

    code = "migration_too_slow"


class OldCodeConnected(RefineryError):
    """A migration takes away what processes of an older version still use."""

    code = "old_code_connected"


class Patience(msgspec.Struct, frozen=True):
    """How long a migrator waits: for one lock, from the first try to the second, and in all."""

    lock_s: float = 0.1
    pause_s: float = 0.5
    pause_s_max: float = 5.0
    total_s: float = 600.0


_PATIENCE = Patience()
Tell = Callable[[str], None]


def check(database_url: str, *, folder: Path | None = None) -> None:
    """Pass if this version works with the database's schema. Change nothing.

    Raises:
        MigrationChanged: another version has made it.
        SchemaMissing: it has not been migrated to this one.
        SchemaNewer: a newer version has migrated it, and left this one behind.
        DatabaseUnavailable: the server cannot be reached.
    """
    wanted = read_files(folder)
    with translated(), connect(database_url) as connection:
        try:
            known = _find_applied(connection)
        except errors.UndefinedTable:
            known = {}
        _check_applied(known, wanted)
        judge(wanted[-1].number, *_newest(connection, known))


def migrate(
    database_url: str,
    *,
    folder: Path | None = None,
    tell: Tell = lambda _: None,
    patience: Patience = _PATIENCE,
) -> list[str]:
    """Apply the files that have not been applied yet; return their names. `tell` hears what goes on.

    Files are those of `folder`, by default all that this version knows.

    Raises:
        MigrationChanged: an applied file was edited or removed since; nothing is changed.
        SchemaNewer: a newer version has migrated the database, and left this one behind.
        ForeignTables: something of another program is in the way; none of the file is applied.
        OldCodeConnected: processes of an older version are in the way; none of the file is applied.
        MigrationTooSlow: none of the file is applied.
        Locked: a table was in use, or another migrator at work, all the time.
        DatabaseUnavailable: the server cannot be reached.
    """
    wanted = read_files(folder)
    with translated(), _foreign_tables(), connect(database_url) as connection:
        return _Migrator(connection, tell, patience).migrate(wanted)


class _Migrator:
    """One connection that migrates."""

    def __init__(self, connection: psycopg.Connection, tell: Tell, patience: Patience) -> None:
        self._connection = connection
        self._tell = tell
        self._patience = patience

    def migrate(self, wanted: Sequence[Migration]) -> list[str]:
        self._take_turn()
        self._connection.execute(
            "create table if not exists migrations ("
            "name text primary key, sha256 text not null, oldest_code integer not null, "
            "version text not null, applied_at timestamptz not null default now())"
        )
        known = _find_applied(self._connection)
        _check_applied(known, wanted)
        missing = [migration for migration in wanted if migration.name not in known]
        if not missing:
            newest, oldest_code, by = _newest(self._connection, known)
            judge(wanted[-1].number, newest, oldest_code, by)
            if number_of(newest) > wanted[-1].number:
                self._tell(f"the schema is newer, {newest}, and works with this version")
        for migration in missing:
            self._apply(migration)
        return [migration.name for migration in missing]

    def _take_turn(self) -> None:
        # Nothing waits in the database: `create index concurrently` waits for all who are in it.
        ends_at, has_told = time.monotonic() + self._patience.total_s, False
        query = "select pg_try_advisory_lock(%s)"
        while self._connection.execute(query, [_ADVISORY_LOCK]).fetchone() != (True,):
            if time.monotonic() > ends_at:
                raise Locked("Another migrator was at work all the time.")
            if not has_told:
                self._tell("another migrator is at work; waiting for its end")
            has_told = True
            time.sleep(_TURN_S)

    def _apply(self, migration: Migration) -> None:
        if not migration.is_in_transaction:
            self._tell(f"applying {migration.name}, while everybody goes on")
            self._apply_alone(migration)
            return
        self._tell(f"applying {migration.name}, in a transaction")
        ends_at, pause_s = time.monotonic() + self._patience.total_s, self._patience.pause_s
        while True:
            try:
                self._apply_in_transaction(migration)
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                holder = self._oldest_transaction()
                if time.monotonic() + pause_s > ends_at:
                    raise Locked(
                        f"{migration.name} was not applied: a table was in use all the time. {holder}"
                    ) from error
                self._tell(
                    f"{migration.name}: a table is in use; trying again in {pause_s:g} s. {holder}"
                )
                time.sleep(pause_s * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
                pause_s = min(2 * pause_s, self._patience.pause_s_max)
            except errors.QueryCanceled as error:
                raise MigrationTooSlow(
                    f"{migration.name} was not applied: a statement of it took longer than "
                    f"{_STATEMENT_TIMEOUT}, while others waited for its locks."
                ) from error
            else:
                return

    def _apply_in_transaction(self, migration: Migration) -> None:
        with self._connection.transaction():
            self._set("local lock_timeout", f"{self._patience.lock_s * 1000:.0f}ms")
            self._set("local statement_timeout", _STATEMENT_TIMEOUT)
            self._shut_out_old_code(migration)
            self._connection.execute(migration.text.encode())
            self._record(migration)

    def _apply_alone(self, migration: Migration) -> None:
        # Locks that such a statement waits for are of a kind that nobody else queues behind.
        self._set("lock_timeout", "0")
        self._set("statement_timeout", "0")
        self._drop_unfinished_indexes()
        self._connection.execute(migration.text.encode())
        self._record(migration)

    def _set(self, name: str, value: str) -> None:
        self._connection.execute(f"set {name} = '{value}'".encode())

    def _record(self, migration: Migration) -> None:
        self._connection.execute(
            "insert into migrations (name, sha256, oldest_code, version) values (%s, %s, %s, %s)",
            [migration.name, migration.sha256, migration.oldest_code, version()],
        )

    def _shut_out_old_code(self, migration: Migration) -> None:
        """Have no process connected that the migration leaves behind, and none connect until the commit.

        Connections read `migrations` first, with a lock that says what code they are.
        """
        query = "select coalesce(max(oldest_code), 1) from migrations"
        if self._connection.execute(query).fetchone() == (migration.oldest_code,):
            return
        self._connection.execute("lock table migrations in access exclusive mode")
        found = self._connection.execute(
            "select distinct pid, coalesce(host(client_addr), 'this machine') "
            "from pg_locks join pg_stat_activity using (pid) "
            "where locktype = 'advisory' and classid = %s and objid::bigint < %s and objsubid = 2 "
            "and database = (select oid from pg_database where datname = current_database())",
            [CODE_LOCK, migration.oldest_code],
        ).fetchall()
        if found:
            who = ", ".join(f"{pid} from {place}" for pid, place in sorted(found))
            raise OldCodeConnected(
                f"{migration.name} was not applied: it leaves code behind that does not know migration "
                f"{migration.oldest_code}, and such code is connected (PostgreSQL's processes {who}). "
                "Stop or upgrade it first."
            )

    def _drop_unfinished_indexes(self) -> None:
        found = self._connection.execute(
            "select n.nspname, c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
            "join pg_namespace n on n.oid = c.relnamespace "
            "where not i.indisvalid and n.nspname = current_schema()"
        ).fetchall()
        for schema, name in found:
            self._tell(f"dropping the index {name}, which a migrator has left unfinished")
            statement = sql.SQL("drop index concurrently {}").format(sql.Identifier(schema, name))
            self._connection.execute(statement)

    def _oldest_transaction(self) -> str:
        """Return a sentence about who is likely to hold what is waited for."""
        row = self._connection.execute(
            "select pid, coalesce(nullif(application_name, ''), backend_type), "
            "extract(epoch from now() - xact_start) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null "
            "order by xact_start limit 1"
        ).fetchone()
        if row is None:
            return "It is free now."
        pid, name, age_s = row
        return f"The oldest transaction is of PostgreSQL's process {pid} ({name}), since {age_s:.1f} s."


@contextmanager
def _foreign_tables() -> Iterator[None]:
    try:
        yield
    except (errors.DuplicateTable, errors.DuplicateFunction, errors.UndefinedColumn) as error:
        said = str(error).partition("\n")[0]
        raise ForeignTables(
            f"The database holds something that is not Refinery's ({said}): give it one of its own."
        ) from error


def _find_applied(connection: psycopg.Connection) -> dict[str, str]:
    """Return the digests of the migrations that the database has, by their names."""
    return dict(connection.execute("select name, sha256 from migrations").fetchall())


def _newest(
    connection: psycopg.Connection, known: Mapping[str, str]
) -> tuple[str, int, str | None]:
    """Return the name of the newest applied migration, the oldest code, and who has applied it."""
    if not known:
        return "", 0, None
    row = connection.execute(
        "select name, (select max(oldest_code) from migrations), version from migrations "
        "order by name desc limit 1"
    ).fetchone()
    assert row is not None  # it has rows
    return row


def _check_applied(known: Mapping[str, str], wanted: Sequence[Migration]) -> None:
    """Pass if all applied files are as they were; of newer ones than are wanted, the database speaks."""
    digests = {migration.name: migration.sha256 for migration in wanted}
    for name, digest in known.items():
        if number_of(name) <= wanted[-1].number and digests.get(name) != digest:
            raise MigrationChanged(
                f"The database was made by another version, whose {name} is not the one of this. "
                "Development versions before 0.2.0 cannot be upgraded: make a new database "
                "(`createdb`, or another --data-dir), and keep the old one until its results are "
                "exported."
            )
