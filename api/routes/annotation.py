"""Annotators: claim tasks, hand in labels, hand tasks back."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta

from api.auth import annotators_only
from api.http.bodies import digest
from api.http.documented import documented
from api.http.errors import invalid_request
from api.http.parameters import PAGE_LIMIT, Cursor
from api.http.requesters import current
from api.metrics import Metrics
from api.routes.job_views import LabelSpec
from blocks.bodies.fields import Body, Fault
from blocks.domain.ids import job_of_task
from blocks.domain.model import LabelOutcome, ReleaseOutcome, TaskType
from blocks.settings import Settings
from blocks.store import annotation, leases
from blocks.store.annotation import ClaimKey
from blocks.store.customers import Principal
from blocks.store.database import Database

_BATCH_MAX = 500
_PAGE_DEFAULT = 100
_LEASE_S_MAX = 24 * 3600
_JOB_SHARE = 1 / 2  # of the places for requests

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


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is the annotator's until `lease_expires_at`."""

    task_id: str
    """The id to send with the label."""
    data_url: str
    """What to look at."""
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What the customer shows of the task's metadata; missing where that is nothing."""
    task_type: TaskType
    """What to do."""
    label_spec: LabelSpec
    """The question, and the options to choose from."""
    lease_expires_at: datetime
    """Until when the task is held; then others may get it."""


class HeldTasks(msgspec.Struct, frozen=True):
    """A page of what the annotator holds; `next_cursor` is null on the last page."""

    tasks: list[Claimed]
    """What is held, of all claims."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class ClaimedTasks(msgspec.Struct, frozen=True):
    """Empty where there is nothing to do just now."""

    tasks: list[Claimed]
    """The tasks to label."""


class LabelBody(Body, frozen=True, kw_only=True):
    """One of the options of the task's job."""

    task_id: str
    """The id of a task that was claimed."""
    label: str
    """One of the options of the task."""


class LabelsBody(Body, frozen=True, kw_only=True):
    """Labels of one annotator; each is taken or refused by itself."""

    labels: Annotated[list[LabelBody], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The labels, in any order."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of the label for a task."""

    task_id: str
    """The task."""
    outcome: LabelOutcome
    """What became of the label; `settled` where it was the deciding one."""


class Outcomes(msgspec.Struct, frozen=True):
    """One for each label, in their order."""

    results: list[Outcome]
    """What became of each label."""


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
    "/v1/annotation/claim",
    operation_id="claim_tasks",
    summary="Take tasks",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(leases.key_conflict(), takes=ClaimBody),
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
    """Take tasks to label, for a while; never one that this annotator has labelled or holds."""
    annotator_no = _annotator(request)
    key = ClaimKey(idempotency_key, digest(data)) if idempotency_key else None
    with database.transaction() as tx:
        if key:
            annotation.await_claims(tx, annotator_no)
            earlier = leases.find_claimed(tx, annotator_no, key)
            if earlier:
                answer = ClaimedTasks([_claimed(task) for task in earlier])
                return Response(answer, headers={"Idempotent-Replayed": "true"})
        tasks = annotation.claim(
            tx,
            annotator_no,
            limit=data.limit,
            lease_s=data.lease_seconds or settings.lease_s,
            task_types=data.task_types,
            job_id=data.job_id,
            key=key,
        )
    metrics.claimed_tasks.inc(len(tasks))
    return Response(ClaimedTasks([_claimed(task) for task in tasks]))


@get(
    "/v1/annotation/leases",
    operation_id="list_leases",
    summary="Tasks that are held",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(),
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
        found = leases.list_page(tx, _annotator(request), limit=limit + 1, after=cursor)
    if found is None:
        raise invalid_request([Fault("cursor", "This is not the next_cursor of any page.")])
    page = [_claimed(task) for task in found[:limit]]
    return HeldTasks(page, page[-1].task_id if len(found) > limit else None)


@post(
    "/v1/annotation/labels",
    operation_id="submit_labels",
    summary="Hand in labels",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(takes=LabelsBody),
    status_code=200,
)
async def submit(
    request: _Request,
    data: JSONBody[LabelsBody],
    database: NamedDependency[Database],
    metrics: NamedDependency[Metrics],
) -> Outcomes:
    """Hand in labels. A label cannot be changed; one handed in again is a `duplicate`."""
    labels = [annotation.Label(label.task_id, label.label) for label in data.labels]
    # What locks a job's rows holds up its labels, and must not hold up those of other jobs.
    jobs = {job_of_task(label.task_id) for label in labels}
    current().count_in({f"labels of {job}": _JOB_SHARE for job in jobs})
    outcomes = await sync_to_thread(_submit, database, _annotator(request), labels)
    for outcome, count in Counter(outcomes).items():
        metrics.labels.labels(outcome).inc(count)
    pairs = zip(labels, outcomes, strict=True)
    return Outcomes([Outcome(label.task_id, outcome) for label, outcome in pairs])


def _submit(
    database: Database, annotator_no: int, labels: Sequence[annotation.Label]
) -> Sequence[LabelOutcome]:
    with database.transaction() as tx:
        return annotation.submit(tx, annotator_no, labels)


@post(
    "/v1/annotation/release",
    operation_id="release_tasks",
    summary="Hand tasks back",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(takes=ReleaseBody),
    status_code=200,
    sync_to_thread=True,
)
def release(
    request: _Request, data: JSONBody[ReleaseBody], database: NamedDependency[Database]
) -> Releases:
    """Hand tasks back without a label. Others get them; this annotator does if nothing else is left."""
    with database.transaction() as tx:
        released = annotation.release(tx, _annotator(request), data.task_ids)
    outcomes = {True: ReleaseOutcome.RELEASED, False: ReleaseOutcome.NOT_HELD}
    return Releases([Release(id_, outcomes[id_ in released]) for id_ in data.task_ids])


def _annotator(request: _Request) -> int:
    assert request.user.annotator_no is not None  # the guard has looked
    return request.user.annotator_no


def _claimed(task: annotation.ClaimedTask) -> Claimed:
    metadata = msgspec.Raw(task.metadata) if task.metadata is not None else msgspec.UNSET
    return Claimed(
        task_id=task.task_id,
        data_url=task.data_url,
        metadata=metadata,
        task_type=task.job.task_type,
        label_spec=LabelSpec(task.job.question, task.job.options),
        lease_expires_at=task.lease_expires_at,
    )


HANDLERS = [claim, index, submit, release]
