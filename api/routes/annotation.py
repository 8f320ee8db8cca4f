"""Tasks in the hands of annotators: claimed, listed, renewed, handed back; labels are in `labels`."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta

from api.auth import annotator_no
from api.http.bodies import digest
from api.http.errors import not_found, unknown_cursor
from api.http.parameters import PAGE_LIMIT, Cursor
from api.http.refusals import refusals
from api.metrics import Metrics
from api.routes.job_views import LabelSpec, label_spec_of
from blocks.bodies.fields import Body
from blocks.domain.model import ReleaseOutcome, RenewOutcome, TaskType
from blocks.settings import Settings
from blocks.store import annotation, leases
from blocks.store.annotation import ClaimKey
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.instructions import version_of

_BATCH_MAX = 500
_PAGE_DEFAULT = 100
_LEASE_S_MAX = 24 * 3600
_RETRY_AFTER_S = 5

_Request = Request[Principal, Any, Any]
_IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body gives the same tasks again, as long as they are held.",
    ),
]


class ClaimBody(Body, frozen=True, kw_only=True):
    """How many tasks, for how long, and which."""

    limit: Annotated[int, Meta(ge=1, le=_BATCH_MAX)]
    """How many tasks to take at most."""
    lease_seconds: Annotated[int, Meta(ge=1, le=_LEASE_S_MAX)] | None = None
    """How long to hold them; null is as long as the service is set to."""
    task_types: Annotated[list[TaskType], Meta(min_length=1, max_length=len(TaskType))] | None = (
        None
    )
    """Only tasks of these types; null is all."""
    job_id: str | None = None
    """Only tasks of this job; null is all."""


class InstructionsToRead(msgspec.Struct, frozen=True):
    """Which instructions a task has. `GET /v1/annotation/jobs/{job_id}` has the text."""

    job_id: str
    """The job that has them."""
    version: str
    """Changes with the text, so that one that was read need not be asked for again."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is the annotator's until `lease_expires_at`."""

    task_id: str
    """The id to send with the label."""
    data_url: str | None
    """What to look at; null where there is a `text`."""
    text: str | msgspec.UnsetType = msgspec.UNSET
    """What to read, where the task has a text and no URL; else missing."""
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What the customer shows of the task's metadata; missing where that is nothing."""
    task_type: TaskType
    """What to do."""
    label_spec: LabelSpec
    """The question, and the options to choose from."""
    instructions: InstructionsToRead | msgspec.UnsetType = msgspec.UNSET
    """What to read before labelling; missing where the job has no instructions."""
    lease_expires_at: datetime
    """Until when the task is held; then others may get it."""


class HeldTasks(msgspec.Struct, frozen=True):
    """A page of what the annotator holds; `next_cursor` is null on the last page."""

    tasks: list[Claimed]
    """What is held, of all claims."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class ClaimedTasks(msgspec.Struct, frozen=True):
    """The tasks of a claim. Without any, `retry_after_s` says whether more may come."""

    tasks: list[Claimed]
    """The tasks to label; empty where there is nothing to do just now."""
    retry_after_s: int | msgspec.UnsetType | None = msgspec.UNSET
    """Only where `tasks` is empty: in how many seconds to ask again, as more may come. Null where the
    `job_id` that was asked for has nothing left for this annotator, now or later."""


class RenewBody(Body, frozen=True, kw_only=True):
    """Tasks that the annotator holds and needs for longer."""

    task_ids: Annotated[list[str], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The tasks to hold on to."""
    lease_seconds: Annotated[int, Meta(ge=1, le=_LEASE_S_MAX)] | None = None
    """How long to hold them from now on; null is as long as the service is set to."""


class Renewal(msgspec.Struct, frozen=True):
    """What became of one task that was to be held for longer."""

    task_id: str
    """The task."""
    outcome: RenewOutcome
    """Whether it is held for longer; `not_held` where it is not the annotator's, or not any more."""
    lease_expires_at: datetime | msgspec.UnsetType = msgspec.UNSET
    """Until when the task is held now; missing where it is not."""


class Renewals(msgspec.Struct, frozen=True):
    """One for each task, in their order."""

    results: list[Renewal]
    """What became of each task."""


class ReleaseBody(Body, frozen=True, kw_only=True):
    """Tasks that the annotator holds and will not label."""

    task_ids: Annotated[list[str], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The tasks to hand back."""


class Release(msgspec.Struct, frozen=True):
    """What became of one task that was handed back."""

    task_id: str
    """The task."""
    outcome: ReleaseOutcome
    """Whether it was handed back; `not_held` where it was not the annotator's."""


class Releases(msgspec.Struct, frozen=True):
    """One for each task, in their order."""

    results: list[Release]
    """What became of each task."""


@post(
    "/claim",
    operation_id="claim_tasks",
    summary="Take tasks",
    responses=refusals(leases.key_conflict(), not_found("job"), takes=ClaimBody),
    status_code=200,
    sync_to_thread=True,
)
def claim(
    request: _Request,
    data: JSONBody[ClaimBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    metrics: NamedDependency[Metrics],
    *,
    idempotency_key: _IdempotencyKey = None,
) -> Response[ClaimedTasks]:
    """Take tasks to label, for a while; never one that this annotator has labelled or holds.

    Without any, `retry_after_s` says when to ask again, or by null that nothing is left of the job.
    """
    annotator = annotator_no(request)
    key = ClaimKey(idempotency_key, digest(data)) if idempotency_key else None
    with database.transaction() as tx:
        if key:
            annotation.await_claims(tx, annotator)
            earlier = leases.find_claimed(tx, annotator, key)
            if earlier:
                answer = ClaimedTasks([_claimed(task) for task in earlier])
                return Response(answer, headers={"Idempotent-Replayed": "true"})
        tasks = annotation.claim(
            tx,
            annotator,
            limit=data.limit,
            lease_s=data.lease_seconds or settings.lease_s,
            task_types=data.task_types,
            job_id=data.job_id,
            key=key,
        )
        may_come = bool(tasks) or _may_come(tx, annotator, data)
    if may_come is None:
        raise not_found("job")
    metrics.claimed_tasks.inc(len(tasks))
    if not tasks:
        return Response(ClaimedTasks([], _RETRY_AFTER_S if may_come else None))
    return Response(ClaimedTasks([_claimed(task) for task in tasks]))


def _may_come(tx: Transaction, annotator: int, asked: ClaimBody) -> bool | None:
    """Return whether tasks may come later; always true without a job, as another may be posted."""
    if asked.job_id is None:
        return True
    return annotation.may_come(tx, annotator, asked.job_id, asked.task_types)


@get(
    "/leases",
    operation_id="list_leases",
    summary="Tasks that are held",
    responses=refusals(),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    limit: Annotated[
        int, QueryParameter(ge=1, le=_BATCH_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> HeldTasks:
    """Return a page of the tasks that the annotator has claimed, in all claims, and not labelled yet."""
    with database.transaction() as tx:
        found = leases.list_page(tx, annotator_no(request), limit=limit, after=cursor)
    if found is None:
        raise unknown_cursor()
    return HeldTasks([_claimed(task) for task in found.tasks], found.last)


@post(
    "/renew",
    operation_id="renew_leases",
    summary="Hold tasks for longer",
    responses=refusals(takes=RenewBody),
    status_code=200,
    sync_to_thread=True,
)
def renew(
    request: _Request,
    data: JSONBody[RenewBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> Renewals:
    """Hold tasks for longer, with the rest of the claims that they are of; never for a shorter time.

    A lease that has run out is not renewed, even where nobody else was handed the task yet.
    """
    lease_s = data.lease_seconds or settings.lease_s
    with database.transaction() as tx:
        ends = leases.renew(tx, annotator_no(request), data.task_ids, lease_s=lease_s)
    return Renewals(
        [
            Renewal(id_, RenewOutcome.RENEWED, ends[id_])
            if id_ in ends
            else Renewal(id_, RenewOutcome.NOT_HELD)
            for id_ in data.task_ids
        ]
    )


@post(
    "/release",
    operation_id="release_tasks",
    summary="Hand tasks back",
    responses=refusals(takes=ReleaseBody),
    status_code=200,
    sync_to_thread=True,
)
def release(
    request: _Request, data: JSONBody[ReleaseBody], database: NamedDependency[Database]
) -> Releases:
    """Hand tasks back without a label. Others get them; this annotator does if nothing else is left."""
    with database.transaction() as tx:
        released = annotation.release(tx, annotator_no(request), data.task_ids)
    outcomes = {True: ReleaseOutcome.RELEASED, False: ReleaseOutcome.NOT_HELD}
    return Releases([Release(id_, outcomes[id_ in released]) for id_ in data.task_ids])


def _claimed(task: annotation.ClaimedTask) -> Claimed:
    metadata = msgspec.Raw(task.metadata) if task.metadata is not None else msgspec.UNSET
    return Claimed(
        task_id=task.task_id,
        data_url=task.data_url,
        text=msgspec.UNSET if task.text is None else task.text,
        metadata=metadata,
        task_type=task.job.task_type,
        label_spec=label_spec_of(task.job),
        instructions=_instructions(task.job),
        lease_expires_at=task.lease_expires_at,
    )


def _instructions(job: annotation.LabelledJob) -> InstructionsToRead | msgspec.UnsetType:
    version = version_of(job.instructions_digest)
    return InstructionsToRead(job.job_id, version) if version else msgspec.UNSET


HANDLERS = [claim, index, renew, release]
