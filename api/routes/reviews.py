"""What waits for reviewers, and their decisions, each of which is taken or refused by itself."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from api.auth import reviewer_no
from api.http.errors import not_a_reviewer
from api.http.parameters import A_JOB, check_job
from api.http.refusals import refusals
from api.routes.option_hints import OptionHints
from blocks.bodies.fields import Body, Fault
from blocks.domain.model import Failure, ReviewOutcome, TaskType
from blocks.store import reviews
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.reviews import Decision

_BATCH_MAX = 500
_JOBS_DEFAULT = 20
_JOBS_MAX = 100

_Request = Request[Principal, Any, Any]
_TAKEN = {ReviewOutcome.SETTLED, ReviewOutcome.FAILED, ReviewOutcome.SENT_BACK}
_REASONS = {
    ReviewOutcome.DUPLICATE: "You have decided this task already.",
    ReviewOutcome.NOT_HELD: "You do not hold this task; claim it with queue=review.",
    ReviewOutcome.ALREADY_SETTLED: "This task has ended already.",
    ReviewOutcome.UNKNOWN_TASK: "There is no such task, or it is not for you.",
}


class DecisionBody(Body, frozen=True, kw_only=True):
    """A `label` that settles a task; or `send_back`; or `fail`."""

    json_schema: ClassVar[Mapping[str, Any]] = {
        "oneOf": [
            {"required": ["label"], "properties": {"label": {"type": "string"}}},
            {"required": ["send_back"], "properties": {"send_back": {"const": True}}},
            {"required": ["fail"], "properties": {"fail": {"type": "string"}}},
        ]
    }

    task_id: str
    """The id of a task that was claimed with `queue=review`."""
    label: str | None = None
    """One of the options of the task: it settles on this, whatever its votes are."""
    send_back: bool = False
    """Have annotators give one more label; then the task comes to its end by the rule again."""
    fail: Failure | None = None
    """Fail the task, for this reason."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield a fault if there is not one decision."""
        if (self.label is not None) + self.send_back + (self.fail is not None) != 1:
            yield Fault("label", "There must be one of label, send_back and fail.")

    def to_decision(self) -> Decision:
        """Return the decision to record."""
        return Decision(self.task_id, self.label, self.fail.outcome if self.fail else None)


class DecisionsBody(Body, frozen=True, kw_only=True):
    """Decisions of one reviewer; each is taken or refused by itself."""

    reviews: Annotated[list[DecisionBody], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The decisions, in any order. Of several for one task the first counts."""


class Reviewed(msgspec.Struct, frozen=True):
    """What became of the decision on one task."""

    task_id: str
    """The task."""
    outcome: ReviewOutcome
    """What became of it."""
    message: str | msgspec.UnsetType = msgspec.UNSET
    """Why the decision was not taken, for people; missing where it was."""


class ReviewedTasks(msgspec.Struct, frozen=True):
    """One for each decision, in their order."""

    results: list[Reviewed]
    """What became of each decision."""


class ReviewsWaiting(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks of a job wait for reviewers, by the reason; each is counted up to 1,000."""

    no_consensus: int
    """Without a consensus."""
    low_confidence: int
    """Less sure than the job wants."""
    sample: int
    """In the job's sample."""
    flagged: int
    """Skipped by too many annotators."""


class ReviewQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has reviewers decide some of its tasks."""

    job_id: str
    """The id of the job, which a claim can name."""
    task_type: TaskType
    """What to do."""
    question: str
    """What is asked about each task."""
    waiting: ReviewsWaiting
    """How many of its tasks are under review just now, whoever holds them."""


class ReviewQueues(msgspec.Struct, frozen=True):
    """Jobs under way that have a review queue, those with something in it first."""

    jobs: list[ReviewQueue]
    """The jobs, at most as many as were asked for; none where no job has reviews."""


@get(
    "/reviews",
    operation_id="list_review_queues",
    summary="How many tasks are under review",
    responses=refusals(not_a_reviewer()),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    job_id: Annotated[
        str | None, QueryParameter(description="Only this job, by its id.", schema_extra=A_JOB)
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=_JOBS_MAX, description="How many jobs are listed at most.")
    ] = _JOBS_DEFAULT,
) -> ReviewQueues:
    """Return how many tasks are under review, by job and reason, those of a higher priority first.

    They are all that wait, also those that others hold, and those that this reviewer has labelled.
    """
    check_job(job_id)
    with database.transaction() as tx:
        found = reviews.count_waiting(tx, reviewer_no(request), limit=limit, job_id=job_id)
    return ReviewQueues(
        [
            ReviewQueue(
                job_id=each.job_id,
                task_type=each.task_type,
                question=each.question,
                waiting=ReviewsWaiting(**each.waiting),
            )
            for each in found
        ]
    )


@post(
    "/reviews",
    operation_id="submit_reviews",
    summary="Decide tasks under review",
    responses=refusals(not_a_reviewer(), takes=DecisionsBody),
    status_code=200,
    sync_to_thread=True,
)
def submit(
    request: _Request, data: JSONBody[DecisionsBody], database: NamedDependency[Database]
) -> ReviewedTasks:
    """Decide tasks that this reviewer holds. One decision settles a task, fails it or sends it back.

    A decision that is sent again is a `duplicate`.
    """
    decisions = [each.to_decision() for each in data.reviews]
    with database.transaction() as tx:
        outcomes = reviews.decide(tx, reviewer_no(request), decisions)
        pairs = list(zip(decisions, outcomes, strict=True))
        unknown = (
            each.task_id for each, outcome in pairs if outcome is ReviewOutcome.UNKNOWN_OPTION
        )
        options = OptionHints(tx, unknown)
    return ReviewedTasks([_view(decision, outcome, options) for decision, outcome in pairs])


def _view(decision: Decision, outcome: ReviewOutcome, options: OptionHints) -> Reviewed:
    if outcome in _TAKEN:
        return Reviewed(decision.task_id, outcome)
    if outcome is ReviewOutcome.UNKNOWN_OPTION and decision.label is not None:
        return Reviewed(decision.task_id, outcome, options.of(decision.task_id, decision.label))
    return Reviewed(decision.task_id, outcome, _REASONS[outcome])


HANDLERS = [index, submit]
