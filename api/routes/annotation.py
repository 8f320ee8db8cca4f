"""Annotators: claim tasks, hand in labels, hand tasks back."""

from collections import Counter
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from api.auth import annotators_only
from api.errors import documented
from api.metrics import Metrics
from api.routes.job_views import LabelSpec
from blocks.bodies import Body
from blocks.model import LabelOutcome, ReleaseOutcome, TaskType
from blocks.settings import Settings
from blocks.store import annotation
from blocks.store.customers import Principal
from blocks.store.database import Database

_BATCH_MAX = 500
_LEASE_S_MAX = 24 * 3600

_Request = Request[Principal, Any, Any]


class ClaimBody(Body, frozen=True, kw_only=True):
    """How many tasks, for how long, and which."""

    limit: Annotated[int, Meta(ge=1, le=_BATCH_MAX)]
    lease_seconds: Annotated[int, Meta(ge=1, le=_LEASE_S_MAX)] | None = None
    task_types: Annotated[list[TaskType], Meta(min_length=1, max_length=len(TaskType))] | None = (
        None
    )
    job_id: str | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is the annotator's until `lease_expires_at`."""

    task_id: str
    data_url: str
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    task_type: TaskType
    label_spec: LabelSpec
    lease_expires_at: datetime


class ClaimedTasks(msgspec.Struct, frozen=True):
    """Empty where there is nothing to do just now."""

    tasks: list[Claimed]


class LabelBody(Body, frozen=True, kw_only=True):
    """One of the options of the task's job."""

    task_id: str
    label: str


class LabelsBody(Body, frozen=True, kw_only=True):
    """Labels of one annotator; each is taken or refused by itself."""

    labels: Annotated[list[LabelBody], Meta(min_length=1, max_length=_BATCH_MAX)]


class Outcome(msgspec.Struct, frozen=True):
    """What became of the label for a task."""

    task_id: str
    outcome: LabelOutcome


class Outcomes(msgspec.Struct, frozen=True):
    """One for each label, in their order."""

    results: list[Outcome]


class ReleaseBody(Body, frozen=True, kw_only=True):
    """Tasks that the annotator holds and will not label."""

    task_ids: Annotated[list[str], Meta(min_length=1, max_length=_BATCH_MAX)]


class Release(msgspec.Struct, frozen=True):
    """What became of one."""

    task_id: str
    outcome: ReleaseOutcome


class Releases(msgspec.Struct, frozen=True):
    """One for each task, in their order."""

    results: list[Release]


@post(
    "/v1/annotation/claim",
    operation_id="claim_tasks",
    summary="Take tasks",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(400, 401, 403, 413, 415),
    status_code=200,
    sync_to_thread=True,
)
def claim(
    request: _Request,
    data: JSONBody[ClaimBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    metrics: NamedDependency[Metrics],
) -> ClaimedTasks:
    """Take tasks to label, for a while; never one that this annotator has labelled or holds."""
    with database.transaction() as tx:
        tasks = annotation.claim(
            tx,
            _annotator(request),
            limit=data.limit,
            lease_s=data.lease_seconds or settings.lease_s,
            task_types=data.task_types,
            job_id=data.job_id,
        )
    metrics.claimed_tasks.inc(len(tasks))
    return ClaimedTasks([_claimed(task) for task in tasks])


@post(
    "/v1/annotation/labels",
    operation_id="submit_labels",
    summary="Hand in labels",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(400, 401, 403, 413, 415),
    status_code=200,
    sync_to_thread=True,
)
def submit(
    request: _Request,
    data: JSONBody[LabelsBody],
    database: NamedDependency[Database],
    metrics: NamedDependency[Metrics],
) -> Outcomes:
    """Hand in labels. A label cannot be changed; one handed in again is a `duplicate`."""
    labels = [annotation.Label(label.task_id, label.label) for label in data.labels]
    with database.transaction() as tx:
        outcomes = annotation.submit(tx, _annotator(request), labels)
    for outcome, count in Counter(outcomes).items():
        metrics.labels.labels(outcome).inc(count)
    pairs = zip(labels, outcomes, strict=True)
    return Outcomes([Outcome(label.task_id, outcome) for label, outcome in pairs])


@post(
    "/v1/annotation/release",
    operation_id="release_tasks",
    summary="Hand tasks back",
    tags=["Annotation"],
    guards=[annotators_only],
    responses=documented(400, 401, 403, 413, 415),
    status_code=200,
    sync_to_thread=True,
)
def release(
    request: _Request, data: JSONBody[ReleaseBody], database: NamedDependency[Database]
) -> Releases:
    """Hand tasks back without a label: others get them, and who has nothing else to do."""
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


HANDLERS = [claim, submit, release]
