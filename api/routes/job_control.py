"""Jobs: list them, show the instructions of one, cancel it, wipe its credentials."""

from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import ADMINS_TOO, actor, tenant
from api.http.errors import ApiError, conflict, not_found, unknown_cursor
from api.http.parameters import A_CUSTOMER, PAGE_LIMIT, Cursor, JobId, check_customer
from api.http.refusals import refusals
from api.routes.job_views import JobView, views
from api.routes.jobs import find_job, show
from blocks.domain.model import JobStatus
from blocks.store import audit, deleted_jobs, instructions, job_lists, jobs
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.instructions import version_of

_PAGE_DEFAULT = 20
_PAGE_MAX = 100

_ENDED = {JobStatus.COMPLETED: "been completed", JobStatus.FAILED: "failed"}

_Request = Request[Principal, Any, Any]


class JobsPage(msgspec.Struct, frozen=True):
    """Jobs, newest first; `next_cursor` is null on the last page."""

    jobs: list[JobView]
    """The jobs."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


@get(
    "/",
    operation_id="list_jobs",
    summary="Jobs, newest first",
    opt=ADMINS_TOO,
    responses=refusals(),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    *,
    status: Annotated[
        JobStatus | None, QueryParameter(description="Only jobs of this status.")
    ] = None,
    customer: Annotated[
        str | None,
        QueryParameter(
            description="For operators: only jobs of this customer, by id.", schema_extra=A_CUSTOMER
        ),
    ] = None,
    search: Annotated[
        str | None,
        QueryParameter(
            min_length=1,
            max_length=200,
            description="Only jobs with this text in their id, question or manifest URL. A page looks "
            "at 1,000 jobs, and may have fewer than `limit`, or none, before the last.",
        ),
    ] = None,
    stream: Annotated[
        str | None,
        QueryParameter(
            min_length=1,
            max_length=200,
            description="Only jobs that a stream of this name has made, the latest for each version of "
            "a manifest. Pages are as those of `search`.",
        ),
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> JobsPage:
    """Return a page of the customer's jobs; for an operator, of everybody's.

    Jobs posted meanwhile do not shift the next pages.
    """
    check_customer(customer)
    whose = tenant(request) or customer
    if customer not in (None, whose):
        return JobsPage([], None)
    find = job_lists.list_page
    if search or stream:
        find = partial(job_lists.search, text=search, stream=stream)
    with database.transaction() as tx:
        found = find(tx, whose, limit=limit, status=status, before=cursor)
        if found is None:
            raise unknown_cursor()
        return JobsPage(views(tx, found.jobs), found.cursor)


class JobInstructions(msgspec.Struct, frozen=True):
    """What annotators read before they label for a job; both are null where there is nothing."""

    version: str | None
    """Changes with the text."""
    text: str | None
    """Markdown, as it was posted."""


@get(
    "/{job_id:str}/instructions",
    operation_id="get_job_instructions",
    summary="Instructions of a job",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def read_instructions(
    request: _Request, job_id: JobId, database: NamedDependency[Database]
) -> JobInstructions:
    """Return what annotators read before they label. The job itself shows the version alone."""
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        text = instructions.read(tx, job.instructions_digest)
    return JobInstructions(version_of(job.instructions_digest), text)


def _conflict(status: JobStatus) -> ApiError:
    return conflict(f"job_{status}", f"job has {_ENDED[status]}; it cannot be cancelled")


@post(
    "/{job_id:str}/cancel",
    operation_id="cancel_job",
    summary="Stop a job",
    opt=ADMINS_TOO,
    responses=refusals(
        not_found("job"), _conflict(JobStatus.COMPLETED), _conflict(JobStatus.FAILED)
    ),
    status_code=202,
    sync_to_thread=True,
)
def cancel(request: _Request, job_id: JobId, database: NamedDependency[Database]) -> JobView:
    """Create and hand out nothing more. Settled tasks can be exported. A second call changes nothing."""
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        if jobs.cancel(tx, job.job_no):
            audit.record(tx, actor(request), Action.JOB_CANCELLED, audit.job(job))
    job = find_job(request, job_id, database)
    if job.status is not JobStatus.CANCELLED:
        raise _conflict(job.status)
    return show(job, database)


@delete(
    "/{job_id:str}/credentials",
    operation_id="wipe_job_credentials",
    summary="Wipe a job's credentials",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")),
    status_code=204,
    response_description="The job has no credentials any more.",
    sync_to_thread=True,
)
def wipe_credentials(request: _Request, job_id: JobId, database: NamedDependency[Database]) -> None:
    """Delete the stored credentials, for good.

    A job that is still being read fails, with `credentials_wiped`; one that is only to be delivered goes
    on, and its delivery is refused with that code, to be asked for again with new credentials. A job
    without credentials stays as it is.
    """
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        if jobs.wipe_credentials(tx, job.job_no):
            audit.record(tx, actor(request), Action.CREDENTIALS_WIPED, audit.job(job))


def _not_ended() -> ApiError:
    return conflict("job_not_ended", "job has not ended; cancel it before you delete it")


def _being_delivered() -> ApiError:
    return conflict(
        "delivery_under_way", "job is being delivered; delete it when its delivery has ended"
    )


@delete(
    "/{job_id:str}",
    operation_id="delete_job",
    summary="Delete a job that has ended",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job"), _not_ended(), _being_delivered()),
    status_code=204,
    response_description="The job is gone.",
    sync_to_thread=True,
)
def remove(request: _Request, job_id: JobId, database: NamedDependency[Database]) -> None:
    """Delete a job and all that came with it or was made of it, for good.

    It is gone at once from lists, exports, claims and webhooks, and from the disk within minutes. What
    was delivered into a bucket stays there. A second call answers 404, as for a job that never was.
    """
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        deleted = deleted_jobs.delete(tx, [job.job_no])
        if deleted:
            audit.record(tx, actor(request), Action.JOB_DELETED, audit.job(job))
    if not deleted:
        job = find_job(request, job_id, database)
        if not job.status.has_ended:
            raise _not_ended()
        raise _being_delivered()


HANDLERS = [index, read_instructions, cancel, wipe_credentials, remove]
