"""The errors of a database that cannot work now, and the one place that makes them of the driver's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from blocks.domain.errors import Transient


class DatabaseUnavailable(Transient):
    """PostgreSQL cannot be reached, is starting, or has no room."""

    code = "database_unavailable"
    status: ClassVar[str] = "unreachable"
    """The word of `/health/ready` for it."""


class ReadOnly(DatabaseUnavailable):
    """PostgreSQL takes no writes: it is a standby, or was set to read only."""

    status = "read_only"


class DiskFull(DatabaseUnavailable):
    """The disk of PostgreSQL is full."""

    status = "disk_full"


class Locked(DatabaseUnavailable):
    """A statement has waited for a lock for longer than it may."""

    code = "locked"
    status = "locked"


_KINDS: tuple[tuple[type[Exception], type[DatabaseUnavailable]], ...] = (
    (errors.LockNotAvailable, Locked),
    (errors.ReadOnlySqlTransaction, ReadOnly),
    (errors.DiskFull, DiskFull),
)


@contextmanager
def translated() -> Iterator[None]:
    """Translate the driver's errors about a server that is away or gives up to `DatabaseUnavailable`."""
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        PoolTimeout,
        errors.ReadOnlySqlTransaction,
        errors.IdleInTransactionSessionTimeout,
    ) as error:
        # Lost connections, a server that is starting, a full disk, deadlocks, timeouts.
        kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), None)
        reason = str(error).strip().partition("\n")[0]
        raise (kind or DatabaseUnavailable)(f"The database is not available: {reason}") from error
