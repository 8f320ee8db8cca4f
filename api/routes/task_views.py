"""What a task looks like from outside."""

from datetime import datetime
from typing import Literal

import msgspec

from api.routes.job_views import LabelSpec, as_written
from blocks.domain.model import TaskReason, TaskStatus, TaskType
from blocks.store.tasks import Task


class TaskAccepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The task is recorded; `idempotent` where an earlier request with its key had done so."""

    task_id: str
    status: TaskStatus
    created_at: datetime
    idempotent: bool = False


class BatchAccepted(msgspec.Struct, frozen=True):
    """All tasks are recorded; their ids are in the order of the request."""

    batch_id: str
    task_count: int
    task_ids: list[str]
    status: str = "accepted"


class StillLabelled(msgspec.Struct, frozen=True):
    """There is no result yet."""

    status: Literal["in_progress"] = "in_progress"
    message: str = "Task is still being labeled."


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task: `job_id` and `line` of one from a manifest, `batch_id` of one from a batch.

    `labels` counts those that were taken so far, whosever they are.
    """

    task_id: str
    status: TaskStatus
    reason: TaskReason | None
    type: TaskType
    data_url: str
    label_spec: LabelSpec
    consensus_threshold: int
    stop_early: bool
    labels: int
    metadata: msgspec.Raw
    callback_url: str | None
    job_id: str | None
    line: int | None
    batch_id: str | None
    created_at: datetime
    settled_at: datetime | None


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an export line. Of a failed task there is no consensus, but a `reason`."""

    task_id: str
    line: int | None
    data_url: str
    metadata: msgspec.Raw
    status: TaskStatus
    reason: TaskReason | msgspec.UnsetType = msgspec.UNSET
    consensus_label: str | None
    confidence: float | None
    worker_count: int
    agreement_count: int
    votes: dict[str, int]
    created_at: datetime
    settled_at: datetime | None


def view(task: Task) -> TaskView:
    """`task` as its customer sees it."""
    return TaskView(
        task_id=task.task_id,
        status=task.status,
        reason=task.reason,
        type=task.task_type,
        data_url=task.data_url,
        label_spec=LabelSpec(task.question, task.options),
        consensus_threshold=task.consensus_threshold,
        stop_early=task.stop_early,
        labels=sum(task.votes or ()),
        metadata=as_written(task.metadata),
        callback_url=task.callback_url,
        job_id=None if task.inline else task.job_id,
        line=task.line,
        batch_id=task.batch_id,
        created_at=task.created_at,
        settled_at=_settled_at(task),
    )


def result(task: Task) -> TaskResult:
    """What has become of a task that is settled or failed."""
    votes = task.votes or [0] * len(task.options)
    winner = task.outcome - 1 if task.outcome else None
    labels = sum(votes)
    return TaskResult(
        task_id=task.task_id,
        line=task.line,
        data_url=task.data_url,
        metadata=as_written(task.metadata),
        status=task.status,
        reason=task.reason or msgspec.UNSET,
        consensus_label=None if winner is None else task.options[winner],
        confidence=None if winner is None else votes[winner] / labels,
        worker_count=labels,
        agreement_count=max(votes),
        votes=dict(zip(task.options, votes, strict=True)),
        created_at=task.created_at,
        settled_at=_settled_at(task),
    )


def _settled_at(task: Task) -> datetime | None:
    return None if task.outcome is None else task.labelled_at
