"""Migrations: numbered, forward only, safe to run at any time and by anybody at once."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from blocks.settings import Settings
from blocks.store import migrations
from blocks.store.database import Database, DatabaseUnavailable
from blocks.store.migrations import MigrationChanged, migrate
from tests.conftest import DatabaseServer
from tests.integration.books import check_books
from tests.integration.conftest import Shop, Side, at_once

pytestmark = pytest.mark.integration
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
    assert {"jobs", "chunks", "tasks", "bad_lines", "labels", "tallies", "outbox"} <= tables(
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


# A job of six tasks and threshold 3, as version 1 kept it: one task with two labels and a holder, one that is
# held only, one that is tied, one that is settled, and two that nobody was handed.
_VERSION_1 = """
insert into customers (customer_id, name) values ('cust_a', 'Acme');
insert into annotators (annotator_id, name) select 'ann_' || n, 'annotator ' || n from generate_series(1, 4) n;
insert into jobs (job_id, customer_id, status, manifest_url, question, options, consensus_threshold,
    task_type, priority, stop_early, failure_threshold_percent, ingested_at)
values ('job_0123456789abcdefghjkmn', 'cust_a', 'processing', 's3://b/k', '?', '{cat,dog,fox}', 3,
    'sentiment', 5, false, 100, now());
insert into chunks (job_no, chunk_no, lines, tasks, bad_lines, fresh, fresh_from, settled)
values (1, 0, 6, 6, 0, 2, 400, 1);
insert into tasks select 1, n * 100, 0, n + 1, 'https://x.example.com/' || n, null from generate_series(0, 5) n;
insert into open_tasks values
    (1, 0, 0, 3, 2, '{1,1,0}', '{1,2,3}'), (1, 100, 0, 3, 0, '{0,0,0}', '{3}'),
    (1, 200, 0, 4, 3, '{1,1,1}', '{1,2,3}');
insert into labels values
    (1, 0, 1, 1), (1, 0, 2, 2), (1, 200, 1, 1), (1, 200, 2, 2), (1, 200, 3, 3),
    (1, 300, 1, 1), (1, 300, 2, 1), (1, 300, 3, 2);
insert into results values (1, 300, 1, 3, '{2,1,0}');
insert into leases values (1, 0, 3, now() + interval '1 hour'), (1, 100, 3, now() + interval '1 hour');
"""


def test_work_under_way_in_version_1_goes_on(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    with monkeypatch.context() as old:
        first = next(file for file in migrations._files() if file[0].startswith("0001"))
        use_files(old, first)
        migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute(_VERSION_1.encode())
    migrate(empty_url)
    with Database(empty_url, connections_max=4) as database:
        shop = Shop(database, empty_url, settings.vault())
        job = shop.job("job_0123456789abcdefghjkmn")
        check_books(shop, job)
        for annotator in (3, 4, 1, 2, *shop.annotators(3)):
            while shop.answer(annotator, "cat", 2):
                check_books(shop, job)
        assert (shop.job(job).status, shop.job(job).tasks_done) == ("completed", 6)
        assert shop.value("select count(*) from labels") == 3 + 3 + 4 + 3 + 3 + 3
