"""Migrations: numbered, forward only, safe to run at any time and by anybody at once."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks import store
from blocks.store import migrations
from blocks.store.database import Locked
from blocks.store.migrations import (
    ForeignTables,
    MigrationChanged,
    MigrationTooSlow,
    Patience,
    migrate,
)
from blocks.store.schema_files import BadMigration, read_files
from deployments.embedded.postgres_programs import programs_folder
from tests.support.made_migrations import write_files
from tests.support.servers import KEY, DatabaseServer

pytestmark = pytest.mark.integration
SCHEMA = Path(store.__path__[0]) / "schema.sql"
FILES = sorted(path.name for path in Path(migrations.__path__[0]).glob("*.sql"))


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def tables(url: str) -> set[str]:
    return {
        name
        for (name,) in query(url, "select tablename from pg_tables where schemaname = 'public'")
    }


def columns(url: str, table: str) -> set[str]:
    found = f"select column_name from information_schema.columns where table_name = '{table}'"
    return {name for (name,) in query(url, found)}


A = {"0001_a.sql": "create table a (x int)"}
B = {"0002_b.sql": "-- oldest-code: 1\n\ncreate table b ()"}


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


def test_a_new_file_is_applied_to_an_old_database(empty_url: str, tmp_path: Path) -> None:
    migrate(empty_url, folder=write_files(tmp_path, A))
    assert migrate(empty_url, folder=write_files(tmp_path, B)) == ["0002_b.sql"]
    assert tables(empty_url) == {"migrations", "a", "b"}


def test_an_edited_file_is_refused_and_nothing_after_it_applied(
    empty_url: str, tmp_path: Path
) -> None:
    migrate(empty_url, folder=write_files(tmp_path, A))
    edited = write_files(tmp_path, {"0001_a.sql": "create table a (x bigint)"}, B)
    with pytest.raises(MigrationChanged, match=r"0001_a\.sql"):
        migrate(empty_url, folder=edited)
    assert tables(empty_url) == {"migrations", "a"}


def test_a_file_that_fails_leaves_nothing_and_can_be_mended(empty_url: str, tmp_path: Path) -> None:
    wrong = {"0001_a.sql": "create table a (x int); select 1 / 0"}
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url, folder=write_files(tmp_path, wrong))
    assert tables(empty_url) == {"migrations"}
    assert migrate(empty_url, folder=write_files(tmp_path, A)) == ["0001_a.sql"]


@pytest.mark.parametrize(
    "name, text, wrong",
    [
        ("0002_b.sql", "create table b ()", "`-- oldest-code: N` at its head, from 1 to 2"),
        ("0002_b.sql", "-- oldest-code: 3\n\nselect 1", "from 1 to 2"),
        ("0002_b.sql", "-- oldest-code: 2\n-- transaction: no\n\nselect 1", "in a transaction"),
        ("0003_b.sql", "-- oldest-code: 1\n\nselect 1", "numbered without a gap"),
        ("2_b.sql", "select 1", "no name of a migration"),
    ],
)
def test_a_file_that_does_not_say_what_it_has_to_is_refused(
    name: str, text: str, wrong: str, tmp_path: Path
) -> None:
    with pytest.raises(BadMigration, match=re.escape(wrong)):
        read_files(write_files(tmp_path, A, {name: text}))


def test_every_file_runs_with_a_lock_and_a_statement_timeout(
    empty_url: str, tmp_path: Path
) -> None:
    keep = (
        "-- oldest-code: 1\n\ncreate table {} as select current_setting('lock_timeout') as lock, "
        "current_setting('statement_timeout') as statement"
    )
    files = {"0001_a.sql": keep.format("a"), "0002_b.sql": keep.format("b")}
    migrate(empty_url, folder=write_files(tmp_path, files))
    for table in "ab":
        assert query(empty_url, f"select * from {table}") == [("100ms", "10s")]


def test_a_statement_that_others_would_have_to_wait_for_is_undone_with_a_sentence(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_STATEMENT_TIMEOUT", "50ms")
    slow = {"0002_b.sql": "-- oldest-code: 1\n\nalter table a add y int; select pg_sleep(60)"}
    with pytest.raises(MigrationTooSlow, match=r"0002_b\.sql was not applied"):
        migrate(empty_url, folder=write_files(tmp_path, A, slow))
    assert query(empty_url, "select * from a") == []
    assert columns(empty_url, "a") == {"x"}


def test_a_file_gives_up_on_a_table_that_is_in_use_all_the_time(
    empty_url: str, tmp_path: Path
) -> None:
    migrate(empty_url, folder=write_files(tmp_path, A))
    folder = write_files(tmp_path, {"0002_b.sql": "-- oldest-code: 1\n\nalter table a add y int"})
    told: list[str] = []
    with psycopg.connect(empty_url, application_name="nightly dump") as reader:
        reader.execute("select * from a")
        with pytest.raises(Locked, match=r"of PostgreSQL's process \d+ \(nightly dump\)"):
            migrate(
                empty_url,
                folder=folder,
                tell=told.append,
                patience=Patience(0.02, 0.01, total_s=0.2),
            )
    assert len([each for each in told if "a table is in use; trying again" in each]) > 1
    assert migrate(empty_url, folder=folder) == ["0002_b.sql"]


def test_a_database_of_a_development_version_is_refused_with_a_sentence(
    empty_url: str, tmp_path: Path
) -> None:
    old = {
        "0001_initial.sql": "create table jobs ()",
        "0002_runs.sql": "-- oldest-code: 1\n\ncreate table runs ()",
    }
    migrate(empty_url, folder=write_files(tmp_path, old))
    for _ in range(2):
        with pytest.raises(MigrationChanged, match=r"make a new database .* results are exported"):
            migrate(empty_url)
        query(empty_url, "delete from migrations where name = '0002_runs.sql' returning name")
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
