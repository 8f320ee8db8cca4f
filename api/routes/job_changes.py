"""Changes of a job at run time, for operators."""

from typing import Annotated, Any

from litestar import Request, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from api.auth import actor
from api.http.errors import not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.routes.job_views import JobView
from api.routes.jobs import show
from api.routes.pauses import ENDED, find_job
from blocks.bodies.fields import Body
from blocks.domain import limits
from blocks.store import audit, job_changes
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database


class JobChangeBody(Body, frozen=True, kw_only=True):
    """What is to be changed about a job."""

    priority: Annotated[int, Meta(ge=limits.PRIORITY_MIN, le=limits.PRIORITY_MAX)]
    """Its work is begun, and its tasks are handed out, before those of a lower one."""


@patch(
    "/jobs/{job_id:str}",
    operation_id="change_job",
    summary="Change the priority of a job",
    responses=refusals(not_found("job"), ENDED, takes=JobChangeBody),
    sync_to_thread=True,
)
def change(
    request: Request[Principal, Any, Any],
    job_id: JobId,
    data: JSONBody[JobChangeBody],
    database: NamedDependency[Database],
) -> JobView:
    """Change a job while it has work left. The next claim and the next launch go by it.

    The same priority changes nothing.
    """
    with database.transaction() as tx:
        job = find_job(tx, job_id)
        earlier = job_changes.set_priority(tx, job.job_no, data.priority)
        if earlier is not None:
            audit.record(
                tx, actor(request), Action.JOB_PRIORITY_CHANGED, audit.job(job),
                priority=data.priority, earlier=earlier,
            )  # fmt: skip
        job = find_job(tx, job_id)
    if job.priority != data.priority or not job.has_work_left:
        raise ENDED
    return show(job, database)


HANDLERS = [change]
