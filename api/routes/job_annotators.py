"""The annotators of a job: exclude one, and see what has happened to the job."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter

from api.auth import ADMINS_TOO, actor
from api.http.errors import conflict, not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.routes.jobs import find_job
from blocks.store import audit, exclusions
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.exclusions import Exclusion
from blocks.store.jobs import Job

_STEPS_AT_ONCE = 20

_Request = Request[Principal, Any, Any]
_AnnotatorId = Annotated[str, PathParameter(description="The id of the annotator, `ann_…`.")]
_ENDED = conflict("job_settled", "All tasks of the job have ended; their results stay as they are.")


@post(
    "/{job_id:str}/annotators/{annotator_id:str}/exclude",
    operation_id="exclude_annotator",
    summary="Exclude an annotator",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job"), not_found("annotator"), _ENDED),
    status_code=202,
    sync_to_thread=True,
)
def exclude(
    request: _Request,
    job_id: JobId,
    annotator_id: _AnnotatorId,
    database: NamedDependency[Database],
) -> Exclusion:
    """Hand an annotator nothing more of the job, and set all of their labels aside.

    Votes are counted anew. Tasks that have no result without these labels are open again, and others are
    asked. What they hold goes to others at once. A large job takes a while: the request again, which
    changes nothing, tells how far that is. The job does not complete before.
    """
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        annotator_no = exclusions.find_annotator(tx, job.job_no, annotator_id)
        if annotator_no is None:
            raise not_found("annotator")
        was_begun = exclusions.was_begun(tx, job.job_no, annotator_no)
        is_begun = was_begun or exclusions.exclude(tx, job.job_no, annotator_no)
        if is_begun and not was_begun:
            target = audit.job(job)
            audit.record(
                tx, actor(request), Action.ANNOTATOR_EXCLUDED, target, annotator_id=annotator_id
            )
        found = exclusions.get(tx, job.job_no, annotator_no)
    if not is_begun and (found is None or found.done_at is None):
        raise _ENDED
    exclusions.go_on(database, job_no=job.job_no, steps_max=_STEPS_AT_ONCE)
    with database.transaction() as tx:
        found = exclusions.get(tx, job.job_no, annotator_no)
    assert found is not None  # it was begun, now or before
    return found


class Happening(StrEnum):
    """What can have happened to a job."""

    SUBMITTED = "submitted"
    STARTED = "started"
    READ = "read"
    ANNOTATOR_EXCLUDED = "annotator_excluded"
    LABELS_SET_ASIDE = "labels_set_aside"
    SETTLED = "settled"
    ENDED = "ended"
    DELIVERED = "delivered"


class HistoryLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that has happened to a job."""

    at: datetime
    """When."""
    event: Happening
    """What."""
    status: str | None = None
    """The status that the job has ended with."""
    annotator_id: str | None = None
    """The annotator whom it is about."""
    reason: str | None = None
    """Why they were excluded."""
    labels_set_aside: int | None = None
    """How many labels do not count any more."""
    tasks_reopened: int | None = None
    """How many tasks had a result, and have none without these labels."""


class HistoryView(msgspec.Struct, frozen=True):
    """What has happened to a job, the first things first."""

    job_id: str
    """The job."""
    history: list[HistoryLine]
    """What has happened to it."""


@get(
    "/{job_id:str}/history",
    operation_id="get_job_history",
    summary="What has happened to a job",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def history(request: _Request, job_id: JobId, database: NamedDependency[Database]) -> HistoryView:
    """Return the steps of the job's life, and who was excluded from it."""
    job = find_job(request, job_id, database)
    with database.transaction() as tx:
        found = exclusions.list_all(tx, job.job_no)
    lines = _milestones(job) + [line for each in found for line in _lines(each)]
    return HistoryView(job.job_id, sorted(lines, key=lambda line: line.at))


def _milestones(job: Job) -> list[HistoryLine]:
    times = (
        (Happening.SUBMITTED, job.created_at, None),
        (Happening.STARTED, job.started_at, None),
        (Happening.READ, job.ingested_at, None),
        (Happening.SETTLED, job.settled_at, None),
        (Happening.DELIVERED, job.delivered_at, None),
        (Happening.ENDED, job.completed_at, str(job.status)),
    )
    return [HistoryLine(at=at, event=event, status=status) for event, at, status in times if at]


def _lines(each: Exclusion) -> list[HistoryLine]:
    begun = HistoryLine(
        at=each.excluded_at,
        event=Happening.ANNOTATOR_EXCLUDED,
        annotator_id=each.annotator_id,
        reason=each.reason,
    )
    if each.done_at is None:
        return [begun]
    done = HistoryLine(
        at=each.done_at,
        event=Happening.LABELS_SET_ASIDE,
        annotator_id=each.annotator_id,
        labels_set_aside=each.labels_set_aside,
        tasks_reopened=each.tasks_reopened,
    )
    return [begun, done]


HANDLERS = [exclude, history]
