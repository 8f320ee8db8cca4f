"""Streams: recurring ETL, which makes one job of each version of each manifest that it finds."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from blocks.errors import RefineryError
from blocks.store import jobs
from blocks.store.database import Rollback, Transaction
from blocks.store.jobs import NewJob
from blocks.store.queries import load
from blocks.vault import Vault

_SQL = load("streams")


class UnknownCustomer(RefineryError):
    """There is no customer of that id."""

    code = "unknown_customer"


class Manifest(msgspec.Struct, frozen=True):
    """One version of one object; `version` is an ETag or a GCS generation."""

    url: str
    version: str


class Stream(msgspec.Struct, frozen=True):
    """A customer's stream, by name."""

    customer_id: str
    stream: str


def begin(tx: Transaction, stream: Stream, at: datetime) -> datetime:
    """When it began, which is `at` if it was not known.

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


def known(tx: Transaction, stream: Stream, manifests: Sequence[Manifest]) -> Mapping[Manifest, str]:
    """Those that it has made jobs of, with the jobs' ids."""
    values = msgspec.structs.asdict(stream) | {
        "manifest_urls": [manifest.url for manifest in manifests],
        "versions": [manifest.version for manifest in manifests],
    }
    rows = tx.execute(_SQL["known"], values).fetchall()
    return {Manifest(row["manifest_url"], row["version"]): row["job_id"] for row in rows}


def submit(
    tx: Transaction, stream: Stream, manifest: Manifest, new: NewJob, vault: Vault
) -> str | None:
    """The id of a new job for the manifest; None if it has one, or just got one elsewhere."""
    values = msgspec.structs.asdict(stream) | {
        "manifest_url": manifest.url,
        "version": manifest.version,
    }
    with tx.transaction():
        job_id, _ = jobs.submit(tx, new, vault)
        # Waits for another run that makes a job of the same manifest at this moment.
        if tx.execute(_SQL["remember"], values | {"job_id": job_id}).fetchone():
            return job_id
        raise Rollback
    return None
