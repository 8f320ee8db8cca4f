"""What streams tell of jobs: how far each is, and that they are alive."""

from datetime import datetime

import msgspec

from api.routes.job_views import JobView
from blocks.domain.model import DeliveryStatus, JobStatus
from blocks.store.waits import Waiting


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is: what of it changes while it is under way."""

    job_id: str
    """The id of the job."""
    status: JobStatus
    """Where the job is in its life."""
    total_tasks: int
    """Lines of the manifest that were read and are not blank, good or bad."""
    tasks_done: int
    """Tasks that are settled."""
    tasks_failed: int
    """Tasks that failed, and bad lines."""
    progress_percent: float
    """The share of `total_tasks` that is done or failed."""
    lines_read: int
    """How many lines of its manifest are read so far."""
    delivery_status: DeliveryStatus | None
    """How far its delivery is; null until its tasks are done, or where none was asked for."""
    completed_at: datetime | None
    """When the job was completed, failed or was cancelled; null before."""
    waiting_for: Waiting | None
    """What keeps the job from going on; null if nothing does."""

    @property
    def is_under_way(self) -> bool:
        """True while something of it may change."""
        delivering = {DeliveryStatus.PENDING, DeliveryStatus.DELIVERING}
        return not self.status.has_ended or self.delivery_status in delivering


class Begun(msgspec.Struct, frozen=True):
    """The first event: whether what follows goes on where `Last-Event-ID` stopped."""

    resumed: bool
    """False: anything may have changed meanwhile; list the jobs once."""


class Alive(msgspec.Struct, frozen=True):
    """Every 15 seconds: the stream is alive."""

    looked_at: datetime | None
    """When the database was last looked at, long ago where it does not answer; null if never yet."""


def progress_of(view: JobView) -> JobProgress:
    """Return what of a job changes while it is under way."""
    return JobProgress(
        job_id=view.job_id,
        status=view.status,
        total_tasks=view.total_tasks,
        tasks_done=view.tasks_done,
        tasks_failed=view.tasks_failed,
        progress_percent=view.progress_percent,
        lines_read=view.manifest.lines_read,
        delivery_status=view.delivery.status if view.delivery else None,
        completed_at=view.completed_at,
        waiting_for=view.waiting_for,
    )
