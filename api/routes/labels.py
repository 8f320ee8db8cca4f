"""Labels: what annotators say of tasks, or that they skip them, each taken or refused by itself."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

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
from api.routes.option_hints import OptionHints
from blocks.bodies.fields import Body, Fault
from blocks.domain.ids import job_of_task
from blocks.domain.limits import SKIP_NOTE_CHARACTERS_MAX
from blocks.domain.model import LabelOutcome, SkipReason
from blocks.store import annotation, label_changes, labelling
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from blocks.store.labelling import Label

_BATCH_MAX = 500
_JOB_SHARE = 1 / 2  # of the places for requests

_Request = Request[Principal, Any, Any]
_TAKEN = {
    LabelOutcome.ACCEPTED,
    LabelOutcome.SETTLED,
    LabelOutcome.SKIPPED,
    LabelOutcome.REPLACED,
    LabelOutcome.WITHDRAWN,
}
_REASONS = {
    LabelOutcome.DUPLICATE: (
        "You have labelled this task already; while it is open, `replace` changes your label."
    ),
    LabelOutcome.ALREADY_SETTLED: "This task takes no more labels.",
    LabelOutcome.NOT_LABELLED: "You have no label on this task.",
    LabelOutcome.EXCLUDED: "You get no more tasks of this job, and it takes no more labels of you.",
    LabelOutcome.UNKNOWN_TASK: "There is no such task, or it is not for you.",
}
_DUPLICATES: Mapping[type[Entry], str] = {
    Skip: "You have labelled or skipped this task already.",
    Replacement: "This is your label already, or another entry here is for the same task.",
    Withdrawal: "Another entry here is for the same task.",
}
_NOT_HANDED_OUT = (
    "Nobody was handed this task yet; claim tasks, and label those that you are given."
)


class LabelBody(Body, frozen=True, kw_only=True):
    """A `label` for a task, which may `replace` an earlier one; or a `skip`; or `withdraw`."""

    json_schema: ClassVar[Mapping[str, Any]] = {
        "oneOf": [
            {"required": ["label"], "properties": {"label": {"type": "string"}}},
            {"required": ["skip"], "properties": {"skip": {"type": "string"}}},
            {"required": ["withdraw"], "properties": {"withdraw": {"const": True}}},
        ]
    }

    task_id: str
    """The id of a task that was claimed."""
    label: str | None = None
    """One of the options of the task."""
    replace: bool = False
    """With `label`: it takes the place of this annotator's earlier label, while the task is open. If
    there is none, it is a label like others."""
    skip: SkipReason | None = None
    """Why there is no label: the task goes to others. After `skips_max` skips of one reason it fails."""
    note: Annotated[str, Meta(max_length=SKIP_NOTE_CHARACTERS_MAX)] | None = None
    """With `skip`: what the customer should know of it."""
    withdraw: bool = False
    """Take this annotator's label back, as long as the task is open."""

    def joint_faults(self) -> Iterator[Fault]:
        """Return the faults of fields that do not go together."""
        is_label = self.label is not None and self.skip is None and not self.withdraw
        return iter(()) if is_label and self.note is None else self._list_faults()

    def _list_faults(self) -> Iterator[Fault]:
        said = (self.label is not None) + (self.skip is not None) + self.withdraw
        if said != 1:
            yield Fault("label", "There must be one of label, skip and withdraw.")
        if self.replace and self.label is None:
            yield Fault("replace", "This is for a label.")
        if self.note is not None and self.skip is None:
            yield Fault("note", "A note is for a skip.")

    def to_entry(self) -> Entry:
        """Return the entry to record."""
        if self.skip is not None:
            return Skip(self.task_id, self.skip, self.note)
        if self.label is None:
            return Withdrawal(self.task_id)
        kind = Replacement if self.replace else Label
        return kind(self.task_id, self.label)


class LabelsBody(Body, frozen=True, kw_only=True):
    """Labels of one annotator, and tasks that they skip; each is taken or refused by itself."""

    labels: Annotated[list[LabelBody], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The labels, in any order. Of several entries for one task the first counts."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of the label for a task, or of another entry."""

    task_id: str
    """The task."""
    outcome: LabelOutcome
    """What became of it; `settled` where a label, replaced or not, was the deciding one."""
    message: str | msgspec.UnsetType = msgspec.UNSET
    """Why it was not taken, for people; missing where it was."""


class Outcomes(msgspec.Struct, frozen=True):
    """One for each entry, in their order."""

    results: list[Outcome]
    """What became of each entry."""


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
    """Hand in labels, or skip tasks. A label that is sent again is a `duplicate`."""
    labels = [label.to_entry() for label in data.labels]
    # A lock on a job's rows holds up its labels, and must not hold up those of other jobs.
    jobs = {job_of_task(label.task_id) for label in labels}
    current().count_in({f"labels of {job}": _JOB_SHARE for job in jobs})
    results = await sync_to_thread(_submit, database, annotator_no(request), labels)
    for outcome, count in Counter(result.outcome for result in results).items():
        metrics.labels.labels(outcome).inc(count)
    return Outcomes(results)


def _submit(database: Database, annotator: int, labels: Sequence[Entry]) -> list[Outcome]:
    plain = [label for label in labels if isinstance(label, Label)]
    with database.transaction() as tx:
        if len(plain) == len(labels):
            outcomes = labelling.submit(tx, annotator, plain)
        else:
            outcomes = label_changes.submit(tx, annotator, labels)
        pairs = list(zip(labels, outcomes, strict=True))
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
        self, tx: Transaction, annotator: int, refused: Sequence[tuple[Entry, LabelOutcome]]
    ) -> None:
        self._options = OptionHints(
            tx,
            (each.task_id for each, outcome in refused if outcome is LabelOutcome.UNKNOWN_OPTION),
        )
        unknown = [
            entry.task_id for entry, outcome in refused if outcome is LabelOutcome.UNKNOWN_TASK
        ]
        self._waiting = annotation.find_not_handed_out(tx, annotator, unknown) if unknown else set()

    def of(self, entry: Entry, outcome: LabelOutcome) -> str:
        """Return the reason for one of the entries that were refused."""
        if outcome is LabelOutcome.UNKNOWN_OPTION and isinstance(entry, Label | Replacement):
            return self._options.of(entry.task_id, entry.label)
        if outcome is LabelOutcome.DUPLICATE:
            return _DUPLICATES.get(type(entry), _REASONS[outcome])
        return _NOT_HANDED_OUT if entry.task_id in self._waiting else _REASONS[outcome]


HANDLERS = [submit]
