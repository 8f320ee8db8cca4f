"""Work of a job that waits for a run, started at once by an operator."""

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency

from api.auth import actor
from api.http.errors import conflict, not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.routes.job_views import JobView
from api.routes.jobs import show
from blocks.domain.ids import is_job_id
from blocks.store import audit, jobs, runs
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database

_NOTHING_WAITS = conflict(
    "nothing_waits",
    "No work of the job waits for a run: one has it in hand, or there is none to do.",
)


@post(
    "/jobs/{job_id:str}/retry",
    operation_id="retry_job",
    summary="Start a job's waiting work now",
    status_code=202,
    responses=refusals(not_found("job"), _NOTHING_WAITS),
    sync_to_thread=True,
)
def retry(
    request: Request[Principal, Any, Any], job_id: JobId, database: NamedDependency[Database]
) -> JobView:
    """Ask for another run now, whatever the job waits for, also where an operator stopped the last one.

    It comes when it is the customer's turn. What is done already is not done again. A run that was
    paused in Prefect is resumed there. A second call changes nothing.
    """
    with database.transaction() as tx:
        job = jobs.get(tx, job_id) if is_job_id(job_id) else None
        if job is None:
            raise not_found("job")
        made_due = runs.make_due(tx, job.job_no)
        if made_due:
            audit.record(tx, actor(request), Action.JOB_RETRIED, audit.job(job), work=made_due)
    if made_due is None:
        raise _NOTHING_WAITS
    return show(job, database)


HANDLERS = [retry]
