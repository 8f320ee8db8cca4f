"""The audit log: who has changed what, and when.

A line is written in the transaction of the act, so there is none without the other. It has no secret,
and nothing of what a customer sent: ids, names of people, counts.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

from blocks.store.database import Transaction
from blocks.store.jobs import Job
from blocks.store.queries import load

_SQL = load("audit")

_LOOKED_MAX = 5_000
_AFTER_ALL = 2**63 - 1

Detail = str | int | float | bool | list[str] | None


class Action(StrEnum):
    """What is recorded: all that operators change, and of customers what an owner asks about."""

    CUSTOMER_MADE = "customer_made"
    KEY_MADE = "key_made"
    KEY_REVOKED = "key_revoked"
    SIGN_IN_LINK_MADE = "sign_in_link_made"
    ANNOTATOR_GRANTED = "annotator_granted"
    ANNOTATOR_WITHDRAWN = "annotator_withdrawn"
    JOB_CANCELLED = "job_cancelled"
    JOB_DELETED = "job_deleted"
    DELIVERY_BEGUN = "delivery_begun"
    JOB_RETRIED = "job_retried"
    JOB_PAUSED = "job_paused"
    JOB_RESUMED = "job_resumed"
    JOB_PRIORITY_CHANGED = "job_priority_changed"
    CUSTOMER_PAUSED = "customer_paused"
    CUSTOMER_RESUMED = "customer_resumed"
    CUSTOMER_LIMITS_CHANGED = "customer_limits_changed"
    ANNOTATOR_EXCLUDED = "annotator_excluded"
    CREDENTIALS_WIPED = "credentials_wiped"
    WEBHOOK_MADE = "webhook_made"
    WEBHOOK_DELETED = "webhook_deleted"
    WEBHOOK_SECRET_CHANGED = "webhook_secret_changed"  # noqa: S105 - the name of an act
    WEBHOOK_MESSAGE_REPLAYED = "webhook_message_replayed"
    MANIFEST_RESUBMITTED = "manifest_resubmitted"
    MANIFEST_IGNORED = "manifest_ignored"
    ENCRYPTION_KEY_CHANGED = "encryption_key_changed"
    SCHEMA_MIGRATED = "schema_migrated"


class ActorRole(StrEnum):
    """Who can act: customers and operators by keys, operators at a command line, and housekeeping."""

    CUSTOMER = "customer"
    ADMIN = "admin"
    COMMAND_LINE = "command_line"
    HOUSEKEEPING = "housekeeping"


class TargetKind(StrEnum):
    """What an act is done to."""

    CUSTOMER = "customer"
    KEY = "key"
    ANNOTATOR = "annotator"
    JOB = "job"
    WEBHOOK = "webhook"
    WEBHOOK_MESSAGE = "webhook_message"
    STREAM = "stream"
    DATABASE = "database"


class Actor(NamedTuple):
    """Who acts: the hash of their key; without one None, their role, and what they are called.

    At a command line that is the name of their account.
    """

    key_hash: bytes | None
    name: str = ""
    role: ActorRole = ActorRole.COMMAND_LINE


class Target(NamedTuple):
    """What is acted on, by its public id, and whose it is; None where it is no one customer's."""

    kind: TargetKind
    id: str
    customer_id: str | None = None


def job(found: Job) -> Target:
    """Return a job as what is acted on."""
    return Target(TargetKind.JOB, found.job_id, found.customer_id)


def customer(customer_id: str) -> Target:
    """Return a customer as what is acted on."""
    return Target(TargetKind.CUSTOMER, customer_id, customer_id)


def key(key_id: str, customer_id: str | None) -> Target:
    """Return a key as what is acted on."""
    return Target(TargetKind.KEY, key_id, customer_id)


DATABASE = Target(TargetKind.DATABASE, "database")


HOUSEKEEPING = Actor(None, "REFINERY_KEEP_DAYS", ActorRole.HOUSEKEEPING)


class Line(msgspec.Struct, frozen=True):
    """One act. `actor_id` is the id of the key, or without one the role; `actor_name` as it was."""

    audit_id: str
    at: datetime
    actor_role: ActorRole
    actor_id: str
    actor_name: str
    action: Action
    target_kind: TargetKind
    target_id: str
    customer_id: str | None
    details: dict[str, Detail]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines: those of all of these that are given, from `since` on and before `until`."""

    customer_id: str | None = None
    action: Action | None = None
    actor: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Found(NamedTuple):
    """A page of lines, newest first, and the id after which the next one begins; None on the last."""

    lines: list[Line]
    cursor: str | None


def record(
    tx: Transaction, actor: Actor, action: Action, target: Target, **details: Detail
) -> None:
    """Append a line to the log, to be committed with the act."""
    values = actor._asdict() | {
        "action": action,
        "target_kind": target.kind,
        "target_id": target.id,
        "customer_id": target.customer_id,
        "details": msgspec.json.encode(details).decode(),
    }
    tx.execute(_SQL["record"], values)


def record_deletions(
    tx: Transaction, actor: Actor, job_nos: Sequence[int], *, older_than_days: int
) -> None:
    """Append a line for each of these jobs, which `actor`, who has no key, is about to delete."""
    values = actor._asdict() | {
        "action": Action.JOB_DELETED,
        "job_nos": list(job_nos),
        "older_than_days": older_than_days,
    }
    tx.execute(_SQL["record_deletions"], values)


def list_page(
    tx: Transaction, wanted: Filter, *, limit: int, after: str | None = None
) -> Found | None:
    """Return up to `limit` lines older than `after`, newest first; None if it is not the customer's.

    With several filters a page looks at 5,000 lines, and may have fewer than `limit`, or none, though
    more are left.
    """
    place = _find_place(tx, wanted, after)
    if place is None:
        return None
    before_at, before_no = place
    query, others = _choose(wanted)
    looked_max = _LOOKED_MAX if others else limit + 1
    bounds = {"limit": limit + 1, "looked_max": looked_max}
    values = msgspec.structs.asdict(wanted) | {"before_at": before_at, "before_no": before_no}
    rows = tx.execute(_SQL[query], values | bounds).fetchall()
    lines = [msgspec.convert(row, Line) for row in rows if row["audit_id"] is not None]
    if len(lines) > limit:
        return Found(lines[:limit], lines[limit - 1].audit_id)
    return Found(lines, rows[0]["last_id"] if rows[0]["looked"] == looked_max else None)


def _choose(wanted: Filter) -> tuple[str, bool]:
    """Return the statement of the filter that leaves fewest lines, and whether there are others."""
    given = [name for name in ("target", "actor", "customer_id", "action") if getattr(wanted, name)]
    if not given:
        return "list", False
    return f"list_by_{given[0].removesuffix('_id')}", len(given) > 1


def _find_place(
    tx: Transaction, wanted: Filter, after: str | None
) -> tuple[datetime | None, int] | None:
    """Return the time and the number before which a page begins; None if `after` is no line."""
    if after is None:
        return (wanted.until, -1) if wanted.until else (None, _AFTER_ALL)
    values = {"audit_id": after, "customer_id": wanted.customer_id}
    row = tx.execute(_SQL["find"], values).fetchone()
    if row is None:
        return None
    if wanted.until and wanted.until <= row["at"]:
        return wanted.until, -1
    return row["at"], row["audit_no"]


def purge(tx: Transaction, *, limit: int) -> int:
    """Delete up to `limit` lines that are older than 400 days; return how many."""
    return tx.execute(_SQL["purge"], {"limit": limit}).rowcount
