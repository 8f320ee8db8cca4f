"""Results of a job: its settled tasks, and its lines without a result, as JSON lines."""

from collections.abc import Callable, Generator
from contextlib import closing
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Stream

from api.auth import ADMINS_TOO, reader
from api.http.errors import ApiError, conflict, not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.http.streams import COMPRESSES_ITSELF, NDJSON, LongReads, stream
from api.routes.jobs import find_job
from blocks.domain.model import JobStatus
from blocks.lookahead import look_ahead
from blocks.store import results
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.jobs import Job

_LINE_MAX = 2**53 - 1  # what every JSON reader holds exactly, the document's among them

_Request = Request[Principal, Any, Any]


class ErrorsFormat(StrEnum):
    """What is said of a bad line."""

    JSONL = "jsonl"
    MANIFEST = "manifest"


def _not_completed() -> ApiError:
    return conflict("job_not_completed", "job is not completed yet")


def _failed() -> ApiError:
    return conflict("job_failed", "job has failed; there is nothing to export")


@get(
    "/{job_id:str}/export",
    operation_id="export_job",
    summary="Results",
    responses=refusals(not_found("job"), _not_completed(), _failed()),
    media_type=NDJSON,
    opt=ADMINS_TOO | {COMPRESSES_ITSELF: True},
)
async def export(
    request: _Request,
    job_id: JobId,
    database: NamedDependency[Database],
    long_reads: NamedDependency[LongReads],
    after: Annotated[
        int,
        QueryParameter(ge=0, le=_LINE_MAX, description="Go on after this line of the manifest."),
    ] = 0,
) -> Stream:
    """Return the settled tasks as JSON lines, in manifest order."""
    job = await sync_to_thread(find_job, request, job_id, database)
    match job.status:
        case JobStatus.FAILED:
            raise _failed()
        case JobStatus.ACCEPTED | JobStatus.PROCESSING:
            raise _not_completed()
    blocks = _read(
        database, long_reads, reader(request.user), job, partial(results.export, after=after)
    )
    return await stream(request, blocks, request.app.state.threads.long_reads)


@get(
    "/{job_id:str}/errors",
    operation_id="list_bad_lines",
    summary="Lines without a result, and why",
    responses=refusals(not_found("job")),
    media_type=NDJSON,
    opt=ADMINS_TOO | {COMPRESSES_ITSELF: True},
)
async def errors(
    request: _Request,
    job_id: JobId,
    database: NamedDependency[Database],
    long_reads: NamedDependency[LongReads],
    format: Annotated[  # noqa: A002 - its name in the contract
        ErrorsFormat,
        QueryParameter(
            description="`jsonl`, the default: what is wrong with each line. `manifest`: the bad lines "
            "alone, byte for byte, to be mended and submitted again; one of more than 1 MiB is cut to "
            "its first 1 KiB.",
        ),
    ] = ErrorsFormat.JSONL,
) -> Stream:
    """Return bad lines and failed tasks so far, as JSON lines in manifest order."""
    job = await sync_to_thread(find_job, request, job_id, database)
    read = results.export_bad_lines if format is ErrorsFormat.MANIFEST else results.export_errors
    blocks = _read(database, long_reads, reader(request.user), job, read)
    return await stream(request, blocks, request.app.state.threads.long_reads)


def _read(
    database: Database,
    long_reads: LongReads,
    whose: str,
    job: Job,
    read: Callable[[Transaction, int], Generator[bytes, None, None]],
) -> Generator[bytes, None, None]:
    """Yield the blocks; while one is sent, the next is made. It counts as a long read of `whose`."""
    with (
        long_reads.one_of(whose) as interrupt,
        database.long_read(interrupt) as tx,
        closing(look_ahead(read(tx, job.job_no))) as blocks,
    ):
        yield from blocks


HANDLERS = [export, errors]
