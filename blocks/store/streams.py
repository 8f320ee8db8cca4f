"""Streams: recurring ETL, which makes one job of each version of each manifest that it finds."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from blocks.domain.model import JobStatus
from blocks.secrets.vault import Vault
from blocks.store import instructions, jobs
from blocks.store.customers import UnknownCustomer
from blocks.store.database import Rollback, Transaction
from blocks.store.jobs import Job, NewJob
from blocks.store.queries import load

_SQL = load("streams")


class Manifest(msgspec.Struct, frozen=True):
    """One version of one object; `version` is an ETag or a GCS generation."""

    url: str
    version: str


class Stream(msgspec.Struct, frozen=True):
    """A customer's stream, by name."""

    customer_id: str
    stream: str


class Outcome(StrEnum):
    """The state of a manifest, by its latest job and the delivery of that job."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    """It has no result: the job failed, or its delivery was refused."""
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    """A later version of the object became a job."""
    IGNORED = "ignored"
    """An operator wants no result of it."""


class StreamManifest(msgspec.Struct, frozen=True):
    """A manifest of a stream, and its outcome; `attempts` are jobs and deliveries begun for it."""

    customer_id: str
    stream: str
    manifest_url: str
    version: str
    outcome: Outcome
    job_id: str
    attempts: int
    error_code: str | None
    error_message: str | None
    created_at: datetime


class StreamCounts(msgspec.Struct, frozen=True):
    """A stream, and how many of its manifests have each outcome."""

    customer_id: str
    stream: str
    started_at: datetime
    latest_at: datetime | None
    manifests: int
    open: int
    done: int
    failed: int
    cancelled: int
    replaced: int
    ignored: int


class KnownManifest(msgspec.Struct, frozen=True):
    """A manifest that has a job: whether it has failed, and after how many attempts."""

    has_failed: bool
    attempts: int


def begin(tx: Transaction, stream: Stream, at: datetime) -> datetime:
    """Return when the stream began; a new one begins at `at`.

    Raises:
        UnknownCustomer: there is no such customer.
    """
    row = tx.execute(_SQL["begin"], msgspec.structs.asdict(stream) | {"at": at}).fetchone()
    if row is None:
        raise UnknownCustomer(
            f"There is no customer {stream.customer_id!r}; `refinery customers add` makes one."
        )
    began: datetime = row["started_at"]
    return began


def find_known(
    tx: Transaction, stream: Stream, manifests: Sequence[Manifest]
) -> Mapping[Manifest, KnownManifest]:
    """Return those of `manifests` that the stream has made jobs of."""
    values = msgspec.structs.asdict(stream) | {
        "manifest_urls": [manifest.url for manifest in manifests],
        "versions": [manifest.version for manifest in manifests],
    }
    rows = tx.execute(_SQL["find_known"], values).fetchall()
    return {
        Manifest(row["manifest_url"], row["version"]): KnownManifest(
            row["has_failed"], row["attempts"]
        )
        for row in rows
    }


def submit(
    tx: Transaction, stream: Stream, manifest: Manifest, vault: Vault, new: NewJob
) -> str | None:
    """Make a job of the manifest; return its id, or None if the manifest has a job already."""
    values = msgspec.structs.asdict(stream) | {
        "manifest_url": manifest.url,
        "version": manifest.version,
    }
    with tx.transaction():
        job_id, _ = jobs.submit(tx, new, vault)
        # This waits for another run that is just making a job of the same manifest.
        if tx.execute(_SQL["remember"], values | {"job_id": job_id}).fetchone():
            return job_id
        raise Rollback
    return None


def list_delivery_folders(
    tx: Transaction, store: str, bucket: str, job_ids: Sequence[str]
) -> set[str]:
    """Return the folders of the bucket that jobs are delivered to, without a slash at the end."""
    values = {"store": store, "bucket": bucket, "job_ids": list(job_ids)}
    return {row["folder"] for row in tx.execute(_SQL["list_delivery_folders"], values)}


def list_streams(
    tx: Transaction,
    customer_id: str | None = None,
    stream: str | None = None,
    *,
    after: tuple[str, str] = ("", ""),
    limit: int = 1,
) -> list[StreamCounts]:
    """Return a page of streams, of all, a customer or a name, after that of a customer and a name."""
    bounds = {"after_customer": after[0], "after_stream": after[1], "limit": limit}
    values = bounds | {"customer_id": customer_id, "stream": stream}
    return [StreamCounts(**row) for row in tx.execute(_SQL["list_streams"], values)]


def list_manifests(
    tx: Transaction,
    customer_id: str | None = None,
    stream: str | None = None,
    *,
    manifest_url: str | None = None,
    version: str | None = None,
    outcomes: Sequence[Outcome] | None = None,
    limit: int,
) -> list[StreamManifest]:
    """Return up to `limit` manifests of streams, newest first."""
    values = {
        "customer_id": customer_id,
        "stream": stream,
        "manifest_url": manifest_url,
        "version": version,
        "outcomes": [each.value for each in outcomes] if outcomes else None,
        "limit": limit,
    }
    return [
        StreamManifest(
            **{field: row[field] for field in StreamManifest.__struct_fields__}
            | {"outcome": Outcome(row["outcome"])}
        )
        for row in tx.execute(_SQL["list_manifests"], values)
    ]


def resubmit(
    tx: Transaction, stream: Stream, manifest: Manifest, vault: Vault, new: NewJob | None = None
) -> str | None:
    """Try a manifest without a result again; return the id of its job, or None if it has not failed.

    A delivery that was refused is begun again. A job that failed or was cancelled is made again, as
    `new` or, without it, as it was.
    """
    rows = list_manifests(
        tx,
        stream.customer_id,
        stream.stream,
        manifest_url=manifest.url,
        version=manifest.version,
        limit=1,
    )
    old = jobs.get(tx, rows[0].job_id) if rows else None
    if old is None:
        return None
    values = msgspec.structs.asdict(stream) | {
        "manifest_url": manifest.url,
        "version": manifest.version,
        "old_job_id": old.job_id,
    }
    with tx.transaction():
        job_id = _begin_again(tx, old, new, vault)
        if job_id is None:
            return None
        if tx.execute(_SQL["try_again"], values | {"job_id": job_id}).fetchone():
            return job_id
        raise Rollback  # somebody else was quicker
    return None


def _begin_again(tx: Transaction, old: Job, new: NewJob | None, vault: Vault) -> str | None:
    match old.status:
        case JobStatus.COMPLETED if old.delivery:
            return old.job_id if jobs.redeliver(tx, old, old.delivery, None, vault) else None
        case JobStatus.FAILED | JobStatus.CANCELLED:
            return jobs.submit(tx, new or _copy(tx, old), vault)[0]
    return None


def _copy(tx: Transaction, old: Job) -> NewJob:
    """Return the job as it was submitted; its credentials are in a block, like those of all streams."""
    fields = {field: getattr(old, field) for field in NewJob.__struct_fields__}
    text = instructions.read(tx, old.instructions_digest)
    return NewJob(**fields | {"credentials": None, "instructions": text})


def ignore(tx: Transaction, stream: Stream, manifest_url: str) -> int:
    """Want no result of the present versions of a manifest any more; return how many there are."""
    values = msgspec.structs.asdict(stream) | {"manifest_url": manifest_url}
    return tx.execute(_SQL["ignore"], values).rowcount


def record_shown(tx: Transaction, stream: Stream, shown: bytes) -> bool:
    """Record the digest of what is shown of a stream; return True if it differs from the last one."""
    values = msgspec.structs.asdict(stream) | {"shown": shown}
    return tx.execute(_SQL["record_shown"], values).fetchone() is not None
