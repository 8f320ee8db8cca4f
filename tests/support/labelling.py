"""Claims, labels and releases as docs/annotation.md has them, in dicts: what the store is held against.

It does not say which task a claim hands out, but which it may, and which it must not leave out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from blocks.domain.model import SkipReason
from blocks.store.annotation import Label
from blocks.store.label_changes import Entry, Replacement, Skip
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
    skips_max: int
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
    skips: dict[int, SkipReason] = field(default_factory=dict)
    skipped_for: SkipReason | None = None
    """Why it has failed, if it was skipped too often."""
    handed_to: set[int] = field(default_factory=set)
    let_go_by: set[int] = field(default_factory=set)
    has_unasked: bool = False
    """Whether somebody has labelled it without holding it: then a place too many may be on its way."""

    @property
    def votes(self) -> list[int]:
        return [list(self.labels.values()).count(option) for option in self.job.options]

    @property
    def outcome(self) -> int | None:
        """1-based option, 0 for no consensus, less if it was skipped too often, None while open."""
        if self.skipped_for is not None:
            return -self.skipped_for.number
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
        # Labels that were replaced or withdrawn: by whom, from what to what, in their order.
        self.changes: list[tuple[str, int, str, str | None]] = []
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
            and annotator not in task.skips
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

    def enter(self, annotator: int, entries: Sequence[Entry]) -> list[str]:
        """Take a batch of labels, skips and changes: what becomes of each entry."""
        changed = {entry.task_id for entry in entries if not isinstance(entry, Label)}
        first: dict[str, str] = {}
        outcomes = []
        for entry in entries:
            outcome = first.get(entry.task_id) if entry.task_id in changed else None
            if outcome is None:
                outcome = self._enter(annotator, entry)
            elif outcome != "unknown_task":
                outcome = "duplicate"
            outcomes.append(outcome)
            first.setdefault(entry.task_id, outcome)
        for job in {self.tasks[id_].job for id_ in first if id_ in self.tasks}:
            if job.is_open:
                job.settle()
        return outcomes

    def _enter(self, annotator: int, entry: Entry) -> str:
        task = self.tasks.get(entry.task_id)
        if task is None or annotator not in self.granted:
            return "unknown_task"
        if isinstance(entry, Label):
            return self._label(annotator, task, entry.label)
        if isinstance(entry, Skip):
            return self._skip(annotator, task, entry.reason)
        if isinstance(entry, Replacement):
            return self._replace(annotator, task, entry.label)
        if task.has_ended or not task.job.is_open:
            return "already_settled"
        if annotator not in task.labels:
            return "not_labelled"
        self._take_back(annotator, task, None)
        task.let_go_by.add(annotator)
        return "withdrawn"

    def _skip(self, annotator: int, task: Task, reason: SkipReason) -> str:
        if annotator in task.labels or annotator in task.skips:
            return "duplicate"
        if not task.job.is_open:
            return "already_settled"
        if not task.handed_to:
            return "unknown_task"
        self.held[annotator].pop(task.task_id, None)
        if task.has_ended:
            return "already_settled"
        task.skips[annotator] = reason
        counted = [why for who, why in task.skips.items() if who not in task.labels]
        if counted.count(reason) >= task.job.skips_max:
            task.skipped_for = reason
        return "skipped"

    def _replace(self, annotator: int, task: Task, option: str) -> str:
        if option in task.job.options and annotator in task.labels:
            if option == task.labels[annotator]:
                return "duplicate"
            if task.has_ended or not task.job.is_open:
                return "already_settled"
            self._take_back(annotator, task, option)
            task.labels[annotator] = option
            return "settled" if task.outcome else "replaced"
        return self._label(annotator, task, option)

    def _take_back(self, annotator: int, task: Task, new: str | None) -> None:
        option = task.labels.pop(annotator)
        task.skips.pop(annotator, None)
        self.changes.append((task.task_id, annotator, option, new))

    def _label(self, annotator: int, task: Task, option: str) -> str:
        if option not in task.job.options:
            return "unknown_option"
        if annotator in task.labels:
            return "duplicate"
        if not task.job.is_open:
            return "already_settled"
        if not task.handed_to:
            return "unknown_task"
        was_held = self.held[annotator].pop(task.task_id, None) is not None
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
