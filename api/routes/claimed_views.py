"""What annotators and reviewers see of the tasks that they hold."""

from datetime import datetime
from typing import Any

import msgspec

from api.routes.job_views import LabelSpec, label_spec_of
from api.signing import Signed
from blocks.domain.model import TaskType, UnsignedReason
from blocks.store.annotation import ClaimedTask, LabelledJob
from blocks.store.instructions import version_of
from blocks.store.reviews import Case, ClaimedReview


class InstructionsToRead(msgspec.Struct, frozen=True):
    """Which instructions a task has. `GET /v1/annotation/jobs/{job_id}` has the text."""

    job_id: str
    """The job that has them."""
    version: str
    """Changes with the text, so that one that was read need not be asked for again."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A task as annotators are shown it."""

    task_id: str
    """The id to send with the label."""
    data_url: str | None
    """What to look at, as the customer wrote it; null where there is a `text`."""
    signed_url: str | msgspec.UnsetType = msgspec.UNSET
    """Where the job has `sign_urls` and `data_url` is `s3://` or `gs://`: the URL to load instead, which
    needs no credentials and runs out a minute after the lease, 5 minutes from now at the earliest."""
    unsigned_reason: UnsignedReason | msgspec.UnsetType = msgspec.UNSET
    """Why there is no `signed_url` where the job asks for one; else missing."""
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


class Claimed(Shown, frozen=True, kw_only=True):
    """A task that is the annotator's until `lease_expires_at`."""

    lease_expires_at: datetime
    """Until when the task is held; then others may get it."""
    review: Case | msgspec.UnsetType = msgspec.UNSET
    """Only with `queue=review`: why the task is under review, and what annotators have said of it."""


def show_claimed(task: ClaimedTask, signed: Signed) -> Claimed:
    """Return what an annotator is shown of a task that they hold."""
    return Claimed(**show_task(task, signed), lease_expires_at=task.lease_expires_at)


def show_task(task: ClaimedTask, signed: Signed) -> dict[str, Any]:
    """Return the fields of `Shown` for a task."""
    metadata = msgspec.Raw(task.metadata) if task.metadata is not None else msgspec.UNSET
    return {
        "task_id": task.task_id,
        "data_url": task.data_url,
        **show_signed(signed.get(task.task_id)),
        "text": msgspec.UNSET if task.text is None else task.text,
        "metadata": metadata,
        "task_type": task.job.task_type,
        "label_spec": label_spec_of(task.job),
        "instructions": _instructions(task.job),
    }


def show_review(found: ClaimedReview, signed: Signed) -> Claimed:
    """Return what a reviewer is shown of a task that they hold."""
    return msgspec.structs.replace(show_claimed(found.task, signed), review=found.case)


def show_signed(signed: str | UnsignedReason | None) -> dict[str, Any]:
    """Return the field for a signed URL, or for the reason why there is none; nothing for None."""
    if signed is None:
        return {}
    return {"unsigned_reason" if isinstance(signed, UnsignedReason) else "signed_url": signed}


def _instructions(job: LabelledJob) -> InstructionsToRead | msgspec.UnsetType:
    version = version_of(job.instructions_digest)
    return InstructionsToRead(job.job_id, version) if version else msgspec.UNSET
