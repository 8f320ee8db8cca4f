"""Pauses of jobs and of customers, for operators."""

from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import PathParameter

from api.auth import actor
from api.http.errors import conflict, not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.routes.job_views import JobView
from api.routes.jobs import show
from blocks.domain.ids import is_customer_id, is_job_id
from blocks.store import audit, jobs, pauses
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.jobs import Job
from blocks.store.pauses import CustomerState

ENDED = conflict("job_ended", "The job has ended, and nothing is to be delivered.")

_Request = Request[Principal, Any, Any]
CustomerId = Annotated[str, PathParameter(description="The id of a customer, `cust_…`.")]


@post(
    "/jobs/{job_id:str}/pause",
    operation_id="pause_job",
    summary="Pause a job",
    status_code=200,
    responses=refusals(not_found("job"), ENDED),
    sync_to_thread=True,
)
def pause_job(request: _Request, job_id: JobId, database: NamedDependency[Database]) -> JobView:
    """Begin nothing new for a job until it is resumed: no run, and no task is handed out.

    Labels of tasks that are held are taken. The manifest is read on to the end of the chunks in hand,
    and a delivery that has begun goes on to its end. No deadline passes. A second call changes nothing.
    """
    with database.transaction() as tx:
        job = find_job(tx, job_id)
        if pauses.pause_job(tx, job.job_no):
            audit.record(tx, actor(request), Action.JOB_PAUSED, audit.job(job))
        job = find_job(tx, job_id)
    if job.paused_since is None:
        raise ENDED
    return show(job, database)


@post(
    "/jobs/{job_id:str}/resume",
    operation_id="resume_job",
    summary="Resume a paused job",
    status_code=200,
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def resume_job(request: _Request, job_id: JobId, database: NamedDependency[Database]) -> JobView:
    """Go on with a job. Tasks under review get the time that they have lost.

    Where all of its customer's jobs are paused, it goes on when they are resumed. A second call changes
    nothing.
    """
    with database.transaction() as tx:
        job = find_job(tx, job_id)
        if pauses.resume_job(tx, job.job_no):
            audit.record(tx, actor(request), Action.JOB_RESUMED, audit.job(job))
        job = find_job(tx, job_id)
    return show(job, database)


def find_job(tx: Transaction, job_id: str) -> Job:
    """Return a job of whichever customer.

    Raises:
        ApiError: 404, there is none of that id.
    """
    job = jobs.get(tx, job_id) if is_job_id(job_id) else None
    if job is None:
        raise not_found("job")
    return job


@post(
    "/customers/{customer_id:str}/pause",
    operation_id="pause_customer",
    summary="Pause all jobs of a customer",
    status_code=200,
    responses=refusals(not_found("customer")),
    sync_to_thread=True,
)
def pause_customer(
    request: _Request, customer_id: CustomerId, database: NamedDependency[Database]
) -> CustomerState:
    """Pause what a customer has, and what they post until they are resumed: that is accepted, and waits.

    For each job it is as `pause_job` says, also for tasks without a manifest. A second call changes
    nothing.
    """
    with database.transaction() as tx:
        find_customer(tx, customer_id)
        if pauses.pause_customer(tx, customer_id):
            audit.record(tx, actor(request), Action.CUSTOMER_PAUSED, audit.customer(customer_id))
        return find_customer(tx, customer_id)


@post(
    "/customers/{customer_id:str}/resume",
    operation_id="resume_customer",
    summary="Resume a customer",
    status_code=200,
    responses=refusals(not_found("customer")),
    sync_to_thread=True,
)
def resume_customer(
    request: _Request, customer_id: CustomerId, database: NamedDependency[Database]
) -> CustomerState:
    """Go on with the jobs of a customer, except for those that are paused by themselves.

    A second call changes nothing.
    """
    with database.transaction() as tx:
        find_customer(tx, customer_id)
        if pauses.resume_customer(tx, customer_id):
            audit.record(tx, actor(request), Action.CUSTOMER_RESUMED, audit.customer(customer_id))
        return find_customer(tx, customer_id)


def find_customer(tx: Transaction, customer_id: str) -> CustomerState:
    """Return what operators have set for a customer.

    Raises:
        ApiError: 404, there is none of that id.
    """
    found = pauses.find_customer(tx, customer_id) if is_customer_id(customer_id) else None
    if found is None:
        raise not_found("customer")
    return found


HANDLERS = [pause_job, resume_job, pause_customer, resume_customer]
