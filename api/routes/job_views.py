"""Jobs as their customers see them. No field can hold a credential."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from blocks.domain.consensus import ALL
from blocks.domain.model import (
    Compression,
    ConsensusMethod,
    DeliveryStatus,
    JobStatus,
    OptionDetail,
    ResultFormat,
    TaskType,
)
from blocks.domain.object_urls import StoreType
from blocks.store import pace, waits
from blocks.store.database import Transaction
from blocks.store.instructions import version_of
from blocks.store.jobs import Job
from blocks.store.waits import Waiting

Share = Annotated[float, Meta(ge=0, le=1)]


class Manifest(msgspec.Struct, frozen=True):
    """The manifest: `bytes` and `etag` (GCS: the generation) are those of the pinned version."""

    url: str
    """Where it is, as it was posted."""
    bytes: int | None
    """Its size; null until it is looked at."""
    etag: str | None
    """Its version: the ETag, in GCS the generation; null until it is looked at."""
    lines_read: int
    """How many of its lines are read so far."""


class JobError(msgspec.Struct, frozen=True):
    """Why a job, or a delivery, failed."""

    code: str
    """What a program can tell failures apart by."""
    message: str
    """The reason, for people."""


class Delivery(msgspec.Struct, frozen=True):
    """Where the results go; `objects` counts those that stand there, `manifest.json` included."""

    type: StoreType
    """The store."""
    bucket: str
    """The bucket."""
    prefix: str
    """What the names of all objects begin with; the job's id follows it."""
    compression: Compression
    """How each object is compressed."""
    format: ResultFormat
    """JSON lines or Parquet."""
    status: DeliveryStatus | None
    """How far it is; null until the job's tasks are done."""
    objects: int | None
    """How many objects are written, `manifest.json` included; null before."""
    delivered_at: datetime | None
    """When `manifest.json` was written; null before."""
    code: str | None
    """Why it failed, for programs; null if it did not."""
    message: str | None
    """Why it failed, for people; null if it did not."""


class LabelSpec(msgspec.Struct, frozen=True):
    """The question, and the options to choose from."""

    question: str
    """What annotators are asked."""
    options: list[str]
    """What they can choose from."""
    option_details: list[OptionDetail] | msgspec.UnsetType = msgspec.UNSET
    """Descriptions and hotkeys of options; missing where there are none."""


class PaceView(msgspec.Struct, frozen=True):
    """How fast a job is labelled, and when its last task will be done at that pace."""

    labels_per_hour: float | None
    """By the latest requests of the last hour; null where only one has come."""
    labels_left: int
    """An estimate: as many for each open task as ended ones have needed, less those that are given."""
    eta: datetime | None
    """When the last label will come; null where nobody labels, or lines are still to be read."""


class _Asked(Protocol):
    """A job or a task, about which something is asked."""

    @property
    def question(self) -> str: ...
    @property
    def options(self) -> list[str]: ...
    @property
    def option_details(self) -> list[OptionDetail] | None: ...


def label_spec_of(asked: _Asked) -> LabelSpec:
    """Return what is asked about a job's tasks, or about a task."""
    return LabelSpec(asked.question, asked.options, asked.option_details or msgspec.UNSET)


class Consensus(msgspec.Struct, frozen=True, kw_only=True):
    """How labels decide a task; of `majority` only the method is there."""

    method: ConsensusMethod
    """`majority`: one label counts as much as another. `weighted`: labels count by skill."""
    target_confidence: Share | msgspec.UnsetType = msgspec.UNSET
    """How likely an option has to be for a task to settle on it."""
    labels_min: int | msgspec.UnsetType = msgspec.UNSET
    """How many labels a task has at the least."""
    labels_max: int | msgspec.UnsetType = msgspec.UNSET
    """With how many labels a task ends that is not settled."""


class _Decides(Protocol):
    @property
    def consensus_threshold(self) -> int: ...
    @property
    def target_confidence(self) -> int | None: ...
    @property
    def labels_max(self) -> int | None: ...


def consensus_of(asked: _Decides) -> Consensus:
    """Return how the labels of a job, or of a task, decide."""
    if asked.target_confidence is None or asked.labels_max is None:
        return Consensus(method=ConsensusMethod.MAJORITY)
    return Consensus(
        method=ConsensusMethod.WEIGHTED,
        target_confidence=asked.target_confidence / ALL,
        labels_min=asked.consensus_threshold,
        labels_max=asked.labels_max,
    )


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `total_tasks` counts every line that is not blank; a bad one counts as failed."""

    job_id: str
    """The id of the job."""
    customer_id: str
    """Whose job it is."""
    status: JobStatus
    """Where the job is in its life."""
    total_tasks: int
    """Lines of the manifest that were read and are not blank, good or bad."""
    tasks_done: int
    """Tasks that are settled."""
    tasks_failed: int
    """Tasks that failed, and bad lines; once the job failed or was cancelled, all that is not
    settled."""
    progress_percent: float
    """The share of `total_tasks` that is done or failed."""
    created_at: datetime
    """When the job was submitted."""
    started_at: datetime | None
    """When its manifest began to be read; null before."""
    completed_at: datetime | None
    """When the job was completed, failed or was cancelled; null before."""
    manifest: Manifest
    """The manifest, and how far it is read."""
    delivery: Delivery | None
    """Where the results go; null if the job asked for no delivery."""
    label_spec: LabelSpec
    """The question, and the options to choose from."""
    consensus_threshold: int
    """How many labels a task collects before agreement is looked at."""
    consensus: Consensus
    """How labels decide."""
    gold_share: Share
    """How many of the tasks that an annotator is given are gold, where there is any."""
    min_accuracy: Share | None
    """The share of gold tasks that annotators have to be right on; null if none is asked for."""
    min_gold_seen: int
    """How many gold tasks an annotator has labelled before `min_accuracy` is looked at."""
    include_labels: bool
    """Whether the export and the delivery show the single labels."""
    review_no_consensus: bool
    """Whether a reviewer decides tasks that would fail for want of a consensus."""
    review_confidence_below: Share | None
    """A reviewer decides tasks that would settle with less confidence; null if none for that."""
    review_share: Share | None
    """The share of tasks that a reviewer decides as a sample; null if none."""
    review_flagged: bool
    """Whether a reviewer decides tasks that would fail by `skips_max`."""
    review_deadline: float
    """How many hours a task waits for a reviewer at the most."""
    task_type: TaskType
    """What annotators are asked to do."""
    callback_url: str | None
    """Where the job's progress is told of; null if nowhere."""
    priority: int
    """Tasks of jobs with a higher one are given to annotators first."""
    stop_early: bool
    """Whether a task settles as soon as no other option can win any more."""
    skips_max: int
    """A task fails once so many annotators have skipped it for the same reason."""
    failure_threshold_percent: float
    """The share of bad lines above which the job fails."""
    metadata: msgspec.Raw
    """The object that was posted; null if there was none."""
    show_metadata: bool | list[str]
    """What annotators see of each line's `metadata`: all of it, none, or the members that are
    named here."""
    sign_urls: bool
    """Whether annotators get signed URLs, made with the job's credentials."""
    instructions_version: str | msgspec.UnsetType = msgspec.UNSET
    """Changes with the text of the job's instructions; missing where it has none."""
    error: JobError | None
    """Why the job failed; null if it did not."""
    paused_at: datetime | None
    """Since when an operator has paused the job, or all of its customer's; null if it goes on, or has
    ended."""
    waiting_for: Waiting | None
    """What keeps the job from going on; null if nothing does."""
    pace: PaceView | msgspec.UnsetType | None = msgspec.UNSET
    """How fast it is labelled, where a single job is asked for; null where it takes no labels."""


def views(tx: Transaction, jobs: Sequence[Job]) -> list[JobView]:
    """Return `jobs` as their customer sees them, with what each waits for."""
    waiting = waits.find_waits(tx, jobs)
    return [_view(job, waiting.get(job.job_no)) for job in jobs]


def find_pace(tx: Transaction, job: Job) -> PaceView | None:
    """Return how fast a job is labelled; None if it takes no labels."""
    if job.status is not JobStatus.PROCESSING or job.settled_at is not None:
        return None
    found = pace.measure(tx, job)
    per_hour = found.labels_per_hour
    return PaceView(
        None if per_hour is None else round(per_hour, 1),
        found.labels_left,
        found.eta(datetime.now(UTC)),
    )


def steady(shown: JobView) -> JobView:
    """Return the part that the ETag stands for: not the tries of a wait, which change often."""
    if shown.waiting_for is None:
        return shown
    waiting = msgspec.structs.replace(shown.waiting_for, tries=0, next_try_at=None)
    return msgspec.structs.replace(shown, waiting_for=waiting)


def _view(job: Job, waiting: Waiting | None) -> JobView:
    return JobView(
        job_id=job.job_id,
        customer_id=job.customer_id,
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
        label_spec=label_spec_of(job),
        consensus_threshold=job.consensus_threshold,
        consensus=consensus_of(job),
        gold_share=job.gold_share / ALL,
        min_accuracy=_to_share(job.min_accuracy),
        min_gold_seen=job.min_gold_seen,
        include_labels=job.include_labels,
        review_no_consensus=job.review_no_consensus,
        review_confidence_below=_to_share(job.review_confidence_below),
        review_share=_to_share(job.review_share),
        review_flagged=job.review_flagged,
        review_deadline=job.review_deadline,
        task_type=job.task_type,
        callback_url=job.callback_url,
        priority=job.priority,
        stop_early=job.stop_early,
        skips_max=job.skips_max,
        failure_threshold_percent=job.failure_threshold_percent,
        metadata=as_written(job.metadata),
        show_metadata=_show_metadata(job),
        sign_urls=job.sign_urls,
        instructions_version=version_of(job.instructions_digest) or msgspec.UNSET,
        error=JobError(job.error_code, job.error_message or "") if job.error_code else None,
        paused_at=job.paused_since,
        waiting_for=waiting,
    )


def _to_share(parts: int | None) -> float | None:
    return None if parts is None else parts / ALL


def as_written(metadata: str | None) -> msgspec.Raw:
    """Return metadata byte for byte as it came, or null."""
    return msgspec.Raw(metadata or "null")


def _show_metadata(job: Job) -> bool | list[str]:
    return True if job.shown_metadata is None else job.shown_metadata or False


def _percent(job: Job) -> float:
    ended = job.tasks_done + job.tasks_failed
    if ended == job.total_tasks:
        return 100.0 if job.total_tasks or job.status.has_ended else 0.0
    return min(round(ended / job.total_tasks * 100, 1), 99.9)  # only an ended job shows 100


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
