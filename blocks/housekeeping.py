"""Tidy the database from time to time, in any process and in any number of them at once.

Every step is a batch of bounded size, which passes over rows that others hold. None needs Prefect, so
all go on while Prefect is away.
"""

from collections.abc import Callable

import msgspec

from blocks.settings import Settings
from blocks.store import annotation, archive, counts, job_credentials, jobs, webhook_messages
from blocks.store.database import Database, Transaction

_BATCH = 500
_BATCHES_MAX = 20
_NOTIFICATIONS_KEPT_DAYS = 30
_COUNTS_MAX = 50_000
_ARCHIVE_STEPS_MAX = 5  # of some 16,000 tasks, which take PostgreSQL a third of a second each


class Tidied(msgspec.Struct, frozen=True):
    """Numbers of rows that were tidied."""

    leases_returned: int
    keys_purged: int
    credentials_wiped: int
    notifications_purged: int
    tasks_archived: int


def keep_house(database: Database, settings: Settings) -> Tidied:
    """Return leases that ran out, purge what is old, wipe credentials, fold counts, and archive labels.

    Raises:
        DatabaseUnavailable: the steps before it are done.
    """
    leases = in_batches(database, lambda tx: annotation.return_leases(tx, limit=_BATCH), _BATCH)
    keys = in_batches(database, lambda tx: jobs.purge_idempotency_keys(tx, limit=_BATCH), _BATCH)
    wiped = in_batches(
        database,
        lambda tx: job_credentials.wipe_old(tx, keep_s=settings.credentials_keep_s, limit=_BATCH),
        _BATCH,
    )
    notifications = in_batches(
        database,
        lambda tx: webhook_messages.purge(tx, days=_NOTIFICATIONS_KEPT_DAYS, limit=_BATCH),
        _BATCH,
    )
    with database.transaction() as tx:
        counts.fold(tx, limit=_COUNTS_MAX)
    archived = in_batches(
        database,
        lambda tx: archive.archive_some(tx, after_s=settings.archive_after_s),
        1,
        batches_max=_ARCHIVE_STEPS_MAX,
    )
    return Tidied(leases, keys, wiped, notifications, archived)


def in_batches(
    database: Database,
    step: Callable[[Transaction], int],
    size: int,
    *,
    batches_max: int = _BATCHES_MAX,
) -> int:
    """Repeat `step`, of up to `size` rows in a transaction, until it finds less; return the sum."""
    total = 0
    for _ in range(batches_max):
        with database.transaction() as tx:
            count = step(tx)
        total += count
        if count < size:
            break
    return total
