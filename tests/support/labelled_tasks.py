"""The jobs and tasks of a model of annotation."""

from dataclasses import dataclass, field

from blocks.domain.consensus import majority_outcome
from blocks.domain.model import UNDER_REVIEW, SkipReason


@dataclass(eq=False, kw_only=True)
class Job:
    """A job, or the container of inline tasks, which is processing again with each new task."""

    job_no: int
    job_id: str
    options: list[str]
    consensus_threshold: int
    stop_early: bool
    skips_max: int
    priority: int
    reviews: frozenset[str] = frozenset()
    """What goes to reviewers: `all` that labels end, `no_consensus`, `flagged`."""
    is_inline: bool = False
    has_delivery: bool = False
    status: str = "processing"
    is_ingested: bool = False
    is_settled: bool = False
    tasks: list["Task"] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether it still takes labels."""
        return self.status == "processing"

    @property
    def has_ended(self) -> bool:
        """Whether every task has that there is so far."""
        return all(task.has_ended for task in self.tasks)

    def wants_review(self, outcome: int) -> bool:
        """Whether a reviewer decides a task that would end so."""
        if outcome < 0:
            return "flagged" in self.reviews
        return "all" in self.reviews or (outcome == 0 and "no_consensus" in self.reviews)

    def settle(self) -> None:
        """Move on if every line is there and every task has ended."""
        if self.is_open and self.is_ingested and self.has_ended:
            self.is_settled = True
            self.status = "processing" if self.has_delivery else "completed"


@dataclass(eq=False, kw_only=True)
class Task:
    """A task and everything that annotators have had to do with it, by their numbers."""

    job: Job
    task_id: str
    task_no: int
    chunk_no: int
    labels: dict[int, str] = field(default_factory=dict)
    skips: dict[int, SkipReason] = field(default_factory=dict)
    skipped_for: SkipReason | None = None
    """Why it has failed, if it was skipped too often."""
    handed_to: set[int] = field(default_factory=set)
    let_go_by: set[int] = field(default_factory=set)
    proposed: int | None = None
    """The outcome by the rule, while the task is under review."""
    decision: int | None = None
    """The outcome in the end, of a task that was under review."""
    decided_by: int | None = None
    """The reviewer who has decided last; None if that was the deadline, or it is under review again."""
    is_sent_back: bool = False
    """Whether it waits for one more label after a review."""
    is_dropped: bool = False
    """Whether its review has ended because its job has."""
    has_unasked: bool = False
    """Whether somebody has labelled it without holding it: then a place too many may be on its way."""

    @property
    def votes(self) -> list[int]:
        return [list(self.labels.values()).count(option) for option in self.job.options]

    @property
    def outcome(self) -> int | None:
        """1-based option, 0 for no consensus, less if it was skipped too often, None while open.

        UNDER_REVIEW while a reviewer is to decide.
        """
        if self.decision is not None:
            return self.decision
        if self.proposed is not None:
            return UNDER_REVIEW
        return None if self.is_sent_back else self.by_rule

    @property
    def by_rule(self) -> int | None:
        """The outcome without any review."""
        if self.skipped_for is not None:
            return -self.skipped_for.number
        threshold = self.job.consensus_threshold
        return majority_outcome(self.votes, threshold, stop_early=self.job.stop_early)

    @property
    def has_ended(self) -> bool:
        return self.outcome is not None and not self.is_under_review

    @property
    def is_under_review(self) -> bool:
        return self.outcome == UNDER_REVIEW

    @property
    def takes_labels(self) -> bool:
        return self.outcome is None

    def judge(self) -> None:
        """Let the next label or skip decide, or have a reviewer do so."""
        self.is_sent_back = False
        if self.by_rule is not None and self.job.wants_review(self.by_rule):
            self.proposed, self.decided_by = self.by_rule, None

    def decide(self, outcome: int | None, reviewer: int | None) -> None:
        """End the review; None sends the task back."""
        self.proposed, self.decided_by = None, reviewer
        self.decision = outcome
        if outcome is None:
            self.is_sent_back, self.skipped_for = True, None

    @property
    def wanted(self) -> int:
        """Labels and holders that it may have: all places, or one more where the labels are tied."""
        return max(self.job.consensus_threshold, len(self.labels) + 1)
