"""Transactions that meet on two jobs wait for each other, and never in a circle."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from blocks.domain.model import JobStatus, LabelOutcome, SkipReason
from blocks.store import exclusions, label_changes, labelling, reviews
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from blocks.store.labelling import Label
from blocks.store.reviews import Decision
from tests.support.books import check_books
from tests.support.side import Side, at_once
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

UNCLEAR, BROKEN, _ = SkipReason
REVIEW_ALL: dict[str, Any] = {"consensus_threshold": 1, "review_share": 10_000}


def job_before_its_last_label(shop: Shop, first: int) -> Job:
    """Return a job of one task that the next label settles, with a cursor that is not through and a place."""
    job = shop.processing(make_chunk(1), consensus_threshold=3, stop_early=True)
    (claimed,) = shop.claim(first, job_id=job.job_id)
    shop.label(first, (claimed.task_id, "cat"))
    shop.run("insert into vacancies (job_no, task_no) values (%s, 0)", job.job_no)
    return job


def test_a_batch_that_settles_two_jobs_waits_for_a_claim_that_holds_a_place_and_wants_a_cursor(
    shop: Shop,
) -> None:
    first, last = shop.annotators(2)
    jobs = [job_before_its_last_label(shop, first) for _ in range(2)]
    labels = [(job.task_id(0), "cat") for job in jobs]
    with shop.held() as claim:
        # A claim has seen that the place on the later job is needed no more, and waits for a cursor.
        claim.execute("select from vacancies where job_no = %s for update", [jobs[1].job_no])
        batch = Side(lambda: shop.label(last, *labels))
        shop.wait_for_waiters(1)
        claim.execute("select from lanes where job_no = %s for update", [jobs[0].job_no])
    assert batch.join() == [LabelOutcome.SETTLED] * 2
    assert {shop.job(job).status for job in jobs} == {JobStatus.COMPLETED}


def skippable(shop: Shop, **changes: Any) -> tuple[Job, str]:
    """A job of one task, which needs two labels or fails with two equal skips."""
    changes = {"consensus_threshold": 2, "skips_max": 2} | changes
    job = shop.processing(make_chunk(1), **changes)
    return job, job.task_id(0)


def do_one_before_the_other(
    shop: Shop, job: Job, first: tuple[int, Entry], second: tuple[int, Entry]
) -> None:
    """Have the second wait for the first, which is about to commit."""
    with shop.held() as tx:
        label_changes.submit(tx, first[0], [first[1]])
        beside = Side(lambda: shop.enter(*second))
        shop.wait_for_waiters(1)
    beside.join()
    check_books(shop, job)


def test_a_claim_of_two_jobs_with_gold_counts_what_it_gave_in_the_order_of_labels(
    shop: Shop,
) -> None:
    """A batch of labels has been right in the first job, and the claim took tasks of the second first."""
    first, second = (
        shop.processing(make_chunk(60, gold=dict.fromkeys(range(0, 60, 6), 1)), priority=priority)
        for priority in (1, 9)
    )
    annotator = shop.annotator()
    for job in (first, second):
        shop.claim(annotator, 5, job_id=job.job_id)
    query = "select from job_annotators where job_no = %s for update"
    with shop.held() as labels:
        labels.execute(query, [first.job_no])
        claim = Side(lambda: shop.claim(annotator, 80))
        shop.wait_for_waiters(1)
        labels.execute(query, [second.job_no])
    assert {task.job.job_id for task in claim.join()} == {first.job_id, second.job_id}


def test_of_two_skips_at_once_the_second_sees_the_first(shop: Shop) -> None:
    job, task = skippable(shop)
    one, two = shop.annotators(2)
    shop.claim(one)
    do_one_before_the_other(shop, job, (one, Skip(task, BROKEN)), (two, Skip(task, BROKEN)))
    assert shop.value("select outcome from tallies") == -2
    assert shop.job(job).status == JobStatus.COMPLETED


def test_two_batches_that_change_tasks_in_other_orders_do_not_wait_in_a_circle(shop: Shop) -> None:
    """Neither has a tally to lock yet for the task that it names first."""
    job = shop.processing(make_chunk(4), consensus_threshold=2, skips_max=2)
    found = [job.task_id(n) for n in range(4)]
    one, two = shop.annotators(2)
    for annotator in (one, two):
        shop.claim(annotator)
    batches = [
        [Skip(found[3], BROKEN), Label(found[0], "cat"), Skip(found[1], BROKEN)],
        [Skip(found[0], BROKEN), Label(found[1], "cat"), Skip(found[3], BROKEN)],
    ]
    said = [
        lambda who=who, batch=batch: shop.enter(who, *batch)
        for who, batch in zip((one, two), batches, strict=True)
    ]
    for outcomes in at_once(*said):
        assert set(outcomes) <= {"skipped", "accepted", "already_settled"}
    check_books(shop, job)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_who_was_handed_what_they_were_just_labelling_may_change_the_label(
    shop: Shop, is_replaced: bool
) -> None:
    job, task = skippable(shop)
    one, two = shop.annotators(2)
    shop.claim(one)
    shop.release(one, task)
    with shop.held() as tx:
        labelling.submit(tx, one, [Label(task, "cat")])
        assert len(shop.claim(one)) == 1  # it does not see the label yet
    entry = Replacement(task, "dog") if is_replaced else Withdrawal(task)
    assert shop.enter(one, entry) == ["replaced" if is_replaced else "withdrawn"]
    assert shop.value("select count(*) from leases") == 0
    check_books(shop, job)
    assert shop.answer(two, "dog") == ["settled" if is_replaced else "accepted"]
    check_books(shop, job)


def test_a_skip_waits_for_the_label_that_settles_its_task(shop: Shop) -> None:
    job, task = skippable(shop, skips_max=1)
    one, two, three = shop.annotators(3)
    for annotator in (one, two):
        shop.claim(annotator)
    shop.label(one, (task, "cat"))
    with shop.held() as tx:
        labelling.submit(tx, two, [Label(task, "cat")])
        beside = Side(lambda: shop.enter(three, Skip(task, BROKEN)))
        shop.wait_for_waiters(1)
    assert beside.join() == ["already_settled"]
    assert shop.value("select failed from chunks where job_no = %s", job.job_no) == 0


def test_what_is_handed_out_while_a_batch_takes_its_locks_counts_in_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch holds the chunk; another one holds a task that nobody had when the first began."""
    job = shop.processing(make_chunk(2), consensus_threshold=2)
    found = [job.task_id(n) for n in range(2)]
    one, two = shop.annotators(2)
    shop.claim(one, 1)
    lock_all = label_changes._lock
    others: list[Side] = []

    def lock_and_pause(*values: Any) -> Any:
        locked = lock_all(*values)
        if not others:
            shop.claim(two)
            others.append(Side(lambda: shop.enter(two, Label(found[1], "cat"))))
            shop.wait_for_waiters(1)
        return locked

    monkeypatch.setattr(label_changes, "_lock", lock_and_pause)
    batch: list[Entry] = [Skip(found[0], BROKEN), Label(found[1], "cat")]
    assert shop.enter(one, *batch) == ["skipped", "unknown_task"]
    assert others[0].join() == ["accepted"]
    check_books(shop, job)


def test_crowds_who_change_their_minds_come_to_an_end_with_their_books_in_order(
    shop: Shop,
) -> None:
    job = shop.processing(make_chunk(40), consensus_threshold=2, skips_max=3)
    found = [job.task_id(n) for n in range(40)]
    people = shop.annotators(8)

    def work(annotator: int) -> Callable[[], None]:
        def go_on() -> None:
            for round_ in range(30):
                held = [task.task_id for task in shop.claim(annotator, 10)]
                shop.enter(annotator, *_said(annotator, round_, held, found))

        return go_on

    at_once(*[work(annotator) for annotator in people])
    check_books(shop, job)
    votes = shop.run("select votes, outcome from tallies where outcome > 0")
    assert votes
    while shop.job(job).status != JobStatus.COMPLETED:
        newcomer = shop.annotator()
        assert shop.answer(newcomer, "cat"), "nothing is left, and the job is not completed"
    check_books(shop, job)
    ended = shop.job(job)
    assert ended.tasks_done + ended.tasks_failed == 40


def _said(
    annotator: int, round_: int, held: Sequence[str], found: Sequence[str]
) -> Sequence[Entry]:
    """What the annotator says of what they hold, and of other tasks, in another order each time."""
    entries: list[Entry] = []
    for n, task in enumerate(held):
        kind = (annotator + round_ + n) % 4
        entries.append(Skip(task, UNCLEAR) if not kind else Label(task, OPTIONS[kind - 1]))
    for n in range(3):
        other = found[(annotator * 7 + round_ * 11 + n * 5) % len(found)]
        entries.append(Withdrawal(other) if n else Replacement(other, OPTIONS[round_ % 3]))
    return entries[::-1] if round_ % 2 else entries


def test_a_batch_of_labels_that_waits_for_a_decision_is_not_waited_for(shop: Shop) -> None:
    """The decision holds reviews and votes, and wants the chunk; the batch adds to the queue of others."""
    job = shop.processing(make_chunk(2), consensus_threshold=1, review_share=10_000)
    found = [job.task_id(n) for n in range(2)]
    labeller, other, reviewer = shop.annotators(3)
    shop.claim(labeller)
    shop.label(labeller, (found[0], "cat"))
    shop.do(reviews.claim, reviewer, limit=1, lease_s=600)
    with shop.held() as tx:
        assert reviews.decide(tx, reviewer, [Decision(found[0], "dog")]) == ["settled"]
        batch = Side(lambda: shop.label(other, (found[0], "fox"), (found[1], "cat")))
        shop.wait_for_waiters(1)
        assert reviews.time_out(tx, limit=10) == 0
    assert batch.join() == ["already_settled", "accepted"]
    check_books(shop, job)


def test_two_batches_of_decisions_in_other_orders_do_not_wait_in_a_circle(shop: Shop) -> None:
    job = shop.processing(make_chunk(6), make_chunk(6, start=10_000), **REVIEW_ALL)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "cat")
    claimed = shop.do(reviews.claim, reviewer, limit=100, lease_s=600)
    decisions = [Decision(each.task.task_id, "dog") for each in claimed]
    said = [
        lambda order=order: shop.do(reviews.decide, reviewer, order)
        for order in (decisions, decisions[::-1])
    ]
    outcomes = [outcome for each in at_once(*said) for outcome in each]
    assert (outcomes.count("settled"), outcomes.count("duplicate")) == (12, 12)
    assert shop.job(job).status == JobStatus.COMPLETED
    check_books(shop, job)


def test_an_exclusion_that_is_asked_for_again_holds_no_job_while_a_step_of_it_ends(
    shop: Shop,
) -> None:
    job = shop.processing(make_chunk(1))
    someone = shop.annotator()
    shop.answer(someone, "cat")
    assert shop.do(exclusions.exclude, job.job_no, someone)
    with shop.held() as step:
        step.execute("update exclusions set done_at = now()")  # and then the step locks the job
        again = Side(lambda: shop.do(exclusions.exclude, job.job_no, someone))
        assert again.join()
