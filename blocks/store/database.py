"""Connections and transactions."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Self

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from blocks.store import interrupts, schema_versions, transactions
from blocks.store.interrupts import Interrupt
from blocks.store.queries import Statement
from blocks.store.schema_files import own_number
from blocks.store.unavailable import DatabaseUnavailable, DiskFull, Locked, ReadOnly, translated

__all__ = [
    "LONG_READ", "SHORT_STATEMENTS", "Database", "DatabaseUnavailable", "DiskFull", "Locked",
    "PoolUse", "ReadOnly", "Rollback", "Transaction", "allow_time", "connect", "translated",
]  # fmt: skip

Transaction = transactions.Transaction

Rollback = psycopg.Rollback
"""Raised in a `tx.transaction()`, it undoes that, and the code after it goes on."""

LONG_READ = "refinery long read"
"""The `application_name` of the connections of `Database.long_read`."""

_WAIT_FOR_CONNECTION_S = 5.0
# Exports that are read slowly must not take all the connections that the server has.
_LONG_READS_MAX = 32
# A statement that runs longer holds locks that everybody waits for.
_STATEMENT_S_MAX = 60.0
# A client that hangs in the middle of a transaction, and is not dead, would hold its locks for ever.
_IDLE_S_MAX = 60.0
_FOR_EVER_S = 0.0  # as PostgreSQL has it
# By default the pool waits up to five minutes before it tries again whether the server is back.
_RECONNECT_S_MAX = 5.0
# Short statements look rows up by their keys, and are planned once. Planning takes longer than running
# them, and statistics mislead: tables grow from nothing to millions of rows within minutes.
SHORT_STATEMENTS = (
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off"
)
_ALLOW_TIME = Statement("select set_config('statement_timeout', %(time)s, true)")
_CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    # The server ends the statements of clients that have gone; it looks each second.
    "options": "-c timezone=UTC -c client_connection_check_interval=1000",
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class PoolUse(msgspec.Struct, frozen=True):
    """How much of a pool of connections is in use."""

    in_use: int
    """Connections that somebody has, or that are being opened."""
    most: int
    """How many there may be."""
    waiting: int
    """Threads that wait for one."""


class Database:
    """A pool of connections to the store; opened lazily, closed by `with` or `close`.

    A statement may take `statement_s_max` seconds, and wait `lock_s_max` seconds for each lock; 0 is for
    ever. `schema_number` is that of the newest migration that the code knows, by default this code.
    """

    def __init__(
        self,
        url: str,
        *,
        connections_max: int,
        statement_s_max: float = _STATEMENT_S_MAX,
        lock_s_max: float = _FOR_EVER_S,
        schema_number: int | None = None,
    ) -> None:
        self._url = url
        self._schema_number = schema_number or own_number()
        waits = f"{_CONNECTION['options']} -c lock_timeout={lock_s_max * 1000:.0f}"
        self._connection = _CONNECTION | {
            "row_factory": dict_row,
            "autocommit": True,
            "options": waits,
        }
        statements = (
            f"{SHORT_STATEMENTS} -c statement_timeout={statement_s_max * 1000:.0f} "
            f"-c idle_in_transaction_session_timeout={_IDLE_S_MAX * 1000:.0f}"
        )
        self._drained_at = 0.0
        self._long_reads = threading.BoundedSemaphore(_LONG_READS_MAX)
        self._pool = ConnectionPool[Transaction](
            url,
            min_size=0,
            max_size=connections_max,
            timeout=_WAIT_FOR_CONNECTION_S,
            reconnect_timeout=_RECONNECT_S_MAX,
            check=self._begin,
            connection_class=Transaction,
            kwargs={
                **self._connection,
                "options": f"{waits} {statements}",
            },
            open=False,
        )

    def _begin(self, connection: Transaction) -> None:
        """Begin a transaction, unless the server has closed the connection.

        Then it has mostly closed all, as it was started again: the pool would find that of one after the
        other, with longer and longer pauses, and be of no use until it is through.
        """
        try:
            connection.begin()
        except psycopg.OperationalError:
            if connection.made_at > self._drained_at:
                self._drained_at = time.monotonic()
                self._pool.drain()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Yield a transaction: committed at the end, rolled back when something is raised.

        Raises:
            Locked: a statement waited for a lock for too long.
            WrongSchema: the database is not of a version that this code works with.
            DatabaseUnavailable: there was no connection in time, it broke, the server ended it, or the
                thread's `Interrupt` has.
        """
        self._pool.open()
        interrupt = interrupts.of_this_thread()
        with translated():
            connection = self._pool.getconn()
            try:
                if not interrupt.hold(connection):
                    raise DatabaseUnavailable("The database has not answered in time.")
                if not connection.is_verified:
                    self._verify(connection)
                    connection.begin()
                with connection:
                    try:
                        yield connection
                    except Rollback:
                        connection.rollback()
            finally:
                interrupt.let_go()
                self._pool.putconn(connection)

    @contextmanager
    def long_read(self, interrupt: Interrupt | None = None) -> Iterator[Transaction]:
        """Yield a transaction on a connection of its own, without a time limit; `interrupt` can end it.

        Raises:
            DatabaseUnavailable: as in `transaction`, or too many are under way.
        """
        if not self._long_reads.acquire(blocking=False):
            raise DatabaseUnavailable(f"{_LONG_READS_MAX} long reads are under way.")
        try:
            # Closed, not rolled back: that would wait for ever for a COPY that nobody reads.
            with (
                translated(),
                closing(self._connect_for_long()) as connection,
                _interruptible(connection, interrupt or Interrupt()),
            ):
                self._verify(connection)
                connection.begin()
                yield connection
        finally:
            self._long_reads.release()

    def _verify(self, connection: Transaction) -> None:
        connection.rollback()
        try:
            schema_versions.verify(connection, self._schema_number)
        except schema_versions.WrongSchema:
            connection.close()  # it is marked as one of this code
            raise
        connection.is_verified = True

    def _connect_for_long(self) -> Transaction:
        return Transaction.connect(self._url, **self._connection | {"application_name": LONG_READ})

    def listen(self, channel: str, *, timeout_s: float, interrupt: Interrupt) -> Iterator[None]:
        """Yield once it listens, then after each notification, or after `timeout_s` without one.

        Raises:
            DatabaseUnavailable: the connection broke, or `interrupt` has ended it.
        """
        with (
            translated(),
            Transaction.connect(self._url, **self._connection) as connection,
            _interruptible(connection, interrupt),
        ):
            self._verify(connection)
            connection.execute(psycopg.sql.SQL("listen {}").format(psycopg.sql.Identifier(channel)))
            while True:
                yield
                for _ in connection.notifies(timeout=timeout_s, stop_after=1):
                    pass

    def use(self) -> PoolUse:
        """Return how much of the pool is in use; asks the server nothing."""
        found = self._pool.get_stats()
        in_use = found.get("pool_size", 0) - found.get("pool_available", 0)
        return PoolUse(max(in_use, 0), self._pool.max_size, found.get("requests_waiting", 0))

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(url: str) -> psycopg.Connection:
    """Return a connection in autocommit, of no pool, that does not ask which schema there is."""
    return psycopg.connect(url, autocommit=True, **_CONNECTION)


def allow_time(tx: Transaction, seconds: int) -> None:
    """Let each statement of this transaction take so many seconds, where its work has no bound."""
    tx.execute_later(_ALLOW_TIME, {"time": f"{seconds}s"})
    interrupts.of_this_thread().needs_s = seconds


@contextmanager
def _interruptible(connection: psycopg.Connection[Any], interrupt: Interrupt) -> Iterator[None]:
    try:
        if interrupt.hold(connection):
            yield
        else:
            raise DatabaseUnavailable("Nobody waits for it any more.")
    finally:
        interrupt.let_go()
