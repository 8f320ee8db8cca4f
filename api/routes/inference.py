"""True options that are inferred from the labels of a job, and the results that they would change."""

from collections.abc import Generator, Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import polars as pl
from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Stream

from api.auth import ADMINS_TOO, reader
from api.http.errors import ApiError, not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.http.streams import COMPRESSES_ITSELF, NDJSON, LongReads, stream
from api.routes.job_views import Share
from api.routes.jobs import find_job
from blocks.domain.model import InferenceMethod
from blocks.inference.changes import find_changes
from blocks.inference.dawid_skene import Inference, TooLarge, infer
from blocks.store import label_columns
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.jobs import Job
from blocks.store.label_columns import EndedLabels, TooManyLabels

_LABELS_MAX = 5_000_000
_CHANGES_SHOWN = 100
_CONFUSION_NUMBERS_MAX = 100_000
_LINES_A_BLOCK = 4096
_DIGITS = 4

METHODS = (
    "`dawid_skene`: by a confusion matrix of each annotator. `one_coin`: by one accuracy of each, for "
    "which fewer labels are enough."
)
"""The methods, as the parameters of the routes describe them."""


class LabelChange(msgspec.Struct, frozen=True):
    """A task whose most likely option is not its result."""

    task_id: str
    """The task."""
    label: str | None
    """The option that it settled on; null if it failed."""
    inferred: str
    """The most likely option."""
    posterior: Share
    """The probability of that option, given the task's labels."""


class OptionPrior(msgspec.Struct, frozen=True):
    """How often an option is the true one."""

    option: str
    """The option."""
    prior: Share
    """The share of tasks for which it is the true one."""


class AnnotatorAccuracy(msgspec.Struct, frozen=True):
    """How often an annotator is right, and what they say instead."""

    annotator_id: str
    """The annotator."""
    labels: int
    """Their labels on the tasks that are counted in `tasks`."""
    accuracy: Share
    """The probability that a label of theirs is right."""
    confusion: list[list[Share]] | None
    """For each true option, the probabilities of their labels; rows and columns are in the order of
    `priors`. Null for `one_coin`, and where there is no room: those with the most labels come first, and
    all matrices have 100,000 numbers at most."""


class InferenceView(msgspec.Struct, frozen=True, kw_only=True):
    """True options, and errors of annotators, as they follow from the labels of ended tasks."""

    method: InferenceMethod
    """How they were inferred."""
    iterations: int
    """How many iterations of expectation maximization it took."""
    converged: bool
    """Whether the last one changed next to nothing; false after 100 of them."""
    tasks: int
    """Ended tasks that have labels, but for those that failed by skips."""
    labels: int
    """Labels on those tasks."""
    priors: list[OptionPrior]
    """The options that somebody has chosen, in the order of the job's."""
    annotators: list[AnnotatorAccuracy]
    """Each annotator who has labelled an ended task."""
    labels_changed: int
    """Settled tasks whose most likely option is another one."""
    labels_added: int
    """Failed tasks, for which the most likely option is given."""
    changes: list[LabelChange]
    """Those tasks, the highest posteriors first, 100 at most; `GET …/quality/changes` lists all."""


def _refuse(error: TooManyLabels | TooLarge) -> ApiError:
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, error.code, error.message)


TOO_LARGE = (
    _refuse(TooManyLabels(f"There are more than {_LABELS_MAX:,} labels.")),
    _refuse(
        TooLarge("Labels times options are 40,000,000; at most 32,000,000 can be inferred from.")
    ),
)
"""The errors of what is inferred, as they are answered."""


@get(
    "/{job_id:str}/quality/changes",
    operation_id="list_label_changes",
    summary="Labels that an inference would change",
    responses=refusals(not_found("job"), *TOO_LARGE),
    media_type=NDJSON,
    opt=ADMINS_TOO | {COMPRESSES_ITSELF: True},
)
async def changes(
    request: Request[Principal, Any, Any],
    job_id: JobId,
    database: NamedDependency[Database],
    long_reads: NamedDependency[LongReads],
    method: Annotated[
        InferenceMethod, QueryParameter(description=f"{METHODS} `dawid_skene` is the default.")
    ] = InferenceMethod.DAWID_SKENE,
) -> Stream:
    """Return the ended tasks whose most likely option is not their result, in manifest order."""
    job = await sync_to_thread(find_job, request, job_id, database)
    blocks = _list_changes(job, method, database, long_reads, reader(request.user))
    return await stream(request, blocks, request.app.state.threads.inferences)


def read_labels(tx: Transaction, job: Job) -> EndedLabels:
    """Return what can be inferred from.

    Raises:
        ApiError: 422, it is too much.
    """
    try:
        return label_columns.read_ended(tx, job.job_no, labels_max=_LABELS_MAX)
    except TooManyLabels as error:
        raise _refuse(error) from error


def view(job: Job, ended: EndedLabels, method: InferenceMethod) -> InferenceView:
    """Return what follows from the labels; seconds for millions of them.

    Raises:
        ApiError: 422, it is too much.
    """
    if ended.labels.is_empty():
        return InferenceView(
            method=method, iterations=0, converged=True, tasks=0, labels=0, priors=[],
            annotators=[], labels_changed=0, labels_added=0, changes=[],
        )  # fmt: skip
    inference, changed = _infer(ended, method)
    surest = changed.sort("posterior", "task_no", descending=[True, False]).head(_CHANGES_SHOWN)
    priors = zip(inference.patterns.options, inference.model.priors, strict=True)
    return InferenceView(
        method=method,
        iterations=inference.iterations,
        converged=inference.has_converged,
        tasks=len(inference.patterns.task_nos),
        labels=len(ended.labels),
        priors=[OptionPrior(job.options[n - 1], round(prior, _DIGITS)) for n, prior in priors],
        annotators=list(_annotators(inference, ended, method)),
        labels_changed=int((changed["outcome"] > 0).sum()),
        labels_added=int((changed["outcome"] == 0).sum()),
        changes=list(_changes(job, surest)),
    )


def _list_changes(
    job: Job, method: InferenceMethod, database: Database, long_reads: LongReads, whose: str
) -> Generator[bytes, None, None]:
    with long_reads.one_of(whose) as interrupt:
        with database.long_read(interrupt) as tx:
            ended = read_labels(tx, job)
        if ended.labels.is_empty():
            return
        changed = _infer(ended, method)[1]
        del ended  # a slow client must not keep all labels
        encoder = msgspec.json.Encoder()
        for some in changed.iter_slices(_LINES_A_BLOCK):
            yield encoder.encode_lines(_changes(job, some))


def _infer(ended: EndedLabels, method: InferenceMethod) -> tuple[Inference, pl.DataFrame]:
    try:
        inference = infer(ended.labels, method)
    except TooLarge as error:
        raise _refuse(error) from error
    return inference, find_changes(inference, ended.labels)


def _changes(job: Job, changed: pl.DataFrame) -> Iterator[LabelChange]:
    names: Mapping[int, str | None] = {0: None, **dict(enumerate(job.options, start=1))}
    for task_no, outcome, option, posterior in changed.iter_rows():
        yield LabelChange(
            job.task_id(task_no),
            names[outcome],
            job.options[option - 1],
            round(posterior, _DIGITS),
        )


def _annotators(
    inference: Inference, ended: EndedLabels, method: InferenceMethod
) -> Iterator[AnnotatorAccuracy]:
    """Yield annotators in the order of their ids."""
    counted = ended.labels.group_by("annotator_no").len().sort("annotator_no")["len"]
    size = len(inference.posteriors)
    shown = _CONFUSION_NUMBERS_MAX // size**2 if method is InferenceMethod.DAWID_SKENE else 0
    with_matrix = set(counted.arg_sort(descending=True).head(shown))
    ids = [ended.annotator_ids[number] for number in inference.patterns.annotators]
    for n in sorted(range(len(ids)), key=ids.__getitem__):
        yield AnnotatorAccuracy(
            ids[n],
            counted[n],
            round(inference.model.accuracy[n], _DIGITS),
            _rounded(inference.confusion_of(n)) if n in with_matrix else None,
        )


def _rounded(matrix: list[list[float]]) -> list[list[float]]:
    return [[round(number, _DIGITS) for number in row] for row in matrix]


HANDLERS = [changes]
