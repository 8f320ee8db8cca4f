"""Migrations: numbered, forward only, safe to run at any time and by anybody at once."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from blocks import store
from blocks.store import migrations
from blocks.store.database import DatabaseUnavailable
from blocks.store.migrations import ForeignTables, MigrationChanged, migrate
from deployments.embedded.postgres_programs import programs_folder
from tests.support.servers import KEY, DatabaseServer
from tests.support.side import Side, at_once

pytestmark = pytest.mark.integration
SCHEMA = Path(store.__path__[0]) / "schema.sql"
FILES = sorted(path.name for path in Path(migrations.__path__[0]).glob("*.sql"))


@pytest.fixture
def empty_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"test_{secrets.token_hex(6)}"
    admin = database_server.postgres.url("postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    url = database_server.postgres.url(name)
    yield url
    database_server.drop(url)


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def tables(url: str) -> set[str]:
    return {
        name
        for (name,) in query(url, "select tablename from pg_tables where schemaname = 'public'")
    }


def use_files(monkeypatch: pytest.MonkeyPatch, *files: tuple[str, str]) -> None:
    monkeypatch.setattr(migrations, "_files", lambda: list(files))


def test_a_fresh_database_gets_the_whole_schema(empty_url: str) -> None:
    assert migrate(empty_url) == FILES
    assert {"jobs", "chunks", "pages", "bad_lines", "labels", "tallies", "outbox"} <= tables(
        empty_url
    )


def test_files_are_numbered_without_a_gap() -> None:
    assert [int(name[:4]) for name in FILES] == list(range(1, len(FILES) + 1))


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    before = query(empty_url, "select name, sha256, applied_at from migrations order by name")
    assert migrate(empty_url) == []
    assert (
        query(empty_url, "select name, sha256, applied_at from migrations order by name") == before
    )


def test_of_three_that_migrate_at_once_one_does_the_work(empty_url: str) -> None:
    applied = at_once(*[lambda: migrate(empty_url)] * 3)
    assert sorted(applied, key=len) == [[], [], FILES]


def test_a_new_file_is_applied_to_an_old_database(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_files(monkeypatch, ("0001_a.sql", "create table a (x int)"))
    migrate(empty_url)
    use_files(
        monkeypatch, ("0001_a.sql", "create table a (x int)"), ("0002_b.sql", "create table b ()")
    )
    assert migrate(empty_url) == ["0002_b.sql"]
    assert tables(empty_url) == {"migrations", "a", "b"}


def test_an_edited_file_is_refused_and_nothing_after_it_applied(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_files(monkeypatch, ("0001_a.sql", "create table a (x int)"))
    migrate(empty_url)
    use_files(
        monkeypatch,
        ("0001_a.sql", "create table a (x bigint)"),
        ("0002_b.sql", "create table b ()"),
    )
    with pytest.raises(MigrationChanged, match=r"0001_a\.sql"):
        migrate(empty_url)
    assert tables(empty_url) == {"migrations", "a"}


def test_a_file_that_fails_leaves_nothing_and_can_be_mended(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_files(monkeypatch, ("0001_a.sql", "create table a (x int); select 1 / 0"))
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url)
    assert tables(empty_url) == {"migrations"}
    use_files(monkeypatch, ("0001_a.sql", "create table a (x int)"))
    assert migrate(empty_url) == ["0001_a.sql"]


def test_every_file_runs_with_a_lock_and_a_statement_timeout(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = (
        "create table {} as select current_setting('lock_timeout') as lock, "
        "current_setting('statement_timeout') as statement"
    )
    use_files(monkeypatch, ("0001_a.sql", keep.format("a")), ("0002_b.sql", keep.format("b")))
    migrate(empty_url)
    for table in "ab":
        assert query(empty_url, f"select * from {table}") == [("10s", "15min")]


def test_a_file_gives_up_on_a_table_that_others_hold(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "100ms")
    use_files(monkeypatch, ("0001_a.sql", "create table a (x int)"))
    migrate(empty_url)
    use_files(
        monkeypatch,
        ("0001_a.sql", "create table a (x int)"),
        ("0002_b.sql", "alter table a add column y int"),
    )
    with psycopg.connect(empty_url) as reader:
        reader.execute("select * from a")
        with pytest.raises(DatabaseUnavailable):
            Side(lambda: migrate(empty_url)).join()
    assert migrate(empty_url) == ["0002_b.sql"]


def test_a_database_of_a_development_version_is_refused_with_a_sentence(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [("0001_initial.sql", "create table jobs ()"), ("0002_runs.sql", "create table runs ()")]
    with monkeypatch.context() as earlier:
        use_files(earlier, *old)
        migrate(empty_url)
    for applied in (old, old[:1]):
        with psycopg.connect(empty_url) as connection:
            connection.execute("delete from migrations where name > %s", [applied[-1][0]])
        with pytest.raises(MigrationChanged, match=r"make a new database .* results are exported"):
            migrate(empty_url)
    assert tables(empty_url) == {"migrations", "jobs", "runs"}


@pytest.mark.parametrize(
    "theirs",
    ["create table jobs ()", "create table migrations (x int)", "create view labels as select 1"],
)
def test_a_database_of_somebody_else_is_refused_with_a_sentence(
    theirs: str, empty_url: str
) -> None:
    with psycopg.connect(empty_url) as connection:
        connection.execute(theirs.encode())
    before = tables(empty_url)
    with pytest.raises(ForeignTables, match="not Refinery's"):
        migrate(empty_url)
    assert tables(empty_url) - {"migrations"} == before - {"migrations"}


def test_an_api_does_not_start_on_a_database_that_is_not_of_its_version(
    empty_url: str,
) -> None:
    def start(url: str) -> str:
        environment = {**os.environ, "REFINERY_DATABASE_URL": url, "ASG_ENCRYPTION_KEY": KEY}
        script = "from api.__main__ import check_schema; check_schema()"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: PLW1510
        assert bool(done.stderr) == (done.returncode == 1)
        return done.stderr

    assert "`refinery db migrate` makes it" in start(empty_url)
    migrate(empty_url)
    assert start(empty_url) == ""
    assert start("postgresql://nobody@127.0.0.1:1/none") == ""  # it is waited for
    with psycopg.connect(empty_url) as connection:
        connection.execute("update migrations set sha256 = 'another'")
    assert "made by another version" in start(empty_url)


def test_the_schema_is_what_the_migrations_come_to(
    empty_url: str, database_server: DatabaseServer
) -> None:
    with psycopg.connect(empty_url) as connection:
        connection.execute(SCHEMA.read_bytes())
    migrated = database_server.clone()
    try:
        assert dump(empty_url) == dump(migrated)
    finally:
        database_server.drop(migrated)


def dump(url: str) -> list[str]:
    """All of a database's schema and what rows it has from the start, the migrations' own table aside."""
    tool = programs_folder() / "pg_dump"
    options = ("--no-owner", "--exclude-table=migrations", "--inserts")
    found = subprocess.run([tool, *options, url], check=True, capture_output=True, text=True)
    # A dump begins and ends with a word drawn at random, and tells the time of each first row.
    times = re.compile(r"'[-0-9]{10} [0-9:.]+\+00'")
    lines = found.stdout.splitlines()
    return [times.sub("now", each) for each in lines if not re.match(r"\\(un)?restrict ", each)]
