"""Tidy the database from time to time, in any process and in any number of them at once.

Every step is a batch of bounded size, which passes over rows that others hold. None needs Prefect, so
all go on while Prefect is away.
"""

from collections.abc import Callable

import msgspec

from blocks.settings import Settings
from blocks.store import (
    archive,
    audit,
    counts,
    deleted_jobs,
    exclusions,
    job_credentials,
    jobs,
    keys,
    lease_returns,
    passes,
    reviews,
    sessions,
    skills,
    webhook_messages,
)
from blocks.store.audit import Actor
from blocks.store.database import Database, Transaction

_BATCH = 500
_BATCHES_MAX = 20
_NOTIFICATIONS_KEPT_DAYS = 30
_COUNTS_MAX = 50_000
_DELETED_MAX = 100
_REMOVAL_STEPS_MAX = 40  # of up to 10,000 rows, or 500 large ones
_ARCHIVE_STEPS_MAX = 5  # of some 16,000 tasks, which take PostgreSQL a third of a second each


class Tidied(msgspec.Struct, frozen=True):
    """Numbers of rows that were tidied."""

    leases_returned: int
    reviews_timed_out: int
    keys_purged: int
    credentials_wiped: int
    notifications_purged: int
    tasks_archived: int
    requests_compared: int
    exclusion_steps: int
    sessions_ended: int
    audit_purged: int
    jobs_deleted: int
    removal_steps: int
    notifications_expired: int


def keep_house(database: Database, settings: Settings) -> Tidied:
    """Return leases that ran out, end reviews whose deadline is over, purge what is old, and so on.

    It also gives messages up that nobody can be told, wipes credentials, folds counts, archives labels,
    and removes what is left of deleted jobs.

    Compare labels with results, too, and set the labels of excluded annotators aside.

    Raises:
        DatabaseUnavailable: the steps before it are done.
    """
    leases = in_batches(database, lambda tx: lease_returns.return_leases(tx, limit=_BATCH), _BATCH)
    timed_out = in_batches(database, lambda tx: reviews.time_out(tx, limit=_BATCH), _BATCH)
    keys_purged = in_batches(
        database, lambda tx: jobs.purge_idempotency_keys(tx, limit=_BATCH), _BATCH
    )
    keys_purged += in_batches(database, lambda tx: keys.purge_answers(tx, limit=_BATCH), _BATCH)
    wiped = in_batches(
        database,
        lambda tx: job_credentials.wipe_old(tx, keep_s=settings.credentials_keep_s, limit=_BATCH),
        _BATCH,
    )
    expired = in_batches(database, lambda tx: webhook_messages.expire(tx, limit=_BATCH), _BATCH)
    notifications = in_batches(
        database,
        lambda tx: webhook_messages.purge(tx, days=_NOTIFICATIONS_KEPT_DAYS, limit=_BATCH),
        _BATCH,
    )
    with database.transaction() as tx:
        counts.fold(tx, limit=_COUNTS_MAX)
    compared = in_batches(database, lambda tx: skills.compare_some(tx, limit=_BATCH), _BATCH)
    excluded = exclusions.go_on(database)
    archived = in_batches(
        database,
        lambda tx: archive.archive_some(tx, after_s=settings.archive_after_s),
        1,
        batches_max=_ARCHIVE_STEPS_MAX,
    )
    ended = in_batches(database, lambda tx: sessions.end_expired(tx, limit=_BATCH), _BATCH)
    audited = in_batches(database, lambda tx: audit.purge(tx, limit=_BATCH), _BATCH)
    deleted = 0
    if settings.keep_days:
        deleted = delete_old(database, audit.HOUSEKEEPING, days=settings.keep_days)
    removed = remove_deleted(database, steps_max=_REMOVAL_STEPS_MAX)
    with database.transaction() as tx:
        passes.record(tx, "housekeeping")
    return Tidied(
        leases, timed_out, keys_purged, wiped, notifications, archived, compared, excluded, ended,
        audited, deleted, removed, expired,
    )  # fmt: skip


def delete_old(
    database: Database, actor: Actor, *, days: int, customer_id: str | None = None
) -> int:
    """Delete up to 2,000 jobs that ended so many days ago, the oldest first; return how many.

    They are one customer's, or with None of all.
    """
    return in_batches(
        database,
        lambda tx: deleted_jobs.delete_old(
            tx, actor, days=days, customer_id=customer_id, limit=_DELETED_MAX
        ),
        _DELETED_MAX,
    )


def remove_deleted(database: Database, *, steps_max: int) -> int:
    """Remove what is left of deleted jobs in up to `steps_max` steps; return how many were done."""
    with database.transaction() as tx:
        deleted_jobs.await_writers(tx)
    steps = 0
    while steps < steps_max:
        with database.transaction() as tx:
            if not deleted_jobs.remove_some(tx):
                break
        steps += 1
    return steps


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
