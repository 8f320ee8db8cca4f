"""Tasks as their customers see them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from api.routes.job_views import Consensus, LabelSpec, as_written, consensus_of, label_spec_of
from blocks.domain.consensus import ALL
from blocks.domain.model import SettledBy, TaskReason, TaskStatus, TaskType
from blocks.store.instructions import version_of
from blocks.store.tasks import Skip, Task


class TaskAccepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The task is recorded; `idempotent` where an earlier request with its key had done so."""

    task_id: str
    """The id of the task."""
    status: TaskStatus
    """Where the task is in its life."""
    created_at: datetime
    """When it was recorded."""
    idempotent: bool = False
    """True if an earlier request with the same `idempotency_key` recorded it."""


class BatchAccepted(msgspec.Struct, frozen=True):
    """All tasks are recorded; their ids are in the order of the request."""

    batch_id: str
    """The id of the batch, which its tasks show."""
    task_count: int
    """How many tasks were recorded."""
    task_ids: list[str]
    """Their ids, in the order of the request."""
    status: str = "accepted"
    """Always `accepted`."""


class StillLabelled(msgspec.Struct, frozen=True):
    """There is no result yet."""

    status: Literal["in_progress"] = "in_progress"
    """Always `in_progress`."""
    message: str = "Task is still being labeled."
    """The same, for people."""


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task: `job_id` and `line` of one from a manifest, `batch_id` of one from a batch.

    `labels` counts those that were taken so far, whosever they are.
    """

    task_id: str
    """The id of the task."""
    status: TaskStatus
    """Where the task is in its life."""
    reason: TaskReason | None
    """Why it failed; null if it did not."""
    type: TaskType
    """What annotators are asked to do."""
    data_url: str | None
    """What they look at; null where there is a `text`."""
    text: str | msgspec.UnsetType = msgspec.UNSET
    """What they read, where the task has a text and no URL; else missing."""
    label_spec: LabelSpec
    """The question, and the options to choose from."""
    consensus_threshold: int
    """How many labels it collects before agreement is looked at."""
    consensus: Consensus
    """How labels decide."""
    stop_early: bool
    """Whether it settles as soon as no other option can win any more."""
    skips_max: int
    """It fails once so many annotators have skipped it for the same reason."""
    labels: int
    """How many labels it has, of all annotators."""
    skips: list[Skip]
    """Why annotators have skipped it, in their order; also those who have labelled it since."""
    metadata: msgspec.Raw
    """The value that was posted or stands in the manifest; null if there is none."""
    callback_url: str | None
    """Where its result is told of; null if nowhere."""
    job_id: str | None
    """Its job; null if it was submitted inline."""
    line: int | None
    """Its line in the manifest, from 1 on; null if it was submitted inline."""
    batch_id: str | None
    """Its batch; null if it is of none."""
    created_at: datetime
    """When it was recorded."""
    settled_at: datetime | None
    """When it was settled, or failed for its labels or skips; null before."""
    settled_by: SettledBy | msgspec.UnsetType = msgspec.UNSET
    """Whether its labels or a reviewer settled it; missing before, and without a review queue."""
    instructions_version: str | msgspec.UnsetType = msgspec.UNSET
    """Changes with the text of the instructions; missing where there are none."""
    gold: bool | msgspec.UnsetType = msgspec.UNSET
    """True for a line whose answer the manifest says, which no label settles; else missing."""


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an export line. Of a failed task there is no consensus, but a `reason`."""

    task_id: str
    """The id of the task."""
    line: int | None
    """Its line in the manifest, from 1 on; null if it was submitted inline."""
    data_url: str | None
    """What annotators looked at; null where there is a `text`."""
    text: str | msgspec.UnsetType = msgspec.UNSET
    """What annotators read, where the task has a text and no URL; else missing."""
    metadata: msgspec.Raw
    """The value that was posted or stands in the manifest; null if there is none."""
    status: TaskStatus
    """`settled` or `failed`."""
    reason: TaskReason | msgspec.UnsetType = msgspec.UNSET
    """Why it failed; missing if it did not."""
    consensus_label: str | None
    """The option that won; null if it failed."""
    settled_by: SettledBy | msgspec.UnsetType = msgspec.UNSET
    """Whether its labels or a reviewer settled it; missing in jobs without a review queue."""
    confidence: float | None
    """`agreement_count` / `worker_count`; where labels are weighed, how likely the option is by the
    skills of all who labelled it; 1 for gold; null if it failed."""
    worker_count: int
    """How many annotators labelled it."""
    agreement_count: int
    """How many labels that option has; of a failed task, the option with the most of them."""
    votes: dict[str, int]
    """How many labels each option has."""
    created_at: datetime
    """When it was recorded."""
    settled_at: datetime | None
    """When it was settled; null if it ended without a decision."""
    gold: bool | msgspec.UnsetType = msgspec.UNSET
    """True for a line whose answer the manifest says; else missing."""


def view(task: Task) -> TaskView:
    """Return a task as its customer sees it."""
    return TaskView(
        task_id=task.task_id,
        status=task.status,
        reason=task.reason,
        type=task.task_type,
        data_url=task.data_url,
        text=msgspec.UNSET if task.text is None else task.text,
        label_spec=label_spec_of(task),
        consensus_threshold=task.consensus_threshold,
        consensus=consensus_of(task),
        stop_early=task.stop_early,
        skips_max=task.skips_max,
        labels=sum(task.votes or ()),
        skips=task.skips,
        metadata=as_written(task.metadata),
        callback_url=task.callback_url,
        job_id=None if task.inline else task.job_id,
        line=task.line,
        batch_id=task.batch_id,
        created_at=task.created_at,
        settled_at=_settled_at(task),
        settled_by=task.settled_by or msgspec.UNSET,
        instructions_version=version_of(task.instructions_digest) or msgspec.UNSET,
        gold=task.gold is not None or msgspec.UNSET,
    )


def result(task: Task) -> TaskResult:
    """Return the result of a task that is settled or failed."""
    votes = task.votes or [0] * len(task.options)
    winner = task.outcome - 1 if task.outcome is not None and task.outcome > 0 else None
    labels = sum(votes)
    return TaskResult(
        task_id=task.task_id,
        line=task.line,
        data_url=task.data_url,
        text=msgspec.UNSET if task.text is None else task.text,
        metadata=as_written(task.metadata),
        status=task.status,
        reason=task.reason or msgspec.UNSET,
        consensus_label=None if winner is None else task.options[winner],
        settled_by=task.settled_by or msgspec.UNSET,
        confidence=None if winner is None else _confidence(task, votes, winner),
        worker_count=labels,
        agreement_count=max(votes) if winner is None else votes[winner],
        votes=dict(zip(task.options, votes, strict=True)),
        created_at=task.created_at,
        settled_at=_settled_at(task),
        gold=task.gold is not None or msgspec.UNSET,
    )


def _confidence(task: Task, votes: Sequence[int], winner: int) -> float:
    if task.gold is not None:
        return 1.0
    if task.target_confidence is not None:
        return (task.confidence or 0) / ALL
    return votes[winner] / max(sum(votes), 1)  # a reviewer may settle what nobody has labelled


def _settled_at(task: Task) -> datetime | None:
    return None if task.outcome is None else task.labelled_at
