"""A job that annotators label at random, beside the books of what they did in plain dicts."""

import random
from collections.abc import Sequence

from blocks.domain.ids import chunk_of
from blocks.domain.model import SkipReason
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from blocks.store.labelling import Label
from tests.support import labelled_tasks
from tests.support.labelling import Labelling
from tests.support.store_shop import OPTIONS, Shop, make_chunk

_ANNOTATORS = 6


class RandomLabelling:
    """A job of two chunks, of several pages each, and all that its annotators have said."""

    def __init__(
        self, shop: Shop, seed: int, *, tasks: int = 300, stop_early: bool = False
    ) -> None:
        self.shop = shop
        self.tasks_a_chunk = tasks
        self.job: Job = shop.processing(
            make_chunk(tasks), make_chunk(tasks, start=10**6, bad=3),
            consensus_threshold=2, skips_max=2, stop_early=stop_early,
        )  # fmt: skip
        self.annotators = shop.annotators(_ANNOTATORS)
        self.books = Labelling(self.annotators)
        self._rng = random.Random(seed)
        self._begin()

    def _begin(self) -> None:
        job = self.job
        self.model = labelled_tasks.Job(
            job_no=job.job_no, job_id=job.job_id, options=OPTIONS,
            consensus_threshold=job.consensus_threshold, stop_early=job.stop_early,
            skips_max=job.skips_max, priority=job.priority, is_ingested=True,
        )  # fmt: skip
        for row in self.shop.tasks():
            number = row["task_no"]
            self.books.add_task(self.model, job.task_id(number), number, chunk_of(number))

    @property
    def tasks(self) -> Sequence[labelled_tasks.Task]:
        return self.model.tasks

    def work(self, requests: int) -> None:
        """Hand in so many batches, of one annotator each; some claim more before that."""
        for _ in range(requests):
            annotator = self._rng.choice(self.annotators)
            if self._rng.random() < 0.7:
                claimed = [task.task_id for task in self.shop.claim(annotator, 40)]
                for each in claimed:
                    self.books.held[annotator][each] = False
                    self.books.tasks[each].handed_to.add(annotator)
            self._enter(annotator)

    def _enter(self, annotator: int) -> None:
        held = list(self.books.held[annotator])
        labelled = [task.task_id for task in self.tasks if annotator in task.labels]
        some = self._rng.sample(held, len(held) // 2)
        some += self._rng.sample(labelled, min(len(labelled), 8))
        entries = [self._entry(each, is_labelled=each not in held) for each in dict.fromkeys(some)]
        if entries:
            outcomes = self.shop.enter(annotator, *entries)
            assert [str(each) for each in outcomes] == self.books.enter(annotator, entries)

    def _entry(self, task: str, *, is_labelled: bool) -> Entry:
        option = self._rng.choices(OPTIONS, (6, 2, 1))[0]
        if is_labelled:
            return Replacement(task, option) if self._rng.random() < 0.5 else Withdrawal(task)
        if self._rng.random() < 0.15:
            return Skip(task, self._rng.choice(list(SkipReason)))
        return Label(task, option)
