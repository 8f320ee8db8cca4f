"""End what a thread waits for in the database, from another thread.

A server that hangs answers nothing, not even a request to cancel. So the connection is shut: the thread
that reads from it sees its end, and the server, which checks its clients each second, ends the
statement.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

Connection = psycopg.Connection[Any]

_T = TypeVar("_T")


class Interrupt:
    """Ends the transaction that one thread is in, and lets it begin no other.

    `needs_s` is how many seconds the thread may need for what it does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self.has_fired = False
        self.needs_s = 0.0

    def fire(self) -> None:
        """Shut the connection that is in use, if any. Waits for nothing."""
        with self._lock:
            self.has_fired = True
            if self._connection is not None:
                _shut(self._connection)

    def hold(self, connection: Connection) -> bool:
        """Take charge of `connection` until `let_go`; return False if it is too late for that."""
        with self._lock:
            if not self.has_fired:
                self._connection = connection
            return not self.has_fired

    def let_go(self) -> None:
        """Forget the connection: it goes back to the pool."""
        with self._lock:
            self._connection = None

    def over(self, function: Callable[[], _T]) -> _T:
        """Call `function`, whose transactions in this thread it can end meanwhile."""
        before, _here.interrupt = of_this_thread(), self
        try:
            return function()
        finally:
            _here.interrupt = before


class _Never(Interrupt):
    """The interrupt of threads that nobody ends."""

    def hold(self, connection: Connection) -> bool:
        del connection
        return True

    def let_go(self) -> None:
        pass


_NEVER = _Never()
_here = threading.local()


def of_this_thread() -> Interrupt:
    """Return the interrupt that can end what this thread does."""
    found: Interrupt = getattr(_here, "interrupt", _NEVER)
    return found


def _shut(connection: Connection) -> None:
    try:
        descriptor = os.dup(connection.fileno())
    except (psycopg.Error, OSError):
        return  # it has been closed
    with socket.socket(fileno=descriptor) as shared, suppress(OSError):
        shared.shutdown(socket.SHUT_RDWR)
