"""Agreement of the annotators on a job, for those who judge its labels."""

from typing import Annotated, Any, NamedTuple

import msgspec
from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import ADMINS_TOO, names_shown, reader
from api.http.errors import not_found
from api.http.parameters import AN_ANNOTATOR, JobId, check_annotator
from api.http.refusals import refusals
from api.http.streams import LongReads
from api.http.threads import run
from api.routes import inference
from api.routes.inference import METHODS, TOO_LARGE
from api.routes.jobs import find_job
from api.routes.quality_views import QualityView, view
from blocks.domain.model import InferenceMethod
from blocks.settings import AnnotatorNames, Settings
from blocks.store import customers, quality
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.interrupts import Interrupt
from blocks.store.jobs import Job


@get(
    "/{job_id:str}/quality",
    operation_id="get_job_quality",
    summary="Agreement of the annotators",
    opt=ADMINS_TOO,
    responses=refusals(not_found("job"), not_found("annotator"), *TOO_LARGE),
)
async def read(
    request: Request[Principal, Any, Any],
    job_id: JobId,
    database: NamedDependency[Database],
    long_reads: NamedDependency[LongReads],
    settings: NamedDependency[Settings],
    *,
    method: Annotated[
        InferenceMethod | None,
        QueryParameter(
            description=f"Infer true options, and how often annotators are right, as well. {METHODS}"
        ),
    ] = None,
    annotator: Annotated[
        str | None,
        QueryParameter(
            description="The `confusion` of this annotator alone, by their id.",
            schema_extra=AN_ANNOTATOR,
        ),
    ] = None,
) -> QualityView:
    """Return how well annotators agree, at any time; a large job takes seconds."""
    check_annotator(annotator)
    job = await sync_to_thread(find_job, request, job_id, database)
    threads = request.app.state.threads
    with long_reads.one_of(reader(request.user)) as interrupt:
        asked = _Asked(job, annotator, names_shown(request.user, settings), database, interrupt)
        if method is None:
            return await run(threads.long_reads, _measure, asked)
        return await run(threads.inferences, _infer, asked, method)


class _Asked(NamedTuple):
    """What is asked about a job, and what it is read with."""

    job: Job
    annotator: str | None
    names: AnnotatorNames
    database: Database
    interrupt: Interrupt


def _measure(asked: _Asked) -> QualityView:
    with asked.database.long_read(asked.interrupt) as tx:
        return _read(tx, asked)


def _infer(asked: _Asked, method: InferenceMethod) -> QualityView:
    with asked.database.long_read(asked.interrupt) as tx:
        measured = _read(tx, asked)
        ended = inference.read_labels(tx, asked.job)
    # No snapshot is held while it is computed.
    inferred = inference.view(asked.job, ended, method)
    return msgspec.structs.replace(measured, inference=inferred)


def _read(tx: Transaction, asked: _Asked) -> QualityView:
    measured = quality.measure(tx, asked.job.job_no, confusion_of=asked.annotator)
    ids = [each.annotator_id for each in measured.annotators]
    if asked.annotator not in (None, *ids):
        raise not_found("annotator")
    names = customers.find_annotator_names(
        tx, ids, customer_id=asked.job.customer_id, names=asked.names
    )
    return view(asked.job, measured, names)


HANDLERS = [read]
