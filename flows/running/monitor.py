"""Show a job to operators in the Prefect UI: progress, chunks, and a page about it.

Keys of artifacts are made of the job's id, so all runs of a job show under one name. An update that
fails is logged and never fails a run.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec
from uuid import UUID

import httpx
import msgspec
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
)
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from structlog.stdlib import BoundLogger

from blocks import logs
from blocks.delivery_manifest import DeliveredObject, folder_of
from blocks.domain.errors import Terminal, Transient
from blocks.domain.model import DeliveryStatus
from blocks.prefect import job_page
from blocks.store import chunks
from blocks.store.chunks import ChunkCounts
from blocks.store.jobs import Job
from flows.running.resources import UnknownJob, database, destination_of, load_job, settings

_P = ParamSpec("_P")

BAD_LINES_TAG = "bad-lines"
_UPDATES_EVERY_S = 1.0
_CHUNKS_SHOWN_MAX = 500


class ChunkSeen(msgspec.Struct, frozen=True):
    """Describe a chunk that a run has read.

    `start` and `end` are bytes, None in a compressed manifest; `lines` is None where another run was
    first.
    """

    chunk: int
    start: int | None
    end: int | None
    lines: int | None
    bad_lines: int | None
    seconds: float
    retries: int


def see_chunk(
    job_id: str,
    chunk_no: int,
    made: ChunkCounts | None,
    began_s: float,
    *,
    limits: tuple[int, int] | tuple[None, None] = (None, None),
    retries: int,
) -> ChunkSeen:
    """Log a chunk that was begun at `began_s`, and return a description of it."""
    seen = ChunkSeen(
        chunk=chunk_no,
        start=limits[0],
        end=limits[1],
        lines=made.lines if made else None,
        bad_lines=made.bad_lines if made else None,
        seconds=time.monotonic() - began_s,
        retries=retries,
    )
    event = "chunk.committed" if made else "chunk.there_already"
    run_log(job_id=job_id).info(event, chunk=chunk_no, lines=seen.lines, bad_lines=seen.bad_lines)
    return seen


def run_log(**fields: Any) -> BoundLogger:
    """Return the log of the run, which the UI shows, with `fields` in each line."""
    return logs.wrap(get_run_logger(), **fields)


def ui_update(show: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate an update of the UI: log its errors instead of raising; do nothing outside a flow run."""

    @wraps(show)
    def shown(*args: _P.args, **kwargs: _P.kwargs) -> None:
        if not flow_run.id:
            return
        try:
            show(*args, **kwargs)
        except (PrefectException, httpx.HTTPError, Transient, UnknownJob) as error:
            run_log().warning("monitor.not_shown", reason=repr(error))

    return shown


@ui_update
def mark_run(job: Job, what: str) -> None:
    """Name and tag a run that somebody started by hand, so that its job and its customer find it.

    The launcher names and tags its runs when it asks for them, which saves a request for each.
    """
    missing = {job.job_id, job.customer_id} - set(flow_run.tags)
    if missing:
        with get_client(sync_client=True) as client:
            client.update_flow_run(
                UUID(flow_run.id), name=f"{what} {job.job_id}", tags={*flow_run.tags, *missing}
            )


@ui_update
def mark_bad_lines(tags: set[str], bad_lines: int) -> None:
    """Tag the run with the number of its bad lines, so that a list of green runs shows which have some.

    `tags` are tags of the run to keep. A state of another name would show too, but automations wait for
    one that is called `Completed`.
    """
    if bad_lines:
        marks = [f"{bad_lines} bad", BAD_LINES_TAG]  # they come first: a list shows three tags
        with get_client(sync_client=True) as client:
            others = {*flow_run.tags, *tags}.difference(marks)
            ordered = [*marks, *others]
            client.update_flow_run(UUID(flow_run.id), tags=ordered)


@ui_update
def mark_batch(customer_id: str) -> None:
    """Name and tag a run of small jobs that somebody started by hand, so that its customer finds it."""
    if customer_id not in flow_run.tags:
        with get_client(sync_client=True) as client:
            client.update_flow_run(
                UUID(flow_run.id),
                name=f"small jobs of {customer_id}",
                tags={*flow_run.tags, customer_id},
            )


class Progress:
    """Show a bar in the UI from the first chunk on, and move it at most once a second."""

    def __init__(self, job_id: str) -> None:
        self._key = f"{job_page.key(job_id)}-progress"
        self._id: UUID | None = None
        self._share = 0.0
        self._moved_s = -_UPDATES_EVERY_S

    def move(self, share: float) -> None:
        """Move the bar to `share`, between 0 and 1; it never goes back."""
        now_s = time.monotonic()
        is_due = share >= 1 or now_s - self._moved_s >= _UPDATES_EVERY_S
        if is_due and share > self._share:
            self._moved_s = now_s
            self._show(share)

    @ui_update
    def _show(self, share: float) -> None:
        percent = 100 * min(share, 1.0)
        if self._id:
            update_progress_artifact(self._id, progress=percent)
        else:
            made: Any = create_progress_artifact(
                percent, key=self._key, description="Manifest read"
            )
            self._id = made  # the type includes a coroutine, which it is only in async code
        self._share = share  # not reached where the update failed: the next move tries again


@ui_update
def show_chunks(job_id: str, seen: Sequence[ChunkSeen]) -> None:
    """Make a table of the chunks; of very many, those with most bad lines and most retries."""
    if not seen:
        return
    worst = sorted(seen, key=lambda each: (each.bad_lines or 0, each.retries), reverse=True)
    shown = sorted(worst[:_CHUNKS_SHOWN_MAX], key=lambda each: each.chunk)
    rows = [_row(each) for each in shown]
    of = f"{len(rows)} of {len(seen)}" if len(rows) < len(seen) else str(len(rows))
    create_table_artifact(
        key=f"{job_page.key(job_id)}-chunks", table=rows, description=f"{of} chunks of {job_id}"
    )


@ui_update
def show_job(job_id: str) -> None:
    """Make a page about the job as it is now."""
    page, description = _page_of(job_id)
    create_markdown_artifact(key=job_page.key(job_id), markdown=page, description=description)


@ui_update
def update_page(job_id: str) -> None:
    """Update the job's page in place: a new one would cost Prefect two events."""
    key = ArtifactCollectionFilterKey(any_=[job_page.key(job_id)])
    page, description = _page_of(job_id)
    with get_client(sync_client=True) as client:
        found = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=key))
        for each in found:
            update = ArtifactUpdate(data=page, description=description)
            client.update_artifact(each.latest_id, update)
    if not found:
        show_job(job_id)


def _page_of(job_id: str) -> tuple[str, str]:
    job = load_job(job_id)
    with database().transaction() as tx:
        codes = chunks.count_bad_codes(tx, job.job_no)
    page = job_page.page(job, codes, public_url=settings().public_url, link=_console_url(job))
    return page, job_page.description(job)


def _console_url(job: Job) -> str | None:
    """Return where a browser shows the results; None before they are written, or if nowhere does."""
    if job.delivery_status in (None, DeliveryStatus.PENDING):
        return None
    try:
        return destination_of(job).console_url(f"{folder_of(job)}/")
    except Terminal:
        return None  # the credentials are wiped or refused


@ui_update
def show_delivery(job_id: str, objects: Iterable[DeliveredObject]) -> None:
    """Make a table of the objects that were written."""
    rows = [msgspec.structs.asdict(each) for each in objects][:_CHUNKS_SHOWN_MAX]
    create_table_artifact(
        key=f"{job_page.key(job_id)}-objects", table=rows, description=f"Delivery of {job_id}"
    )


@ui_update
def show_works(works: Sequence[msgspec.Struct]) -> None:
    """Make a table of what a run of small jobs has done, a row for each job."""
    if works:
        create_table_artifact(
            key="small-jobs",
            table=[msgspec.structs.asdict(each) for each in works],
            description=f"{len(works)} works of small jobs",
        )


def _row(seen: ChunkSeen) -> dict[str, Any]:
    known = seen.lines is not None
    return {
        "chunk": seen.chunk,
        "bytes": "" if seen.start is None else f"{seen.start:,} to {seen.end:,}",
        "lines": seen.lines if known else "there already",
        "bad lines": seen.bad_lines if known else "",
        "seconds": round(seen.seconds, 2),
        "retries": seen.retries,
    }
