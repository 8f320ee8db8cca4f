"""Claims, labels and releases as docs/annotation.md has them, in dicts: what the store is held against.

It does not say which task a claim hands out, but which it may, and which it must not leave out.
"""

from collections.abc import Iterable, Sequence

from blocks.domain.model import SkipReason
from blocks.store.label_changes import Entry, Replacement, Skip
from blocks.store.labelling import Label
from blocks.store.reviews import Decision
from tests.support.labelled_tasks import Job, Task


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
        # Who holds which task under review.
        self.reviewing: dict[str, int] = {}
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
            and task.takes_labels
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
        if not task.job.is_open:
            return "already_settled"
        if annotator not in task.labels:
            return "not_labelled"
        if not task.takes_labels:
            return "already_settled"
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
        if not task.takes_labels:
            return "already_settled"
        task.skips[annotator] = reason
        counted = [why for who, why in task.skips.items() if who not in task.labels]
        if counted.count(reason) >= task.job.skips_max:
            task.skipped_for = reason
            task.judge()
        return "skipped"

    def _replace(self, annotator: int, task: Task, option: str) -> str:
        if option in task.job.options and annotator in task.labels:
            if option == task.labels[annotator]:
                return "duplicate"
            if not task.takes_labels or not task.job.is_open:
                return "already_settled"
            self._take_back(annotator, task, option)
            task.labels[annotator] = option
            task.judge()
            return "settled" if (task.outcome or 0) > 0 else "replaced"
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
        if not task.takes_labels:
            return "already_settled"
        task.has_unasked |= not was_held
        task.labels[annotator] = option
        task.judge()
        return "settled" if (task.outcome or 0) > 0 else "accepted"

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
        reviewed = [id_ for id_, who in self.reviewing.items() if who == annotator]
        for id_ in reviewed:
            del self.reviewing[id_]
        return len(self.release(annotator, list(self.held[annotator]))) + len(reviewed)

    def claim_reviews(
        self, reviewer: int, claimed: Sequence[str], *, limit: int, alone: bool
    ) -> None:
        """Take note of a claim of tasks under review, and check it."""
        able = {
            task.task_id
            for task in self.tasks.values()
            if reviewer in self.granted
            and task.job.is_open
            and task.is_under_review
            and reviewer not in task.labels
            and reviewer not in task.skips
            and task.task_id not in self.reviewing
        }
        assert able.issuperset(claimed)
        if alone:
            assert len(claimed) == min(limit, len(able))
        for id_ in claimed:
            self.reviewing[id_] = reviewer

    def review(self, reviewer: int, decisions: Sequence[Decision]) -> list[str]:
        """Take a batch of decisions: what becomes of each."""
        outcomes = [self._review(reviewer, decision) for decision in decisions]
        self._settle_jobs()
        return outcomes

    def _review(self, reviewer: int, said: Decision) -> str:
        task = self.tasks.get(said.task_id)
        if task is None or reviewer not in self.granted:
            return "unknown_task"
        if said.label is not None and said.label not in task.job.options:
            return "unknown_option"
        if task.decided_by == reviewer:
            return "duplicate"
        if task.has_ended or not task.job.is_open:
            return "already_settled"
        if not task.is_under_review or self.reviewing.get(said.task_id) != reviewer:
            return "not_held"
        del self.reviewing[said.task_id]
        option = None if said.label is None else task.job.options.index(said.label) + 1
        outcome = said.failure if option is None else option
        task.decide(outcome, reviewer)
        if outcome is None:
            return "sent_back"
        return "settled" if outcome > 0 else "failed"

    def time_out(self) -> int:
        """Let the deadline of all reviews be over: how many those were."""
        found = [
            task for task in self.tasks.values() if task.is_under_review and not task.is_dropped
        ]
        for task in found:
            self.reviewing.pop(task.task_id, None)
            if task.job.is_open:
                task.decide(task.proposed, None)
            else:
                task.is_dropped = True
        self._settle_jobs()
        return len(found)

    def _settle_jobs(self) -> None:
        for job in self.jobs.values():
            if job.is_open and not job.is_settled and job.reviews:
                job.settle()

    def _let_go(self, annotator: int, task_id: str) -> None:
        del self.held[annotator][task_id]
        self.tasks[task_id].let_go_by.add(annotator)
