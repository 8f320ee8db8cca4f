"""What annotators look up: their counts and labels, and the jobs that have tasks for them."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from api.auth import annotator_no
from api.http.errors import not_found, unknown_cursor
from api.http.parameters import PAGE_LIMIT, Cursor
from api.http.refusals import refusals
from api.routes.claimed_views import Shown, show_task
from api.routes.job_views import LabelSpec, label_spec_of
from api.signing import UrlSigner, find_sealed
from blocks.domain.ids import is_job_id
from blocks.domain.model import TaskType
from blocks.store import label_batches, leases, own_work, reviews
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.instructions import version_of

_PAGE_DEFAULT = 20
_PAGE_MAX = 100

_Request = Request[Principal, Any, Any]
_TaskId = Annotated[str, PathParameter(description="The id of a task that you have labelled.")]
_JobId = Annotated[str, PathParameter(description="The id of a job that has tasks for you.")]


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """An annotator: what they hold, and how much they have done. Days are of UTC."""

    annotator_id: str
    """The id of the annotator."""
    name: str
    """Their name, as the operator gave it."""
    tasks_held: int
    """How many tasks they have claimed and not labelled yet."""
    reviews_held: int
    """How many tasks under review they have claimed and not decided yet."""
    lease_expires_at: datetime | None
    """When the first of these goes to others; null if they hold nothing."""
    labels: int
    """How many of their labels were taken, in all."""
    labels_today: int
    """How many of them today."""
    settled: int
    """How many tasks were settled by a label of theirs, in all."""
    settled_today: int
    """How many of them today."""


class OwnLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label of the annotator that was taken."""

    task_id: str
    """The task."""
    job_id: str
    """Its job."""
    label: str | None
    """The option that they chose; null where it cannot be read any more."""
    created_at: datetime
    """When it was taken."""


class OwnLabels(msgspec.Struct, frozen=True):
    """Labels of the annotator, the latest first; `next_cursor` is null on the last page."""

    labels: list[OwnLabel]
    """The labels."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class OpenLabel(Shown, frozen=True, kw_only=True):
    """A task that the annotator has labelled, and may label otherwise; it is not held."""

    label: str
    """The option that they chose."""
    created_at: datetime
    """When the label was taken."""


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


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that may have tasks for the annotator."""

    job_id: str
    """The id of the job, which a claim can name."""
    task_type: TaskType
    """What to do."""
    question: str
    """What is asked about each task."""
    instructions_version: str | None
    """Changes with the text of the instructions; null where there are none."""


class OpenJobs(msgspec.Struct, frozen=True):
    """Jobs that may have tasks for the annotator, in the order in which claims take them."""

    jobs: list[OpenJob]
    """The jobs, at most as many as were asked for."""


@get(
    "/me",
    operation_id="get_me",
    summary="Your counts",
    responses=refusals(),
    sync_to_thread=True,
)
def read_me(request: _Request, database: NamedDependency[Database]) -> Me:
    """Return what this annotator holds, and how many labels of theirs were taken, today and in all."""
    annotator = annotator_no(request)
    with database.transaction() as tx:
        found = own_work.find_self(tx, annotator)
        held = leases.count_held(tx, annotator)
        reviewing = reviews.count_held(tx, annotator)
        counts = label_batches.count(tx, annotator)
    return Me(
        annotator_id=found.annotator_id,
        name=found.name,
        tasks_held=held.tasks,
        reviews_held=reviewing.tasks,
        lease_expires_at=min(filter(None, (held.expires_at, reviewing.expires_at)), default=None),
        labels=counts.labels,
        labels_today=counts.labels_today,
        settled=counts.settled,
        settled_today=counts.settled_today,
    )


@get(
    "/me/labels",
    operation_id="list_own_labels",
    summary="Your latest labels",
    responses=refusals(),
    sync_to_thread=True,
)
def list_labels(
    request: _Request,
    database: NamedDependency[Database],
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> OwnLabels:
    """Return a page of this annotator's labels, the latest first.

    The list goes back by 1,000 requests at least; what is older is counted, and listed no more.
    """
    with database.transaction() as tx:
        found = label_batches.list_page(tx, annotator_no(request), limit=limit + 1, before=cursor)
    if found is None:
        raise unknown_cursor()
    page = [
        OwnLabel(
            task_id=each.task_id, job_id=each.job_id, label=each.label, created_at=each.created_at
        )
        for each in found[:limit]
    ]
    return OwnLabels(page, found[limit - 1].cursor if len(found) > limit else None)


@get(
    "/me/labels/{task_id:str}",
    operation_id="get_own_label",
    summary="One of your labels, and its task",
    responses=refusals(not_found("label")),
    sync_to_thread=True,
)
def read_label(
    request: _Request,
    task_id: _TaskId,
    database: NamedDependency[Database],
    url_signer: NamedDependency[UrlSigner],
) -> OpenLabel:
    """Return a task that this annotator has labelled and may label otherwise, with `replace`.

    A task that takes no more labels is answered as one that they have not labelled.
    """
    with database.transaction() as tx:
        found = own_work.find_open_label(tx, annotator_no(request), task_id)
        sealed = find_sealed(tx, [found.task]) if found else {}
    if found is None:
        raise not_found("label")
    signed = url_signer.sign([found.task], sealed)
    return OpenLabel(
        **show_task(found.task, signed), label=found.label, created_at=found.created_at
    )


@get(
    "/me/jobs",
    operation_id="list_open_jobs",
    summary="Jobs with work for you",
    responses=refusals(),
    sync_to_thread=True,
)
def list_jobs(
    request: _Request,
    database: NamedDependency[Database],
    limit: Annotated[
        int, QueryParameter(ge=1, le=_PAGE_MAX, description="How many are listed at most.")
    ] = _PAGE_DEFAULT,
) -> OpenJobs:
    """Return jobs that may have tasks for this annotator just now, those of a higher priority first.

    Of jobs of one priority, which have their turns by lot, others may be listed the next time.
    """
    with database.transaction() as tx:
        found = own_work.list_open_jobs(tx, annotator_no(request), limit=limit)
    return OpenJobs(
        [
            OpenJob(
                job_id=job.job_id,
                task_type=job.task_type,
                question=job.question,
                instructions_version=version_of(job.instructions_digest),
            )
            for job in found
        ]
    )


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
    job = None
    if is_job_id(job_id):
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


HANDLERS = [read_me, list_labels, read_label, list_jobs, read_job]
