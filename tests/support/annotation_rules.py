"""All that annotators and customers can do, as rules of a state machine."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)

from blocks.domain.ids import task_no
from blocks.domain.limits import SKIPS_MAX_DEFAULT
from blocks.domain.model import Pin, SkipReason, TaskType
from blocks.store import chunks, customers, jobs, tasks
from blocks.store.database import Transaction
from blocks.store.tasks import NewTask, Rule
from tests.support.annotation_machine import (
    CHUNK_BYTES,
    JOBS_MAX,
    OPTIONS,
    Change,
    Step,
    changes,
    few,
    options,
    people,
    picks,
    reasons,
    review_rules,
    skips_max,
    thresholds,
    verdicts,
)
from tests.support.labelled_tasks import Job
from tests.support.labelling import Labelling
from tests.support.machine_checks import Checks
from tests.support.store_shop import DELIVERY, make_chunk


class Annotation(Checks):
    """The store and the model, step by step."""

    # What customers do

    @initialize(
        threshold=thresholds,
        stop_early=st.booleans(),
        skips=skips_max,
        reviewed=review_rules,
        sizes=st.lists(few, min_size=1, max_size=2),
        claims=st.lists(st.tuples(people, few), max_size=8),
    )
    def begin(
        self,
        threshold: int,
        stop_early: bool,
        skips: int,
        reviewed: frozenset[str],
        sizes: list[int],
        claims: list[tuple[int, int]],
    ) -> None:
        self._post(threshold, stop_early, skips, reviewed, has_delivery=False, sizes=sizes)
        for who, limit in claims:
            self._take(self._claim(self.crew[who], limit, None))

    @precondition(lambda self: len(self.model.jobs) < JOBS_MAX)
    @rule(
        threshold=thresholds,
        stop_early=st.booleans(),
        skips=skips_max,
        reviewed=review_rules,
        has_delivery=st.booleans(),
        sizes=st.lists(few, max_size=2),
    )
    def post(
        self,
        threshold: int,
        stop_early: bool,
        skips: int,
        reviewed: frozenset[str],
        has_delivery: bool,
        sizes: list[int],
    ) -> None:
        self._post(threshold, stop_early, skips, reviewed, has_delivery, sizes)

    def _post(
        self,
        threshold: int,
        stop_early: bool,
        skips: int,
        reviewed: frozenset[str],
        has_delivery: bool,
        sizes: list[int],
    ) -> None:
        # Labels of few people end a task, so that something is there to review.
        threshold = min(threshold, 2) if reviewed else threshold
        # No two have the same priority: which came first would be a throw of dice.
        priority = (6, 4, 8)[len(self.model.jobs)]
        made = self.world.submit(
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
            skips_max=skips,
            review_share=10_000 if "all" in reviewed else None,
            review_no_consensus="no_consensus" in reviewed,
            review_flagged="flagged" in reviewed,
            priority=priority,
            delivery=DELIVERY if has_delivery else None,
        )
        self.world.do(jobs.begin, made.job_no)
        self.world.do(jobs.pin, made.job_no, Pin(1_000_000, '"etag"'), CHUNK_BYTES)
        job = Job(
            job_no=made.job_no,
            job_id=made.job_id,
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
            skips_max=skips,
            reviews=reviewed,
            priority=priority,
            has_delivery=has_delivery,
        )
        self.model.jobs[job.job_id] = job
        for size in sizes:
            self._commit_chunk(job, size, bad=0)

    @rule(which=picks, size=st.integers(0, 4), bad=st.integers(0, 1))
    def commit_chunk(self, which: int, size: int, bad: int) -> None:
        job = self._job(which)
        if job.is_open and not job.is_ingested:
            self._commit_chunk(job, size, bad)

    def _commit_chunk(self, job: Job, size: int, bad: int) -> None:
        chunk_no = self.world.value("select count(*) from chunks where job_no = %s", job.job_no)
        start = chunk_no * CHUNK_BYTES
        chunk = make_chunk(size, bad=bad, start=start)
        assert self.world.do(chunks.commit, job.job_no, chunk_no, chunk, None)
        made = self.world.job(job.job_id)
        for n in range(size):
            number = task_no(chunk_no, n)
            self.model.add_task(job, made.task_id(number), number, chunk_no)

    @rule(which=picks)
    def finish_ingestion(self, which: int) -> None:
        self._finish_ingestion(self._job(which))

    @rule(threshold=st.integers(1, 3), stop_early=st.booleans(), count=st.integers(1, 2))
    def post_inline(self, threshold: int, stop_early: bool, count: int) -> None:
        job = next((job for job in self.model.jobs.values() if job.is_inline), None)
        if job and (job.consensus_threshold, job.stop_early) != (threshold, stop_early):
            return  # that would be another container
        asked = Rule(
            task_type=TaskType.SENTIMENT,
            question="How does it feel?",
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
        )
        new = NewTask(
            rule=asked,
            data_url="https://img.example.com/1.jpg",
            metadata=None,
            callback_url=None,
            idempotency_key=None,
            body_hash=b"",
        )
        made = self.world.do(tasks.create, self.world.customer_id, [new] * count, self.world.vault)
        job = job or self._new_container(made[0].task_id, threshold, stop_early)
        for each in made:
            self.model.add_task(job, each.task_id, len(job.tasks), 0)

    def _new_container(self, of_task: str, threshold: int, stop_early: bool) -> Job:
        job_id, _ = self.world.find_task(of_task)
        self.model.jobs[job_id] = Job(
            job_no=self.world.value("select job_no from jobs where job_id = %s", job_id),
            job_id=job_id,
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
            skips_max=SKIPS_MAX_DEFAULT,
            priority=5,
            is_inline=True,
            is_ingested=True,
        )
        return self.model.jobs[job_id]

    @rule(which=picks, sure=st.integers(0, 3), fails=st.booleans())
    def end_job(self, which: int, sure: int, fails: bool) -> None:
        if not sure:  # or few examples would come to an end
            self._take(self._end_job(which, fails=fails))

    def _end_job(self, which: int, *, fails: bool) -> Step:
        made = [job for job in self.model.jobs.values() if not job.is_inline]
        job = made[which % len(made)]

        def fail(tx: Transaction) -> None:
            jobs.fail(tx, job.job_no, "manifest_changed", "It changed.")

        def tell_of_failure(model: Labelling, _: None, alone: bool) -> None:
            if model.jobs[job.job_id].is_open and not job.is_ingested:
                model.jobs[job.job_id].status = "failed"

        def cancel(tx: Transaction) -> bool:
            return jobs.cancel(tx, job.job_no)

        def tell_of_cancel(model: Labelling, is_cancelled: bool, alone: bool) -> None:
            assert is_cancelled == model.jobs[job.job_id].is_open
            if is_cancelled:
                model.jobs[job.job_id].status = "cancelled"

        return (fail, tell_of_failure) if fails else (cancel, tell_of_cancel)

    # What annotators do

    @rule(who=people, limit=few | st.just(100), of=st.none() | picks)
    def claim(self, who: int, limit: int, of: int | None) -> None:
        self._take(self._claim(self.crew[who], limit, of))

    @rule(who=people, said=st.lists(options, min_size=1, max_size=4))
    def label_what_is_held(self, who: int, said: list[str]) -> None:
        self._take(self._label_held(self._holder(who), said))

    @rule(who=people, said=st.lists(st.tuples(picks, options), min_size=1, max_size=3))
    def label_anything(self, who: int, said: list[tuple[int, str]]) -> None:
        self._take(self._label_any(self.crew[who], said))

    @rule(who=people, why=st.lists(reasons, min_size=1, max_size=3))
    def skip_what_is_held(self, who: int, why: list[SkipReason]) -> None:
        self._take(self._skip_held(self._holder(who), why))

    @rule(who=people, said=changes)
    def change_anything(self, who: int, said: list[Change]) -> None:
        self._take(self._change_any(self.crew[who], said))

    @rule(who=people, limit=few | st.just(100), said=st.lists(options, min_size=1, max_size=3))
    def claim_and_label(self, who: int, limit: int, said: list[str]) -> None:
        annotator = self.crew[who]
        self._take(self._claim(annotator, limit, None))
        self._take(self._label_held(annotator, said * len(self.model.tasks)))

    @rule(who=people, count=few, others=st.lists(picks, max_size=2))
    def release(self, who: int, count: int, others: list[int]) -> None:
        annotator = self._holder(who)
        held = list(self.model.held[annotator])[:count]
        self._take(self._release(annotator, held + [self._task_id(each) for each in others]))

    @rule(who=people, count=few, others=st.lists(picks, max_size=2))
    def renew(self, who: int, count: int, others: list[int]) -> None:
        annotator = self._holder(who)
        held = list(self.model.held[annotator])[:count]
        self._take(self._renew(annotator, held + [self._task_id(each) for each in others]))

    @rule(who=people, limit=few)
    def claim_reviews(self, who: int, limit: int) -> None:
        self._take(self._claim_reviews(self._able_reviewer(who), limit))

    @rule(who=people, option=options, limit=few, said=verdicts)
    def label_and_decide(
        self, who: int, option: str, limit: int, said: list[tuple[int, str]]
    ) -> None:
        self.claim_and_label(who, 100, [option])
        reviewer = self._able_reviewer(who)
        self._take(self._claim_reviews(reviewer, limit))
        self._take(self._decide(reviewer, said))

    @rule(who=people, said=verdicts)
    def decide(self, who: int, said: list[tuple[int, str]]) -> None:
        self._take(self._decide(self._reviewer(who), said))

    @precondition(lambda self: any(each.is_under_review for each in self.model.tasks.values()))
    @rule()
    def let_deadlines_pass(self) -> None:
        self._take(self._time_out())

    @rule(who=people)
    def let_leases_expire(self, who: int) -> None:
        self._expire(self._holder(who))

    @rule()
    def return_leases(self) -> None:
        self._return_leases()

    @rule(who=people)
    def withdraw_or_grant(self, who: int) -> None:
        annotator = self.crew[who]
        name = self.world.value("select name from annotators where annotator_no = %s", annotator)
        if annotator in self.model.granted:
            customer_ids = [self.world.customer_id]
            _, returned = self.world.do(customers.withdraw, name, customer_ids)
            assert returned == self.model.withdraw(annotator)
        else:
            self.world.do(customers.grant, name, [self.world.customer_id])
            self.model.granted.add(annotator)


REVIEWS = {"claim_reviews", "decide", "time_out"}
Intent = tuple[str, int, Any]
"""What somebody is going to do, whom it comes from, and the rest of it."""

intents: st.SearchStrategy[Intent] = st.one_of(
    st.tuples(st.just("claim"), people, few | st.just(100)),
    st.tuples(st.just("label"), people, st.lists(options, min_size=1, max_size=4)),
    st.tuples(
        st.just("label_any"), people, st.lists(st.tuples(picks, options), min_size=1, max_size=3)
    ),
    st.tuples(st.just("skip"), people, st.lists(reasons, min_size=1, max_size=3)),
    st.tuples(st.just("change"), people, changes),
    st.tuples(st.just("release"), people, few),
    st.tuples(st.just("renew"), people, few),
    st.tuples(st.just("claim_reviews"), people, few),
    st.tuples(st.just("decide"), people, verdicts),
    st.tuples(st.just("time_out"), people, st.none()),
    st.tuples(st.just("end_job"), picks, st.none()),
)
