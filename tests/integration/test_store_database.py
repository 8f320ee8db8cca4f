"""Transactions: their statements, and connections that are closed or stopped in the middle."""

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.errors import DivisionByZero

from blocks.store import database as module
from blocks.store.database import Database, DatabaseUnavailable
from blocks.store.queries import Statement
from tests.support.side import at_once

pytestmark = pytest.mark.integration


def test_a_client_that_has_stopped_holds_its_locks_for_a_while_only(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(database_url, connections_max=1) as other:
        monkeypatch.setattr(module, "_IDLE_S_MAX", 0.2)
        with pytest.raises(DatabaseUnavailable):
            _stop_in_the_middle(database_url, other)


def _stop_in_the_middle(url: str, other: Database) -> None:
    with Database(url, connections_max=1) as stopped, stopped.transaction() as tx:
        tx.execute("lock table jobs")
        with other.transaction() as waiting:
            waiting.execute("lock table jobs")  # had when the server has ended the first
        tx.execute("select 1")


_SUM = Statement("select %(a)s::bigint + %(b)s::bigint as sum, %(a)s::text as first")
_PID = Statement("select pg_backend_pid() as pid")
_DIVIDE = Statement("select 1 / %(by)s::integer")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url, connections_max=1) as database:
        yield database


def test_a_statement_answers_the_same_before_and_after_it_is_prepared(database: Database) -> None:
    for n in range(12):
        with database.transaction() as tx:
            rows = tx.execute(_SUM, {"b": n, "a": 2**40}).fetchall()
        assert rows == [{"sum": 2**40 + n, "first": str(2**40)}]
    with database.transaction() as tx:
        names = tx.execute("select name from pg_prepared_statements where statement like '%+%'")
        assert len(names.fetchall()) == 1


def test_a_statement_takes_any_type_after_it_is_prepared_for_another(database: Database) -> None:
    kept = Statement("select %(kept)s::text as kept")
    for value in (1, "one", None, 2**40) * 8:
        with database.transaction() as tx:
            row = tx.execute(kept, {"kept": value}).fetchone()
        assert row == {"kept": None if value is None else str(value)}


def test_rows_are_read_once_in_any_way(database: Database) -> None:
    numbers = Statement("select n from generate_series(1, 4) as n")
    with database.transaction() as tx:
        rows = tx.execute(numbers)
        assert rows.rowcount == 4
        assert rows.fetchone() == {"n": 1}
        assert next(iter(rows)) == {"n": 2}
        assert rows.fetchall() == [{"n": 3}, {"n": 4}]
        assert rows.fetchone() is None


def test_a_connection_that_the_server_has_closed_is_replaced_unnoticed(
    database: Database, database_url: str
) -> None:
    with database.transaction() as tx:
        closed = tx.execute(_PID).fetchone()
    with psycopg.connect(database_url, autocommit=True) as operator:
        operator.execute("select pg_terminate_backend(%(pid)s, 5000)", closed)
    with database.transaction() as tx:
        assert tx.execute(_PID).fetchone() != closed


def test_a_pool_whose_connections_the_server_has_closed_is_of_use_at_once(
    database_url: str,
) -> None:
    with Database(database_url, connections_max=12) as database:
        with ExitStack() as stack:
            pids = {
                stack.enter_context(database.transaction()).execute(_PID).fetchone()["pid"]  # type: ignore[index]
                for _ in range(12)
            }
        with psycopg.connect(database_url, autocommit=True) as operator:
            for pid in pids:
                operator.execute("select pg_terminate_backend(%(pid)s, 5000)", {"pid": pid})

        def ask() -> int:
            with database.transaction() as tx:
                row = tx.execute(_PID).fetchone()
            assert row is not None
            return int(row["pid"])

        assert ask() not in pids
        assert pids.isdisjoint(at_once(*[ask] * 6))


def test_a_statement_that_fails_leaves_nothing_of_its_transaction(database: Database) -> None:
    for n in range(8):  # prepared from the sixth on
        with pytest.raises(DivisionByZero), database.transaction() as tx:
            tx.execute(_DIVIDE, {"by": 0})
        with pytest.raises(DivisionByZero):
            _fail_half_done(database)
        with database.transaction() as tx:
            row = tx.execute("select to_regclass('half_done') as found").fetchone()
        assert row == {"found": None}, n


def test_what_runs_later_runs_with_the_next_statement_or_with_the_commit(
    database: Database,
) -> None:
    add = Statement("insert into noted values (%(n)s)")
    with database.transaction() as tx:
        tx.execute("create temporary table noted (n integer)")
    with database.transaction() as tx:
        tx.execute_later(add, {"n": 1})
        assert tx.execute("select n from noted").fetchall() == [{"n": 1}]
        tx.execute_later(add, {"n": 2})
    for has_next in (True, False):
        with pytest.raises(DivisionByZero):
            _fail_later(database, add, has_next=has_next)
    with database.transaction() as tx:
        assert tx.execute("select n from noted order by n").fetchall() == [{"n": 1}, {"n": 2}]


def test_a_batch_larger_than_what_the_socket_takes_arrives_whole(database: Database) -> None:
    # The server answers the first while it is sent the second, so both sides have their buffers full.
    echo = Statement("select %(text)s::text as text")
    text = "x" * (16 * 1024 * 1024)
    with database.transaction() as tx:
        tx.execute_later(echo, {"text": text})
        assert tx.execute(echo, {"text": text}).fetchone() == {"text": text}


def _fail_half_done(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("create table half_done ()")
        tx.execute(_DIVIDE, {"by": 0})


def _fail_later(database: Database, add: Statement, *, has_next: bool) -> None:
    with database.transaction() as tx:
        tx.execute_later(add, {"n": 3})
        tx.execute_later(_DIVIDE, {"by": 0})
        if has_next:
            tx.execute(add, {"n": 4})
