"""Labels: what annotators say of tasks, each taken or refused by itself."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from api.auth import annotator_no
from api.http.refusals import refusals
from api.http.requesters import current
from api.metrics import Metrics
from blocks.bodies.fields import Body
from blocks.domain.ids import job_of_task, parse_task_id
from blocks.domain.model import LabelOutcome
from blocks.domain.wrong_values import HINTS_MAX, did_you_mean, shorten
from blocks.store import annotation
from blocks.store.annotation import Label
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction

_BATCH_MAX = 500
_JOBS_TOLD_MAX = 20  # a job may have 100 kB of options
_JOB_SHARE = 1 / 2  # of the places for requests

_Request = Request[Principal, Any, Any]
_TAKEN = {LabelOutcome.ACCEPTED, LabelOutcome.SETTLED}
_REASONS = {
    LabelOutcome.DUPLICATE: "You have labelled this task already, and a label cannot be changed.",
    LabelOutcome.ALREADY_SETTLED: "This task takes no more labels.",
    LabelOutcome.UNKNOWN_OPTION: "This is none of the options in the task's label_spec.",
    LabelOutcome.UNKNOWN_TASK: "There is no such task, or it is not for you.",
}
_NOT_HANDED_OUT = (
    "Nobody was handed this task yet; claim tasks, and label those that you are given."
)


class LabelBody(Body, frozen=True, kw_only=True):
    """One of the options of the task's job."""

    task_id: str
    """The id of a task that was claimed."""
    label: str
    """One of the options of the task."""


class LabelsBody(Body, frozen=True, kw_only=True):
    """Labels of one annotator; each is taken or refused by itself."""

    labels: Annotated[list[LabelBody], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The labels, in any order."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of the label for a task."""

    task_id: str
    """The task."""
    outcome: LabelOutcome
    """What became of the label; `settled` where it was the deciding one."""
    message: str | msgspec.UnsetType = msgspec.UNSET
    """Why the label was not taken, for people; missing where it was."""


class Outcomes(msgspec.Struct, frozen=True):
    """One for each label, in their order."""

    results: list[Outcome]
    """What became of each label."""


@post(
    "/labels",
    operation_id="submit_labels",
    summary="Hand in labels",
    responses=refusals(takes=LabelsBody),
    status_code=200,
)
async def submit(
    request: _Request,
    data: JSONBody[LabelsBody],
    database: NamedDependency[Database],
    metrics: NamedDependency[Metrics],
) -> Outcomes:
    """Hand in labels. A label cannot be changed; one handed in again is a `duplicate`."""
    labels = [Label(label.task_id, label.label) for label in data.labels]
    # A lock on a job's rows holds up its labels, and must not hold up those of other jobs.
    jobs = {job_of_task(label.task_id) for label in labels}
    current().count_in({f"labels of {job}": _JOB_SHARE for job in jobs})
    results = await sync_to_thread(_submit, database, annotator_no(request), labels)
    for outcome, count in Counter(result.outcome for result in results).items():
        metrics.labels.labels(outcome).inc(count)
    return Outcomes(results)


def _submit(database: Database, annotator: int, labels: Sequence[Label]) -> list[Outcome]:
    with database.transaction() as tx:
        pairs = list(zip(labels, annotation.submit(tx, annotator, labels), strict=True))
        reasons = _Reasons(tx, annotator, [pair for pair in pairs if pair[1] not in _TAKEN])
    return [
        Outcome(
            label.task_id,
            outcome,
            msgspec.UNSET if outcome in _TAKEN else reasons.of(label, outcome),
        )
        for label, outcome in pairs
    ]


class _Reasons:
    """The reasons for which labels were not taken; asks the database only if there are such labels."""

    def __init__(
        self, tx: Transaction, annotator: int, refused: Sequence[tuple[Label, LabelOutcome]]
    ) -> None:
        jobs = dict.fromkeys(
            _job_id(label) for label, outcome in refused if outcome is LabelOutcome.UNKNOWN_OPTION
        )
        told = list(islice(jobs, _JOBS_TOLD_MAX))
        self._options = annotation.list_options(tx, told) if told else {}
        unknown = [
            label.task_id for label, outcome in refused if outcome is LabelOutcome.UNKNOWN_TASK
        ]
        self._waiting = annotation.find_not_handed_out(tx, annotator, unknown) if unknown else set()
        self._hints = iter(range(HINTS_MAX))

    def of(self, label: Label, outcome: LabelOutcome) -> str:
        """Return the reason for one of the labels that were refused."""
        if outcome is LabelOutcome.UNKNOWN_OPTION:
            return self._unknown_option(label)
        return _NOT_HANDED_OUT if label.task_id in self._waiting else _REASONS[outcome]

    def _unknown_option(self, label: Label) -> str:
        options = self._options.get(_job_id(label))
        if options is None:
            return _REASONS[LabelOutcome.UNKNOWN_OPTION]
        hint = did_you_mean(label.label, options, self._hints)
        return f"The options are {shorten(', '.join(options))}.{hint}"


def _job_id(label: Label) -> str:
    key = parse_task_id(label.task_id)
    assert key is not None  # its job is known, and has other options
    return key[0]


HANDLERS = [submit]
