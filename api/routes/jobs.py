"""Jobs: submit one, and look at it."""

import time
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, JSONBody, QueryParameter

from api.auth import ADMINS_TOO, customer_id, tenant
from api.http.bodies import digest
from api.http.errors import not_found, with_faults
from api.http.etags import NOT_MODIFIED, IfNoneMatch, etag_of, matches
from api.http.hangups import pause
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.preflight import Preflights
from api.routes.job_views import JobView, find_pace, steady, views
from blocks import tracing
from blocks.bodies.fields import Fault
from blocks.bodies.jobs import JobBody
from blocks.domain.errors import ObjectNotFound
from blocks.domain.ids import is_job_id
from blocks.domain.model import DeliveryStatus, JobStatus
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import jobs
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.jobs import Idempotency, Job, NewJob
from blocks.store.quotas import Quota, QuotaExceeded, Quotas

# Counters change with every batch of labels, so looking costs less than a notification of each.
_LOOK_AGAIN_S = 0.5

_NO_MANIFEST = Fault(
    "manifest_url",
    "There is no object 'cats.jsonl' in bucket 'manifests'.",
    ObjectNotFound.code,
)

_Request = Request[Principal, Any, Any]
_IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body within 24 hours returns the same job.",
    ),
]


class JobAccepted(msgspec.Struct, frozen=True):
    """The job is recorded; its manifest is read soon."""

    job_id: str
    """The id of the job."""
    status: JobStatus  # a default would become one of the parameter `status` in the reference
    """Always `accepted`."""
    message: str = "Job accepted. Manifest will be processed asynchronously."
    """The same, for people."""


@post(
    "/",
    operation_id="create_job",
    summary="Submit a job",
    status_code=202,
    responses=refusals(
        jobs.key_conflict(),
        with_faults(HTTPStatus.UNPROCESSABLE_ENTITY, "preflight_failed", [_NO_MANIFEST]),
        QuotaExceeded(Quota.JOBS, 10_000),
        takes=JobBody,
    ),
)
async def create(
    request: _Request,
    data: JSONBody[JobBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    preflights: NamedDependency[Preflights],
    *,
    idempotency_key: _IdempotencyKey = None,
    preflight: Annotated[
        bool,
        QueryParameter(
            description="First try whether the manifest can be read, the delivery be written and the "
            "callback's host be reached; what does not work is a 422, and no job is made."
        ),
    ] = False,
) -> Response[JobAccepted]:
    """Record a job. Its credentials are encrypted before they are stored, and never given back."""
    new = msgspec.structs.replace(
        data.to_job(customer_id(request)), traceparent=tracing.traceparent()
    )
    idempotency = Idempotency(idempotency_key, digest(data)) if idempotency_key else None
    earlier = None
    if preflight and idempotency:
        earlier = await sync_to_thread(
            _find_earlier, database, new.customer_id, settings.vault(), idempotency
        )
    if preflight and earlier is None:
        await preflights.check(new, request.app.state.threads.preflights)
    quotas: Quotas = request.app.state.quotas
    job_id, replayed = (
        await sync_to_thread(_submit, database, new, settings, quotas, idempotency)
        if earlier is None
        else (earlier, True)
    )
    tracing.note(job_id=job_id)
    headers = {"Location": f"/v1/jobs/{job_id}"}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(JobAccepted(job_id, JobStatus.ACCEPTED), status_code=202, headers=headers)


def _check_quotas(tx: Transaction, customer_id: str, settings: Settings, quotas: Quotas) -> None:
    """Refuse a job if no room is left. How much it will add is not known yet."""
    quotas.check(tx, customer_id, Quota.JOBS, settings.jobs_per_customer_max)
    for quota, most in (
        (Quota.OPEN_TASKS, settings.open_tasks_per_customer_max),
        (Quota.STORED_BYTES, settings.stored_bytes_per_customer_max),
    ):
        quotas.check(tx, customer_id, quota, most, to_come=1)


def _find_earlier(
    database: Database, customer_id: str, vault: Vault, idempotency: Idempotency
) -> str | None:
    with database.transaction() as tx:
        return jobs.find_earlier(tx, customer_id, vault, idempotency)


def _submit(
    database: Database,
    new: NewJob,
    settings: Settings,
    quotas: Quotas,
    idempotency: Idempotency | None,
) -> tuple[str, bool]:
    with database.transaction() as tx:
        job_id, replayed = jobs.submit(tx, new, settings.vault(), idempotency)
        if not replayed:
            _check_quotas(tx, new.customer_id, settings, quotas)
        return job_id, replayed


@get(
    "/{job_id:str}",
    operation_id="get_job",
    summary="State and progress of a job",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")) | NOT_MODIFIED,
)
async def read(
    request: _Request,
    job_id: JobId,
    database: NamedDependency[Database],
    if_none_match: IfNoneMatch = None,
    wait: Annotated[
        int,
        QueryParameter(
            ge=0,
            le=60,
            description="Answer when something has changed, or after so many seconds.",
        ),
    ] = 0,
) -> Response[JobView | None]:
    """Return a job's state and progress; 304 if they are as they were at `If-None-Match`."""
    until = time.monotonic() + wait
    shown = await sync_to_thread(_show, request, job_id, database)
    known = if_none_match or shown.etag
    while wait and shown.may_change and matches(known, shown.etag):
        if time.monotonic() >= until:
            break
        await pause(request, _LOOK_AGAIN_S)
        shown = await sync_to_thread(_show, request, job_id, database)
    headers = {"ETag": shown.etag}
    if if_none_match and matches(if_none_match, shown.etag):
        return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    view = await sync_to_thread(_with_pace, shown, database)
    return Response(view, headers=headers)


class _Shown(NamedTuple):
    job: Job
    view: JobView
    etag: str
    may_change: bool


def _show(request: _Request, job_id: str, database: Database) -> _Shown:
    job = find_job(request, job_id, database)
    shown = show(job, database)
    under_way = {DeliveryStatus.PENDING, DeliveryStatus.DELIVERING}
    may_change = not job.status.has_ended or job.delivery_status in under_way
    return _Shown(job, shown, etag_of(steady(shown)), may_change)


def _with_pace(shown: _Shown, database: Database) -> JobView:
    """Add how fast the job is labelled, which changes all the time and is no part of the ETag."""
    with database.transaction() as tx:
        return msgspec.structs.replace(shown.view, pace=find_pace(tx, shown.job))


def show(job: Job, database: Database) -> JobView:
    """Return `job` as its customer sees it."""
    with database.transaction() as tx:
        return views(tx, [job])[0]


def find_job(request: _Request, job_id: str, database: Database) -> Job:
    """Return the job of that id: the customer's, or for an operator anybody's.

    Raises:
        ApiError: 404, there is no such job, or it is another's.
    """
    job = None
    if is_job_id(job_id):
        with database.transaction() as tx:
            job = jobs.get(tx, job_id, customer_id=tenant(request))
    if job is None:
        raise not_found("job")
    return job


HANDLERS = [create, read]
