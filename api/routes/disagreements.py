"""Tasks whose labels are not all alike, for those who judge labels."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import ADMINS_TOO, names_shown
from api.http.errors import ApiError, invalid_request, not_found, unknown_cursor
from api.http.parameters import AN_ANNOTATOR, PAGE_LIMIT, Cursor, JobId, check_annotator
from api.http.refusals import refusals
from api.routes.job_views import as_written
from api.routes.jobs import find_job
from blocks.bodies.fields import Fault
from blocks.domain.model import JobStatus, TaskReason, TaskStatus, why_failed
from blocks.domain.wrong_values import shorten
from blocks.settings import Settings
from blocks.store import customers, disagreements
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.disagreements import Disagreement, Filter, State
from blocks.store.jobs import Job

_PAGE_DEFAULT = 20
_PAGE_MAX = 100
_CUT_SHORT = {
    JobStatus.CANCELLED: TaskReason.CANCELLED,
    JobStatus.FAILED: TaskReason.JOB_FAILED,
}


class LabelGiven(msgspec.Struct, frozen=True, kw_only=True):
    """A label of a task."""

    annotator_id: str
    """Who gave it."""
    name: str | None
    """Their name; null where you may not see it."""
    label: str
    """The option that they chose."""
    created_at: datetime
    """When it was taken."""


class DisagreementView(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose labels are not all alike, and who gave which."""

    task_id: str
    """The task."""
    line: int | None
    """Its line in the manifest, from 1 on; null while it is not known."""
    data_url: str | None
    """What annotators looked at; null where there is a `text`."""
    text: str | msgspec.UnsetType = msgspec.UNSET
    """What annotators read, where the task has a text and no URL; else missing."""
    metadata: msgspec.Raw
    """The value that stands in the manifest; null if there is none."""
    status: TaskStatus
    """`in_progress`, `settled` or `failed`."""
    reason: TaskReason | None
    """Why it failed; null if it did not."""
    consensus_label: str | None
    """The option on which it settled; null if it did not."""
    confidence: float | None
    """How likely that option is, as in an export; null without one."""
    votes: dict[str, int]
    """How many labels each option has."""
    labels: list[LabelGiven]
    """Its labels, the first one first."""


class DisagreementsPage(msgspec.Struct, frozen=True):
    """Disagreements in the order of the manifest; `next_cursor` is null on the last page.

    A page may have fewer than were asked for, or none, and yet not be the last one.
    """

    disagreements: list[DisagreementView]
    """The tasks."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


def _unknown_option(options: Sequence[str]) -> ApiError:
    return invalid_request([Fault("option", f"The options are {shorten(', '.join(options))}.")])


@get(
    "/{job_id:str}/disagreements",
    operation_id="list_disagreements",
    summary="Tasks that annotators disagree on",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job")),
    sync_to_thread=True,
)
def index(
    request: Request[Principal, Any, Any],
    job_id: JobId,
    database: NamedDependency[Database],
    *,
    status: Annotated[
        TaskStatus | None, QueryParameter(description="Only tasks of this status.")
    ] = None,
    option: Annotated[
        str | None, QueryParameter(description="Only tasks that somebody gave this label.")
    ] = None,
    annotator: Annotated[
        str | None,
        QueryParameter(
            description="Only tasks that this annotator labelled, by their id.",
            schema_extra=AN_ANNOTATOR,
        ),
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> DisagreementsPage:
    """Return a page of tasks whose labels are not all alike, in the order of the manifest.

    Each page looks at some 4,000 tasks at most. So one may be short, or empty, before the last.
    """
    check_annotator(annotator)
    job = find_job(request, job_id, database)
    if option is not None and option not in job.options:
        raise _unknown_option(job.options)
    wanted = Filter(
        None if status is None else _states(job, status),
        None if option is None else job.options.index(option) + 1,
        annotator,
    )
    settings: Settings = request.app.state.settings
    with database.transaction() as tx:
        page = disagreements.list_page(
            tx, job.job_no, options=len(job.options), limit=limit, after=cursor, wanted=wanted
        )
        if page is None:
            raise unknown_cursor()
        names = customers.find_annotator_names(
            tx,
            {vote.annotator_id for each in page.found for vote in each.labels},
            customer_id=job.customer_id,
            names=names_shown(request.user, settings),
        )
    return DisagreementsPage([_view(job, each, names) for each in page.found], page.cursor)


def _states(job: Job, status: TaskStatus) -> list[State]:
    """Return the states of the tasks that have a status: a job that was stopped fails its open ones."""
    open_ones = TaskStatus.FAILED if job.status in _CUT_SHORT else TaskStatus.IN_PROGRESS
    shown_as = {
        State.OPEN: open_ones,
        State.SETTLED: TaskStatus.SETTLED,
        State.FAILED: TaskStatus.FAILED,
    }
    return [state for state, shown in shown_as.items() if shown is status]


def _view(job: Job, found: Disagreement, names: Mapping[str, str]) -> DisagreementView:
    winner = found.outcome - 1 if found.outcome is not None and found.outcome > 0 else None
    reason = _reason(job, found.outcome)
    failed_or_open = TaskStatus.FAILED if reason else TaskStatus.IN_PROGRESS
    return DisagreementView(
        task_id=job.task_id(found.task_no),
        line=found.line,
        data_url=found.content.data_url,
        text=msgspec.UNSET if found.content.text is None else found.content.text,
        metadata=as_written(found.content.metadata),
        status=failed_or_open if winner is None else TaskStatus.SETTLED,
        reason=reason,
        consensus_label=None if winner is None else job.options[winner],
        confidence=found.confidence,
        votes=dict(zip(job.options, found.votes, strict=True)),
        labels=[
            LabelGiven(
                annotator_id=vote.annotator_id,
                name=names.get(vote.annotator_id),
                label=job.options[vote.option - 1],
                created_at=vote.created_at,
            )
            for vote in found.labels
        ],
    )


def _reason(job: Job, outcome: int | None) -> TaskReason | None:
    if outcome is None:
        return _CUT_SHORT.get(job.status)
    return why_failed(outcome) if outcome <= 0 else None


HANDLERS = [index]
