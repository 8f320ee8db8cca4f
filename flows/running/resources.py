"""Provide what a run needs: settings, the database, and the buckets of a job.

A run has the id of its job and nothing else. Secrets are fetched and decrypted here, in the process that
uses them, and never passed on.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed

from blocks.buckets.opening import open_bucket
from blocks.buckets.protocol import Bucket
from blocks.domain.errors import CredentialsWiped, RefineryError
from blocks.domain.model import DeliveryStatus, JobStatus
from blocks.domain.object_urls import ObjectUrl, StoreType, parse_object_url
from blocks.secrets.credentials import decode_credentials
from blocks.secrets.egress import Egress
from blocks.settings import Settings
from blocks.store import job_credentials, jobs, runs
from blocks.store.database import Database, Transaction
from blocks.store.jobs import Job
from blocks.store.runs import OURS

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

# A client of an object store takes a tenth of a second to make, so the chunks of a job share one.
_CLIENTS_MAX = 4


class AlreadyDone(RefineryError):
    """Another run did it, or the job has ended: there is nothing left to do."""

    code = "already_done"


class JobPaused(AlreadyDone):
    """An operator has paused the job: nothing new is begun for it until they resume it."""

    code = "job_paused"


class UnknownJob(RefineryError):
    """There is no job of that id."""

    code = "unknown_job"


# The annotations are text: pydantic keeps `State[Any]` in the module that asks for it first. If this one
# did, a process that runs chunks would not find it where it was when the flow was pickled.
def ends_without_job(body: "Callable[[str], State[Any]]") -> "Callable[[str], State[Any]]":
    """Decorate a flow: a run whose job is not there, or is deleted meanwhile, has nothing to do."""

    @wraps(body)
    def run(job_id: str) -> "State[Any]":
        try:
            return body(job_id)
        except UnknownJob as gone:
            return Completed(message=f"{gone.message} It may have been deleted; nothing to do.")

    return run


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings.from_environment()


@lru_cache(maxsize=1)
def database() -> Database:
    """Return this process's pool, with a connection for each chunk in flight and one for the flow."""
    return Database(settings().database_url, connections_max=settings().chunks_in_flight + 1)


def load_job(job_id: str) -> Job:
    """Return the job as it is now.

    Raises:
        UnknownJob: there is none of that id.
    """
    with database().transaction() as tx:
        job = jobs.get(tx, job_id)
    if job is None:
        raise UnknownJob(f"There is no job {job_id!r}.")
    return job


def load_unread(job_id: str) -> Job:
    """Return the job, if its manifest has still to be read.

    Raises:
        UnknownJob: there is none of that id.
        AlreadyDone: all of it was read, or the job has ended.
        JobPaused: an operator has paused the job.
    """
    job = load_job(job_id)
    if job.status is JobStatus.FAILED:
        raise AlreadyDone(
            f"{job_id} has failed ({job.error_code}), and its customer was told; nothing to do. "
            "When that is mended, it is a new job."
        )
    if job.status.has_ended:
        raise AlreadyDone(f"{job_id} is {job.status}; nothing to do.")
    if job.ingested_at:
        raise AlreadyDone(f"{job_id}: its manifest was read to the end; nothing to do.")
    refuse_paused(job)
    return job


def refuse_paused(job: Job) -> None:
    """Pass if nobody has paused the job.

    Raises:
        JobPaused: an operator has.
    """
    if job.paused_since:
        raise JobPaused(f"{job.job_id} was paused by an operator; it goes on when they resume it.")


def load_undelivered(job_id: str) -> Job:
    """Return the job, if its results have still to be delivered.

    Raises:
        UnknownJob: there is none of that id.
        AlreadyDone: they were delivered, or refused, or are not due.
    """
    job = load_job(job_id)
    match job.delivery_status:
        case DeliveryStatus.PENDING | DeliveryStatus.DELIVERING:
            return job
        case DeliveryStatus.DELIVERED:
            raise AlreadyDone(f"{job_id} was delivered at {job.delivered_at}; nothing to do.")
        case DeliveryStatus.FAILED:
            raise AlreadyDone(f"{job_id}: its delivery was refused before; nothing to do.")
    raise AlreadyDone(f"{job_id}: no delivery is due; nothing to do.")


def was_started_manually() -> bool:
    """Return True if an operator started or retried this run, False if the launcher started it."""
    context = FlowRunContext.get()
    key = context.flow_run.idempotency_key if context and context.flow_run else None
    return flow_run.run_count > 1 or not (key or "").startswith(OURS)


def adopt_run(tx: Transaction, job: Job, kind: str) -> None:
    """Have reconcile look after a run that was started by hand, unless the work has another run."""
    if flow_run.id:
        runs.adopt(tx, job.job_no, kind, UUID(flow_run.id))


def manifest_of(job: Job) -> tuple[Bucket, ObjectUrl]:
    """Return the bucket of the job's manifest, and the manifest's URL."""
    url = parse_object_url(job.manifest_url)
    return _bucket(_access(job), url), url


def destination_of(job: Job) -> Bucket:
    """Return the bucket that the job's results go to."""
    target = job.delivery
    assert target is not None  # the flow has looked
    url = ObjectUrl(target.type, target.bucket, target.prefix)
    return _bucket(_access(job), url, kms_key_id=target.kms_key_id, acl=target.acl)


def keep_to_sign(job: Job) -> None:
    """Keep a copy of what the job's block holds, if its URLs are signed; a customer's is kept anyway.

    Raises:
        UnusableBlock: the block is missing, or holds no key.
    """
    if not job.sign_urls or not job.credentials_block:
        return
    from blocks.prefect.blocks import UnusableBlock, load_source  # noqa: PLC0415

    source = load_source(job.credentials_block)
    credentials = source.read_key()
    if credentials is None:
        raise UnusableBlock(f"The block {job.credentials_block} has no credentials to sign with.")
    sealed = job_credentials.seal(
        msgspec.json.encode(credentials), job.job_id, job.customer_id, settings().vault()
    )
    with database().transaction() as tx:
        job_credentials.keep_copy(tx, job.job_no, sealed, signs_below=str(source.place))


class _Access(NamedTuple):
    """Hold what opens the buckets of a job: its own credentials, or a block and the places it is for."""

    job_id: str
    customer_id: str
    sealed: bytes | None
    is_wiped: bool
    block: str | None
    block_delivers_to: str | None


def _access(job: Job) -> _Access:
    is_wiped = job.credentials is None and job.credentials_wiped_at is not None
    return _Access(
        job.job_id,
        job.customer_id,
        job.credentials,
        is_wiped,
        job.credentials_block,
        job.block_delivers_to,
    )


@lru_cache(maxsize=_CLIENTS_MAX)
def _bucket(
    access: _Access, url: ObjectUrl, *, kms_key_id: str | None = None, acl: str | None = None
) -> Bucket:
    if access.is_wiped:
        raise CredentialsWiped(
            "The job's credentials were wiped; nothing is read or written without."
        )
    if access.block:
        # Importing the block types costs half a second, and few jobs have a block.
        from blocks.prefect.blocks import load_source  # noqa: PLC0415

        delivers_to = access.block_delivers_to
        source = load_source(access.block)
        return source.open(settings(), url, delivers_to=delivers_to, kms_key_id=kms_key_id, acl=acl)
    vault = settings().vault()
    plain = job_credentials.open_sealed(access.sealed, access.job_id, access.customer_id, vault)
    return _bucket_of(url.store, url.bucket, plain, kms_key_id=kms_key_id, acl=acl)


@lru_cache(maxsize=_CLIENTS_MAX)
def _bucket_of(
    store: StoreType,
    name: str,
    credentials: bytes | None,
    *,
    kms_key_id: str | None,
    acl: str | None,
) -> Bucket:
    """Return the bucket, with one client for all jobs that have the same credentials."""
    return open_bucket(
        store,
        name,
        decode_credentials(store, credentials),
        egress=Egress(settings().egress_allow),
        gcs_endpoint_url=settings().gcs_endpoint_url,
        kms_key_id=kms_key_id,
        acl=acl,
    )
