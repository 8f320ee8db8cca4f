"""Jobs: how one went on, for plots."""

from typing import Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency

from api.auth import ADMINS_TOO
from api.http.errors import not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.routes.jobs import find_job
from blocks.store import chunks, timeline
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.timeline import Series


class TimelineView(msgspec.Struct, frozen=True, kw_only=True):
    """How a job went on."""

    job_id: str
    """The job."""
    lines: Series
    """Lines of its manifest, by when they were read."""
    labels: Series
    """Labels of the latest 10,000 requests with labels, by when they came; old ones are forgotten."""
    bad_lines: dict[str, int]
    """How many lines are bad, by code."""


@get(
    "/{job_id:str}/timeline",
    operation_id="get_job_timeline",
    summary="How a job went on",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def read(
    request: Request[Principal, Any, Any], job_id: JobId, database: NamedDependency[Database]
) -> TimelineView:
    """Return how many lines were read and how many labels came in each step of time."""
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        return TimelineView(
            job_id=job.job_id,
            lines=timeline.list_lines(tx, job.job_no),
            labels=timeline.list_labels(tx, job.job_no),
            bad_lines=dict(chunks.count_bad_codes(tx, job.job_no)),
        )


HANDLERS = [read]
