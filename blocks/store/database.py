"""Connections and transactions, and the one place that translates the driver's errors."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Self

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from blocks.errors import Transient

Transaction = psycopg.Connection[DictRow]

Rollback = psycopg.Rollback
"""Raise it to undo the innermost `tx.transaction()` and go on after it."""

_WAIT_FOR_CONNECTION_S = 5.0
# Exports that are read slowly must not take all the connections that the server has.
_LONG_READS_MAX = 32
# A statement that runs longer holds locks that everybody waits for.
_STATEMENT_TIMEOUT_MS = 60_000
# The pool would wait up to five minutes before it asks again whether the server is back.
_RECONNECT_S_MAX = 5.0
# Short statements look rows up by their keys, and are planned once. To plan them each time takes longer
# than to run them, and statistics mislead: tables grow from nothing to millions within minutes.
SHORT_STATEMENTS = (
    f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} "
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off"
)
_CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "options": "-c timezone=UTC",
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class DatabaseUnavailable(Transient):
    """PostgreSQL cannot be reached, is starting, or has no room."""

    code = "database_unavailable"


class Database:
    """A pool of connections to the store; opened lazily, closed by `with` or `close`."""

    def __init__(self, url: str, *, connections_max: int) -> None:
        self._url = url
        self._long_reads = threading.BoundedSemaphore(_LONG_READS_MAX)
        self._pool = ConnectionPool[Transaction](
            url,
            min_size=0,
            max_size=connections_max,
            timeout=_WAIT_FOR_CONNECTION_S,
            reconnect_timeout=_RECONNECT_S_MAX,
            check=_begin,
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,  # `_begin` does what the driver would do on top of it
                **_CONNECTION,
                "options": f"{_CONNECTION['options']} {SHORT_STATEMENTS}",
            },
            open=False,
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: committed at the end, rolled back when something is raised.

        Raises:
            DatabaseUnavailable: no connection in time, it broke, or the server gave way.
        """
        self._pool.open()
        with translated(), self._pool.connection() as connection:
            try:
                yield connection
            except Rollback:
                connection.rollback()

    @contextmanager
    def long_read(self) -> Iterator[Transaction]:
        """A transaction on a connection of its own and without a time limit.

        Raises:
            DatabaseUnavailable: as in `transaction`, or too many are under way.
        """
        if not self._long_reads.acquire(blocking=False):
            raise DatabaseUnavailable(f"{_LONG_READS_MAX} long reads are under way.")
        try:
            kwargs: dict[str, Any] = {"row_factory": dict_row, **_CONNECTION}
            # Closed, not rolled back: that would wait for ever for a COPY that nobody reads.
            with translated(), closing(psycopg.connect(self._url, **kwargs)) as connection:
                yield connection
        finally:
            self._long_reads.release()

    def listen(self, channel: str, *, timeout_s: float) -> Iterator[None]:
        """Yields when it listens, then after each notification, or after `timeout_s` without one."""
        with (
            translated(),
            psycopg.connect(self._url, autocommit=True, **_CONNECTION) as connection,
        ):
            connection.execute(psycopg.sql.SQL("listen {}").format(psycopg.sql.Identifier(channel)))
            while True:
                yield
                for _ in connection.notifies(timeout=timeout_s, stop_after=1):
                    pass

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _begin(connection: Transaction) -> None:
    """Begin the transaction that the connection is taken for, and see in this way that it works."""
    connection.execute("begin")


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the driver raises when the server is not to be had as `DatabaseUnavailable`."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        # Lost connections, a server that is starting, a full disk, deadlocks, timeouts.
        reason = str(error).strip().partition("\n")[0]
        raise DatabaseUnavailable(f"The database is not available: {reason}") from error
