"""Claims, labels and releases as docs/annotation.md has them, in dicts: what the store is held against.

It does not say which task a claim hands out, but which it may, and which it must not leave out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.support.consensus import decide, exhausted

NO_CONSENSUS = 0


@dataclass(eq=False, kw_only=True)
class Job:
    """A job, or the container of inline tasks, which is processing again with each new task."""

    job_no: int
    job_id: str
    options: list[str]
    consensus_threshold: int
    stop_early: bool
    priority: int
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
    handed_to: set[int] = field(default_factory=set)
    let_go_by: set[int] = field(default_factory=set)
    has_unasked: bool = False
    """Whether somebody has labelled it without holding it: then a place too many may be on its way."""

    @property
    def votes(self) -> list[int]:
        return [list(self.labels.values()).count(option) for option in self.job.options]

    @property
    def outcome(self) -> int | None:
        """1-based option, 0 for no consensus, None while it is open."""
        threshold = self.job.consensus_threshold
        winner = decide(self.votes, threshold, stop_early=self.job.stop_early)
        if winner is not None:
            return winner + 1
        return NO_CONSENSUS if exhausted(len(self.labels), threshold) else None

    @property
    def has_ended(self) -> bool:
        return self.outcome is not None

    @property
    def wanted(self) -> int:
        """Labels and holders that it may have: all places, or one more where the labels are tied."""
        return max(self.job.consensus_threshold, len(self.labels) + 1)


class Labelling:
    """Everything that annotators of one customer have been handed and have said."""

    def __init__(self, annotators: Iterable[int]) -> None:
        self.granted = set(annotators)
        self.jobs: dict[str, Job] = {}
        self.tasks: dict[str, Task] = {}
        # The tasks that each annotator holds, and whether the time for them is over.
        self.held: dict[int, dict[str, bool]] = {annotator: {} for annotator in annotators}
        # The offset of the last task that an annotator's cursor may have passed, by job and chunk.
        self._passed: dict[tuple[int, int, int], int] = {}

    def add_task(self, job: Job, task_id: str, task_no: int, chunk_no: int) -> None:
        task = Task(job=job, task_id=task_id, task_no=task_no, chunk_no=chunk_no)
        job.tasks.append(task)
        self.tasks[task_id] = task
        if job.is_inline:
            job.status, job.is_settled = "processing", False

    def holders(self, task: Task) -> int:
        return sum(task.task_id in held for held in self.held.values())

    def may_have(self, annotator: int, task: Task) -> bool:
        """Whether a claim of the annotator may be given the task now."""
        return (
            annotator in self.granted
            and task.job.is_open
            and not task.has_ended
            and annotator not in task.labels
            and task.task_id not in self.held[annotator]
            and len(task.labels) + self.holders(task) < task.wanted
        )

    def expire(self, annotator: int) -> None:
        """Let the time for all that the annotator holds be over; the next claim takes it back."""
        self.held[annotator] = dict.fromkeys(self.held[annotator], True)

    def return_leases(self) -> int:
        """Take back what is overdue: how many tasks."""
        overdue = [
            (annotator, task_id)
            for annotator, held in self.held.items()
            for task_id, is_overdue in held.items()
            if is_overdue
        ]
        for annotator, task_id in overdue:
            self._let_go(annotator, task_id)
        return len(overdue)

    def claim(
        self,
        annotator: int,
        claimed: Sequence[str],
        *,
        limit: int,
        job_id: str | None = None,
        alone: bool = True,
    ) -> None:
        """Take note of a claim, and check it: `alone` if nothing else was under way."""
        self.return_leases()
        assert len(claimed) == len(set(claimed)) <= limit
        for task_id in claimed:
            task = self.tasks[task_id]
            assert job_id in (None, task.job.job_id)
            assert self.may_have(annotator, task), f"{task_id} is not for {annotator}"
            self.held[annotator][task_id] = False
            task.handed_to.add(annotator)
        if alone:
            missed = self._missed(annotator, claimed, limit, job_id)
            assert not missed, f"{annotator} should have been handed {missed}"
        self._pass(annotator, claimed, limit)

    def _missed(
        self, annotator: int, claimed: Sequence[str], limit: int, job_id: str | None
    ) -> list[str]:
        """Tasks that come before what was claimed, or are for an annotator who got too little.

        An annotator whose cursor has passed a task has it only when a place on it opens.
        """
        is_full = len(claimed) == limit
        lowest = min((self.tasks[task_id].job.priority for task_id in claimed), default=0)
        return [
            task.task_id
            for task in self.tasks.values()
            if job_id in (None, task.job.job_id)
            and (not is_full or task.job.priority > lowest)
            and self.may_have(annotator, task)
            and not self._has_passed(annotator, task)
            and not task.has_unasked
            and not (claimed and annotator in task.let_go_by)
        ]

    def _has_passed(self, annotator: int, task: Task) -> bool:
        at = self._passed.get((annotator, task.job.job_no, task.chunk_no), -1)
        return task.task_no <= at

    def _pass(self, annotator: int, claimed: Sequence[str], limit: int) -> None:
        """Remember how far the annotator's cursors may have come."""
        seen = [self.tasks[task_id] for task_id in claimed]
        for task in seen if len(claimed) == limit else self.tasks.values():
            key = (annotator, task.job.job_no, task.chunk_no)
            self._passed[key] = max(self._passed.get(key, -1), task.task_no)

    def label(self, annotator: int, labels: Sequence[tuple[str, str]]) -> list[str]:
        """Take the labels of one batch: what becomes of each."""
        jobs = {self.tasks[task_id].job for task_id, _ in labels if task_id in self.tasks}
        outcomes = [self._label(annotator, task_id, option) for task_id, option in labels]
        for job in jobs:
            if job.is_open:
                job.settle()
        return outcomes

    def _label(self, annotator: int, task_id: str, option: str) -> str:
        task = self.tasks.get(task_id)
        if task is None or annotator not in self.granted:
            return "unknown_task"
        if option not in task.job.options:
            return "unknown_option"
        if annotator in task.labels:
            return "duplicate"
        if not task.job.is_open:
            return "already_settled"
        if not task.handed_to:
            return "unknown_task"
        was_held = self.held[annotator].pop(task_id, None) is not None
        if task.has_ended:
            return "already_settled"
        task.has_unasked |= not was_held
        task.labels[annotator] = option
        return "settled" if task.outcome else "accepted"

    def release(self, annotator: int, task_ids: Sequence[str]) -> set[str]:
        """Take tasks back that the annotator holds: which."""
        released = self.held[annotator].keys() & set(task_ids)
        for task_id in released:
            self._let_go(annotator, task_id)
        return released

    def renew(self, annotator: int, task_ids: Sequence[str]) -> set[str]:
        """Tell which of these tasks the annotator can hold for longer."""
        held = self.held[annotator]
        return {
            task_id
            for task_id in set(task_ids) & held.keys()
            if not held[task_id] and self.tasks[task_id].job.is_open
        }

    def withdraw(self, annotator: int) -> int:
        """Hand the annotator nothing any more: how many tasks they held."""
        self.granted.remove(annotator)
        return len(self.release(annotator, list(self.held[annotator])))

    def _let_go(self, annotator: int, task_id: str) -> None:
        del self.held[annotator][task_id]
        self.tasks[task_id].let_go_by.add(annotator)
