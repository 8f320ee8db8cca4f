"""What a job looks like from outside. No field of it can hold a credential."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from blocks.domain.model import DeliveryStatus, JobStatus, TaskType
from blocks.store import waits
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from blocks.store.waits import Waiting


class Manifest(msgspec.Struct, frozen=True):
    """The manifest: `bytes` and `etag` (GCS: the generation) are those of the pinned version."""

    url: str
    bytes: int | None
    etag: str | None
    lines_read: int


class JobError(msgspec.Struct, frozen=True):
    """Why a job, or a delivery, failed."""

    code: str
    message: str


class Delivery(msgspec.Struct, frozen=True):
    """Where the results go; `objects` counts those that stand there, `manifest.json` included."""

    type: str
    bucket: str
    prefix: str
    compression: str
    format: str
    status: DeliveryStatus | None
    objects: int | None
    delivered_at: datetime | None
    code: str | None
    message: str | None


class LabelSpec(msgspec.Struct, frozen=True):
    """The question, and the options to choose from."""

    question: str
    options: list[str]


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `total_tasks` counts every line that is not blank; a bad one counts as failed."""

    job_id: str
    status: JobStatus
    total_tasks: int
    tasks_done: int
    tasks_failed: int
    progress_percent: float
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    manifest: Manifest
    delivery: Delivery | None
    label_spec: LabelSpec
    consensus_threshold: int
    task_type: TaskType
    callback_url: str | None
    priority: int
    stop_early: bool
    failure_threshold_percent: float
    metadata: msgspec.Raw
    show_metadata: bool | list[str]
    error: JobError | None
    waiting_for: Waiting | None


def views(tx: Transaction, jobs: Sequence[Job]) -> list[JobView]:
    """Return `jobs` as their customer sees them, with what each waits for."""
    waiting = waits.of_jobs(tx, jobs)
    return [_view(job, waiting.get(job.job_no)) for job in jobs]


def steady(shown: JobView) -> JobView:
    """Return what the ETag is of: without the counter and the next try of a wait, which move often."""
    if shown.waiting_for is None:
        return shown
    waiting = msgspec.structs.replace(shown.waiting_for, tries=0, next_try_at=None)
    return msgspec.structs.replace(shown, waiting_for=waiting)


def _view(job: Job, waiting: Waiting | None) -> JobView:
    return JobView(
        job_id=job.job_id,
        status=job.status,
        total_tasks=job.total_tasks,
        tasks_done=job.tasks_done,
        tasks_failed=job.tasks_failed,
        progress_percent=_percent(job),
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        manifest=Manifest(
            job.manifest_url, job.manifest_bytes, job.manifest_version, job.lines_read
        ),
        delivery=_delivery(job),
        label_spec=LabelSpec(job.question, job.options),
        consensus_threshold=job.consensus_threshold,
        task_type=job.task_type,
        callback_url=job.callback_url,
        priority=job.priority,
        stop_early=job.stop_early,
        failure_threshold_percent=job.failure_threshold_percent,
        metadata=as_written(job.metadata),
        show_metadata=_show_metadata(job),
        error=JobError(job.error_code, job.error_message or "") if job.error_code else None,
        waiting_for=waiting,
    )


def as_written(metadata: str | None) -> msgspec.Raw:
    """Metadata byte for byte as it came, or null."""
    return msgspec.Raw(metadata or "null")


def _show_metadata(job: Job) -> bool | list[str]:
    return True if job.shown_metadata is None else job.shown_metadata or False


def _percent(job: Job) -> float:
    ended = job.tasks_done + job.tasks_failed
    if ended == job.total_tasks:
        return 100.0 if job.total_tasks or job.status.ended else 0.0
    return min(round(ended / job.total_tasks * 100, 1), 99.9)  # 100 is for the end


def _delivery(job: Job) -> Delivery | None:
    target = job.delivery
    if target is None:
        return None
    return Delivery(
        type=target.type,
        bucket=target.bucket,
        prefix=target.prefix,
        compression=target.compression,
        format=target.format,
        status=job.delivery_status,
        objects=job.delivery_objects,
        delivered_at=job.delivered_at,
        code=job.delivery_error_code,
        message=job.delivery_error_message,
    )
