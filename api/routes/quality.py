"""Agreement of the annotators on a job, for those who judge its labels."""

from collections import Counter
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Meta

from api.auth import customer_id
from api.http.errors import not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.http.streams import LongReads
from api.http.threads import run
from api.routes import inference
from api.routes.inference import METHODS, TOO_LARGE, InferenceView
from api.routes.jobs import find_job
from blocks.domain.model import InferenceMethod
from blocks.store import quality
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.interrupts import Interrupt
from blocks.store.jobs import Job
from blocks.store.quality import Quality

_BINS = 10

Share = Annotated[float, Meta(ge=0, le=1)]


class ConfidenceBin(msgspec.Struct, frozen=True):
    """Settled tasks with a confidence above `above`, up to `upto`."""

    above: Share
    """The lower bound, which is not part of it."""
    upto: Share
    """The upper bound, which is."""
    tasks: int
    """How many tasks settled with such a confidence."""


class OptionQuality(msgspec.Struct, frozen=True):
    """How often an option was voted for, and how many tasks settled on it.

    `open` counts its votes on tasks that are open.
    """

    option: str
    """The option."""
    labels: int
    """How many labels on ended tasks have it."""
    tasks: int
    """How many tasks settled on it."""
    open: int
    """How many labels on open tasks have it."""


class LabelsPerTask(msgspec.Struct, frozen=True):
    """How many tasks ended with so many labels."""

    labels: int
    """A number of labels."""
    tasks: int
    """How many tasks ended with so many."""


class AnnotatorQuality(msgspec.Struct, frozen=True):
    """An annotator's labels on settled tasks, and the share that agrees with the consensus.

    `open` counts their labels on tasks that are open.
    """

    annotator_id: str
    """The annotator."""
    labels: int
    """Their labels on settled tasks."""
    agreed: int
    """Those that agree with the consensus."""
    agreement: Share | None
    """The share of those; null where there are no labels."""
    open: int
    """Their labels on open tasks."""


class OpenQuality(msgspec.Struct, frozen=True):
    """Tasks that have labels and no result yet, and the labels that they have."""

    tasks: int
    """How many tasks have labels and no result yet."""
    labels: int
    """How many labels these have."""


class QualityView(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement over the tasks that have ended so far; shares are null where there are none.

    What is called `open` is of tasks that are still labelled, and is in no other count.

    `agreed_share` of them have settled, `unanimous_share` without a vote against. `labels_saved`
    counts what `stop_early` made unnecessary.
    """

    job_id: str
    """The job."""
    tasks_settled: int
    """Tasks that are settled."""
    tasks_failed: int
    """Tasks that failed."""
    agreed_share: Share | None
    """The share of ended tasks that settled."""
    unanimous_share: Share | None
    """The share of ended tasks that settled without a vote against."""
    mean_confidence: Share | None
    """The mean confidence of settled tasks."""
    confidence: list[ConfidenceBin]
    """How many tasks settled with which confidence, in tenths."""
    options: list[OptionQuality]
    """Labels and tasks of each option."""
    labels: int
    """Labels on ended tasks."""
    labels_saved: int
    """Labels that `stop_early` made unnecessary."""
    labels_per_task: list[LabelsPerTask]
    """How many tasks ended with how many labels."""
    open: OpenQuality
    """Tasks that are still labelled; they are in no other count."""
    annotators: list[AnnotatorQuality]
    """Agreement of each annotator with the consensus."""
    inference: InferenceView | msgspec.UnsetType = msgspec.UNSET
    """What the labels say of true options and of annotators; not there without `method`."""


@get(
    "/{job_id:str}/quality",
    operation_id="get_job_quality",
    summary="Agreement of the annotators",
    responses=refusals(not_found("job"), *TOO_LARGE),
)
async def read(
    request: Request[Principal, Any, Any],
    job_id: JobId,
    database: NamedDependency[Database],
    long_reads: NamedDependency[LongReads],
    method: Annotated[
        InferenceMethod | None,
        QueryParameter(
            description=f"Infer true options, and how often annotators are right, as well. {METHODS}"
        ),
    ] = None,
) -> QualityView:
    """Return how well annotators agree, at any time; a large job takes seconds."""
    job = await sync_to_thread(find_job, request, job_id, database)
    threads = request.app.state.threads
    with long_reads.one_of(customer_id(request)) as interrupt:
        if method is None:
            return await run(threads.long_reads, _measure, job, database, interrupt)
        return await run(threads.inferences, _infer, job, method, database, interrupt)


def _measure(job: Job, database: Database, interrupt: Interrupt) -> QualityView:
    with database.long_read(interrupt) as tx:
        return _view(job, quality.measure(tx, job.job_no))


def _infer(
    job: Job, method: InferenceMethod, database: Database, interrupt: Interrupt
) -> QualityView:
    with database.long_read(interrupt) as tx:
        measured = quality.measure(tx, job.job_no)
        ended = inference.read_labels(tx, job)
    # No snapshot is held while it is computed.
    inferred = inference.view(job, ended, method)
    return msgspec.structs.replace(_view(job, measured), inference=inferred)


def _view(job: Job, measured: Quality) -> QualityView:
    settled: Counter[tuple[int, int]] = Counter()
    per_task: Counter[int] = Counter()
    open_tasks = [each for each in measured.outcomes if each.settled is None]
    for each in measured.outcomes:
        if each.settled is None:
            continue
        per_task[each.labels] += each.tasks
        if each.settled:
            settled[each.agreed, each.labels] += each.tasks
    ended, agreed = per_task.total(), settled.total()
    confidence = sum(tasks * votes / labels for (votes, labels), tasks in settled.items())
    saved = sum(max(job.consensus_threshold - n, 0) * tasks for (_, n), tasks in settled.items())
    return QualityView(
        job_id=job.job_id,
        tasks_settled=agreed,
        tasks_failed=ended - agreed,
        agreed_share=_share(agreed, ended),
        unanimous_share=_share(sum(t for (v, n), t in settled.items() if v == n), ended),
        mean_confidence=_share(confidence, agreed),
        confidence=_bins(settled),
        options=_options(job, measured),
        labels=sum(n * tasks for n, tasks in per_task.items()),
        labels_saved=saved,
        labels_per_task=[LabelsPerTask(n, tasks) for n, tasks in sorted(per_task.items())],
        open=OpenQuality(
            sum(each.tasks for each in open_tasks),
            sum(each.tasks * each.labels for each in open_tasks),
        ),
        annotators=[
            AnnotatorQuality(a.annotator_id, a.labels, a.agreed, _share(a.agreed, a.labels), a.open)
            for a in measured.annotators
        ],
    )


def _options(job: Job, measured: Quality) -> list[OptionQuality]:
    counts = {each.option: (each.labels, each.tasks, each.open) for each in measured.options}
    return [
        OptionQuality(option, *counts.get(n, (0, 0, 0)))
        for n, option in enumerate(job.options, start=1)
    ]


def _bins(settled: Counter[tuple[int, int]]) -> list[ConfidenceBin]:
    bins = [0] * _BINS
    for (votes, labels), tasks in settled.items():
        bins[-(-votes * _BINS // labels) - 1] += (
            tasks  # whole numbers are exact: 3 of 5 is not above 0.6
        )
    return [ConfidenceBin(n / _BINS, (n + 1) / _BINS, tasks) for n, tasks in enumerate(bins)]


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


HANDLERS = [read]
