"""What annotators look up: a job that they label for."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import PathParameter

from api.auth import annotator_no
from api.http.errors import not_found
from api.http.refusals import refusals
from api.routes.job_views import LabelSpec, label_spec_of
from blocks.domain.model import TaskType
from blocks.store import own_work
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.instructions import version_of

_Request = Request[Principal, Any, Any]
_JobId = Annotated[str, PathParameter(description="The id of a job that has tasks for you.")]


class JobToLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about the tasks of a job, and the instructions for it."""

    job_id: str
    """The id of the job, which a claim can name."""
    task_type: TaskType
    """What to do."""
    label_spec: LabelSpec
    """The question, and the options to choose from."""
    instructions: str | None
    """What to read before labelling: Markdown; null where there is nothing."""
    instructions_version: str | None
    """Changes with the text of the instructions; null where there are none."""
    is_open: bool
    """Whether its tasks take labels."""


@get(
    "/jobs/{job_id:str}",
    operation_id="get_job_to_label",
    summary="What a job asks for",
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def read_job(request: _Request, job_id: _JobId, database: NamedDependency[Database]) -> JobToLabel:
    """Return the question, the options and the instructions of a job that has tasks for this annotator.

    A claim names the version of the instructions with each task, so that the text is asked for once.
    """
    with database.transaction() as tx:
        job = own_work.find_job(tx, annotator_no(request), job_id)
    if job is None:
        raise not_found("job")
    return JobToLabel(
        job_id=job.job_id,
        task_type=job.task_type,
        label_spec=label_spec_of(job),
        instructions=job.instructions,
        instructions_version=version_of(job.instructions_digest),
        is_open=job.is_open,
    )


HANDLERS = [read_job]
