"""Annotators: who is handed what, what becomes of a label, and that no number drifts."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from blocks.domain.consensus import majority_outcome
from blocks.domain.errors import Transient
from blocks.domain.ids import new_id, task_no
from blocks.domain.model import TaskType
from blocks.store import annotation, chunks, customers, jobs, labelling, lease_returns
from blocks.store.annotation import ClaimedTask, LabelledJob
from blocks.store.jobs import Job
from tests.support.books import check_books
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration


def ids(tasks: Sequence[ClaimedTask]) -> list[str]:
    return [task.task_id for task in tasks]


# Claims


def test_a_claim_tells_what_an_annotator_needs(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), task_type=TaskType.SENTIMENT, question="Which animal?")
    (task,) = shop.claim(shop.annotator(), lease_s=60)
    assert task.task_id == job.task_id(0)
    assert (task.data_url, task.metadata) == ("https://img.example.com/0.jpg", None)
    assert task.job == LabelledJob(job.job_id, TaskType.SENTIMENT, "Which animal?", OPTIONS)
    seconds = shop.value("select extract(epoch from %s - now())", task.lease_expires_at)
    assert 50 < seconds <= 60


def test_nothing_is_handed_out_twice_to_the_same_annotator(shop: Shop) -> None:
    shop.processing(make_chunk(30))
    annotator = shop.annotator()
    first, second = shop.claim(annotator, 20), shop.claim(annotator, 20)
    assert len(set(ids(first)) | set(ids(second))) == 30
    assert shop.claim(annotator) == []
    shop.label(annotator, *((task.task_id, "cat") for task in first))
    assert shop.claim(annotator) == []


def test_three_annotators_share_a_chunk_as_the_docs_have_it(shop: Shop) -> None:
    """The worked example of docs/annotation.md: four tasks, two labels each."""
    job = shop.processing(make_chunk(4), consensus_threshold=2)
    ann, bob, cas = shop.annotators(3)
    tasks = [job.task_id(number) for number in range(4)]
    claimed = [ids(shop.claim(who, 2)) for who in (ann, bob, cas, bob, ann)]
    assert claimed == [tasks[:2], tasks[:2], tasks[2:], tasks[2:], []]
    assert shop.value("select count(*) from lanes") == 0
    shop.run(
        "update leases set expires_at = now() - interval '1 second' where annotator_no = %s", ann
    )
    assert shop.claim(bob) == []
    assert ids(shop.claim(cas, 1)) == tasks[:1]
    assert ids(shop.claim(ann)) == tasks[1:2]
    check_books(shop, job)


def test_what_an_annotator_has_labelled_does_not_come_back_when_leases_expire(shop: Shop) -> None:
    shop.processing(make_chunk(1))
    annotator = shop.annotator()
    shop.answer(annotator, "cat")
    shop.expire_leases()
    assert shop.claim(annotator) == []


def test_no_more_annotators_than_wanted_hold_a_task(shop: Shop) -> None:
    job = shop.processing(make_chunk(5), consensus_threshold=3)
    claimed = [len(shop.claim(annotator)) for annotator in shop.annotators(5)]
    assert claimed == [5, 5, 5, 0, 0]
    check_books(shop, job)


def test_a_label_frees_no_place_for_another_annotator(shop: Shop) -> None:
    shop.processing(make_chunk(1), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    shop.answer(one, "cat")
    assert len(shop.claim(two)) == 1
    assert shop.claim(three) == []


def test_annotators_who_claim_at_once_share_the_tasks(shop: Shop) -> None:
    job = shop.processing(
        make_chunk(50), make_chunk(50, start=10_000), consensus_threshold=2, ingested=False
    )
    people = shop.annotators(6)
    claimed = at_once(*[lambda who=who: ids(shop.claim(who, 70)) for who in people])
    taken = Counter(itertools.chain.from_iterable(claimed))
    assert all(len(set(mine)) == len(mine) for mine in claimed)
    assert set(taken) == {
        job.task_id(task_no(chunk_no, n)) for chunk_no in (0, 1) for n in range(50)
    }
    assert max(taken.values()) <= 2
    check_books(shop, job)


def test_a_lease_that_ran_out_goes_to_somebody_else(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    shop.claim(one)
    shop.claim(two)
    assert shop.claim(three) == []
    shop.run("update leases set expires_at = now() - interval '1 s' where annotator_no = %s", one)
    assert len(shop.claim(three)) == 2
    assert shop.claim(one) == []
    check_books(shop, job)


def test_a_lease_that_ran_out_can_go_to_the_same_annotator_again(shop: Shop) -> None:
    shop.processing(make_chunk(2))
    annotator = shop.annotator()
    first = shop.claim(annotator)
    shop.expire_leases()
    assert sorted(ids(shop.claim(annotator))) == sorted(ids(first))


def test_a_late_label_counts_as_long_as_the_task_is_open(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    one, two = shop.annotators(2)
    (task,) = shop.claim(one)
    shop.expire_leases()
    shop.claim(two)
    assert shop.label(one, (task.task_id, "cat")) == ["accepted"]
    check_books(shop, job)


def test_a_claim_of_zero_length_leases_never_loses_a_task(shop: Shop) -> None:
    job = shop.processing(make_chunk(3))
    for annotator in shop.annotators(4):
        shop.claim(annotator, lease_s=1)
        shop.expire_leases()
    assert len(shop.claim(shop.annotator())) == 3
    check_books(shop, job)


@pytest.mark.parametrize("limit, expected", [(1, 1), (7, 7), (12, 12), (500, 12)])
def test_a_claim_has_up_to_limit_tasks(shop: Shop, limit: int, expected: int) -> None:
    shop.processing(make_chunk(5), make_chunk(5, start=1000), ingested=False)
    shop.processing(make_chunk(2))
    shop.claim(shop.annotator(), 3)
    claimed = shop.claim(shop.annotator(), limit)
    assert len(set(ids(claimed))) == len(claimed) == expected


def test_tasks_that_others_have_begun_on_come_first(shop: Shop) -> None:
    shop.processing(make_chunk(10))
    begun = shop.claim(shop.annotator(), 4)
    assert ids(shop.claim(shop.annotator(), 4)) == ids(begun)


def test_a_claim_can_be_for_one_job(shop: Shop) -> None:
    shop.processing(make_chunk(5))
    wanted = shop.processing(make_chunk(3))
    shop.claim(shop.annotator(), 2)
    claimed = shop.claim(shop.annotator(), job_id=wanted.job_id)
    assert ids(claimed) == [wanted.task_id(n) for n in range(3)]
    assert shop.claim(shop.annotator(), job_id=new_id("job")) == []


def test_a_claim_can_be_for_some_types_of_task(shop: Shop) -> None:
    for task_type in TaskType:
        shop.processing(make_chunk(2), task_type=task_type)
    shop.claim(shop.annotator(), 1)
    claimed = shop.claim(shop.annotator(), task_types=["sentiment", "moderation"])
    assert Counter(task.job.task_type for task in claimed) == {"sentiment": 2, "moderation": 2}


def test_fresh_tasks_of_a_job_with_higher_priority_come_first(shop: Shop) -> None:
    low, high, higher = (shop.processing(make_chunk(2), priority=n) for n in (1, 8, 9))
    claimed = ids(shop.claim(shop.annotator(), 5))
    assert claimed == [
        *(higher.task_id(n) for n in range(2)),
        *(high.task_id(n) for n in range(2)),
        low.task_id(0),
    ]


def test_begun_tasks_of_a_job_with_higher_priority_come_first(shop: Shop) -> None:
    low, high = (shop.processing(make_chunk(2), priority=n) for n in (1, 8))
    shop.claim(shop.annotator())
    claimed = ids(shop.claim(shop.annotator(), 3))
    assert claimed == [
        *(high.task_id(n) for n in range(2)),
        low.task_id(0),
    ]


def test_a_job_with_higher_priority_comes_first_even_if_a_lower_one_was_begun(shop: Shop) -> None:
    shop.processing(make_chunk(2), priority=0)
    shop.claim(shop.annotator())
    high = shop.processing(make_chunk(1), priority=9)
    assert ids(shop.claim(shop.annotator(), 1)) == [high.task_id(0)]


def test_customers_have_equal_shares_however_many_jobs_they_have(shop: Shop) -> None:
    large = [shop.processing(make_chunk(400)) for _ in range(4)]
    shop.customer_id = shop.do(customers.add_customer, "Small")
    small = shop.processing(make_chunk(400))
    annotator = shop.annotator()
    claimed = Counter(shop.claim(annotator, 1)[0].job.job_id for _ in range(200))
    # Of 200 throws of a coin, fewer than 60 or more than 140 are heads once in a hundred million times.
    assert 60 <= claimed[small.job_id] <= 140
    assert all(claimed[job.job_id] > 0 for job in large)


def test_a_small_job_does_not_wait_behind_a_large_one(shop: Shop) -> None:
    shop.processing(make_chunk(2000))
    small = shop.processing(make_chunk(10), consensus_threshold=2)
    claims = 0
    while shop.job(small).status != "completed":
        shop.answer(shop.annotator(), "cat", 10)
        claims += 1
        # Two of them have to go to it, and each does with a probability of a half.
        assert claims < 40


def test_tasks_are_handed_out_while_the_manifest_is_still_being_read(shop: Shop) -> None:
    shop.processing(make_chunk(2), ingested=False)
    assert len(shop.claim(shop.annotator())) == 2


def test_nothing_of_a_failed_job_is_handed_out(shop: Shop) -> None:
    job = shop.processing(make_chunk(4), ingested=False)
    shop.claim(shop.annotator(), 2)
    shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    assert shop.claim(shop.annotator()) == []


def test_where_there_is_nothing_to_do_a_claim_is_empty(shop: Shop) -> None:
    shop.submit()
    assert shop.claim(shop.annotator()) == []


# Lanes


def test_each_annotator_passes_over_the_tasks_in_order(shop: Shop) -> None:
    job = shop.processing(make_chunk(9), make_chunk(9, start=10_000), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    taken: dict[int, list[str]] = {one: [], two: [], three: []}
    for annotator in (one, two, three, two, one, three, three, one, two, one, three, two):
        taken[annotator] += ids(shop.claim(annotator, 4))
        check_books(shop, job)
    for tasks in taken.values():
        assert tasks == sorted(tasks, key=shop.find_task)
    counted = Counter(itertools.chain.from_iterable(taken.values()))
    assert len(counted) == 18
    assert set(counted.values()) == {2}


def test_who_works_alone_comes_to_an_end_and_others_follow(shop: Shop) -> None:
    job = shop.processing(make_chunk(50), make_chunk(50, start=10_000), consensus_threshold=3)
    people = shop.annotators(4)
    for annotator, expected in zip(people, (100, 100, 100, 0), strict=True):
        labelled = 0
        while outcomes := shop.answer(annotator, "cat", 7):
            labelled += len(outcomes)
        assert labelled == expected
        check_books(shop, job)
    assert shop.job(job).status == "completed"
    assert shop.run("select * from lanes") == []


def test_tasks_that_ended_early_are_passed_over_in_many_at_a_time(shop: Shop) -> None:
    job = shop.processing(make_chunk(3000), consensus_threshold=3, stop_early=True)
    one, two, three = shop.annotators(3)
    for annotator in (one, two):
        while tasks := shop.claim(annotator, 500):
            shop.label(annotator, *((task.task_id, "cat") for task in tasks[:-1]))
            shop.label(annotator, (tasks[-1].task_id, "cat" if annotator == one else "dog"))
    assert len(ids(shop.claim(three, 1))) == 1
    check_books(shop, job)
    assert len(ids(shop.claim(three, 100))) == 5
    check_books(shop, job)


# Vacancies


def test_what_somebody_let_go_of_goes_to_others_first(shop: Shop) -> None:
    job = shop.processing(make_chunk(4), consensus_threshold=2)
    one, two = shop.annotators(2)
    tasks = ids(shop.claim(one, 3))
    assert shop.release(one, tasks[0], tasks[2]) == {tasks[0], tasks[2]}
    check_books(shop, job)
    assert ids(shop.claim(one, 9)) == [job.task_id(3)]
    assert sorted(ids(shop.claim(two, 2))) == sorted((tasks[0], tasks[2]))
    check_books(shop, job)


def test_who_has_nothing_else_to_do_gets_back_what_he_let_go_of(shop: Shop) -> None:
    job = shop.processing(make_chunk(3), consensus_threshold=2)
    annotator = shop.annotator()
    tasks = ids(shop.claim(annotator))
    shop.release(annotator, *tasks[:2])
    assert ids(shop.claim(annotator)) == tasks[:2]
    assert shop.claim(annotator) == []
    check_books(shop, job)


def test_only_what_one_holds_can_be_released(shop: Shop) -> None:
    job = shop.processing(make_chunk(4), consensus_threshold=2)
    one, two = shop.annotators(2)
    tasks = ids(shop.claim(one, 3))
    shop.label(one, (tasks[0], "cat"))
    fresh = job.task_id(3)
    assert shop.release(two, tasks[1]) == set()
    assert shop.release(one, tasks[0], fresh, "rubbish", f"{new_id('tsk')}0", tasks[1]) == {
        tasks[1]
    }
    assert shop.release(one, tasks[1], tasks[2], tasks[2]) == {tasks[2]}
    assert shop.run("select * from leases") == []
    check_books(shop, job)


def test_what_is_handed_back_of_a_job_that_has_ended_is_nobodys(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), ingested=False)
    annotator = shop.annotator()
    tasks = ids(shop.claim(annotator))
    shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    assert shop.release(annotator, *tasks) == set(tasks)
    assert shop.run("select * from vacancies") == []


def test_who_has_moved_a_lane_and_got_nothing_waits_for_no_other(shop: Shop) -> None:
    # It would deadlock with a batch of inline tasks, which holds one job and comes to the other.
    over = shop.processing(
        make_chunk(1), consensus_threshold=3, stop_early=True, ingested=False, priority=9
    )
    held = shop.processing(make_chunk(1))
    for annotator in shop.annotators(2):
        shop.answer(annotator, "cat", 1)
    late = shop.annotator()
    with shop.held() as tx:
        tx.execute("select from lanes where job_no = %s for update", [held.job_no])
        assert shop.value("select count(*) from lanes where job_no = %s", over.job_no) == 1
        claiming = Side(lambda: shop.claim(late))
        assert claiming.join() == []
    assert len(shop.claim(late)) == 1


def test_a_late_label_takes_the_place_that_had_become_vacant(shop: Shop) -> None:
    # One's lease runs out, and one labels all the same: the vacancy is nobody's any more.
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    (task,) = ids(shop.claim(one))
    shop.claim(two)
    shop.run("update leases set expires_at = now() - interval '1 s' where annotator_no = %s", one)
    shop.claim(two)  # sweeps
    assert shop.label(one, (task, "cat")) == ["accepted"]
    check_books(shop, job)
    assert shop.claim(three) == []
    check_books(shop, job)
    assert shop.run("select * from vacancies") == []


def test_nobody_more_is_asked_while_a_late_label_leaves_one_holder_too_many(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    one, two, three, four, five = shop.annotators(5)
    (task,) = ids(shop.claim(one))
    shop.claim(two)
    shop.run("update leases set expires_at = now() - interval '1 s' where annotator_no = %s", one)
    assert len(shop.claim(three)) == 1
    assert shop.label(one, (task, "cat")) == ["accepted"]  # two and three hold it, one is needed
    shop.run("update leases set expires_at = now() - interval '1 s' where annotator_no = %s", two)
    assert shop.claim(four) == []
    check_books(shop, job)
    assert shop.label(three, (task, "dog")) == ["accepted"]
    assert len(shop.claim(four)) == 1
    assert shop.claim(five) == []
    check_books(shop, job)


def test_a_label_without_a_claim_takes_a_place(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=3)
    one, two, three, four = shop.annotators(4)
    (task,) = ids(shop.claim(one))
    assert shop.label(two, (task, "dog")) == ["accepted"]
    check_books(shop, job)
    assert shop.claim(two) == []
    assert len(shop.claim(three)) == 1
    assert shop.claim(four) == []
    check_books(shop, job)


def test_among_more_vacancies_than_a_claim_looks_at_the_right_one_is_found(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation, "_VACANCIES_MAX", 5)
    job = shop.processing(make_chunk(40), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    shop.answer(one, "cat")
    tasks = ids(shop.claim(two))
    shop.label(two, *((task, "dog") for task in tasks[:30]))
    shop.release(two, tasks[35])  # behind thirty ties, that are for neither of the two
    (claimed,) = shop.claim(three, 1)
    shop.release(three, claimed.task_id)
    found = next(filter(None, (shop.claim(two) for _ in range(500))))
    assert ids(found) == [tasks[35]]
    check_books(shop, job)


# Labels


def test_each_label_has_one_outcome_of_the_closed_list(shop: Shop) -> None:
    shop.processing(make_chunk(6), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    tasks = ids(shop.claim(one))
    shop.claim(two)
    shop.label(one, (tasks[0], "cat"), (tasks[1], "cat"), (tasks[2], "cat"))
    shop.label(two, (tasks[2], "cat"))
    assert shop.label(
        two,
        (tasks[0], "cat"),
        (tasks[1], "dog"),
        (tasks[2], "cat"),
        (tasks[3], "Cat"),
        (new_id("tsk") + "0", "cat"),
        ("rubbish", "cat"),
        ("", "cat"),
    ) == [
        "settled", "accepted", "duplicate", "unknown_option", "unknown_task", "unknown_task",
        "unknown_task",
    ]  # fmt: skip
    assert shop.label(three, (tasks[0], "cat"), (tasks[0], "no such option")) == [
        "already_settled",
        "unknown_option",
    ]


def test_of_two_labels_for_one_task_in_a_batch_the_first_counts(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), consensus_threshold=2)
    annotator = shop.annotator()
    one, two = ids(shop.claim(annotator))
    outcomes = shop.label(annotator, (one, "dog"), (two, "cat"), (one, "cat"), (one, "dog"))
    assert outcomes == ["accepted", "accepted", "duplicate", "duplicate"]
    assert shop.value("select option from labels where task_no = 0") == 2
    check_books(shop, job)


def test_a_wrong_option_in_a_batch_does_not_spoil_the_right_one_after_it(shop: Shop) -> None:
    shop.processing(make_chunk(1), consensus_threshold=2)
    annotator = shop.annotator()
    (task,) = ids(shop.claim(annotator))
    assert shop.label(annotator, (task, "cow"), (task, "cat")) == ["unknown_option", "accepted"]


def test_a_label_cannot_be_changed(shop: Shop) -> None:
    job = shop.processing(make_chunk(1))
    annotator = shop.annotator()
    (task,) = ids(shop.claim(annotator))
    shop.label(annotator, (task, "cat"))
    assert shop.label(annotator, (task, "dog")) == ["duplicate"]
    assert shop.run("select option from labels") == [{"option": 1}]
    check_books(shop, job)


def test_a_batch_may_hold_labels_for_several_jobs(shop: Shop) -> None:
    made = [shop.processing(make_chunk(3), consensus_threshold=2) for _ in range(3)]
    for option in ("cat", "cat"):
        outcomes = shop.answer(shop.annotator(), option)
        assert len(outcomes) == 9
    assert {shop.job(job).status for job in made} == {"completed"}
    for job in made:
        check_books(shop, job)


def test_an_empty_batch_has_no_outcomes(shop: Shop) -> None:
    assert shop.label(shop.annotator()) == []


def test_a_task_that_nobody_was_handed_takes_no_label(shop: Shop) -> None:
    job = shop.processing(make_chunk(1))
    assert shop.label(shop.annotator(), (job.task_id(0), "cat")) == ["unknown_task"]
    assert shop.value("select count(*) from labels") == 0


def test_a_line_that_is_no_task_takes_no_label(shop: Shop) -> None:
    job = shop.processing(make_chunk(1, bad=1))
    shop.claim(shop.annotator())
    numbers = 1, task_no(1, 0), task_no(2**20, 0), 10**17
    labels = [(job.task_id(number), "cat") for number in numbers]
    assert shop.label(shop.annotator(), *labels) == ["unknown_task"] * 4


def test_labels_for_a_failed_job_are_refused(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), ingested=False)
    annotator = shop.annotator()
    (task,) = ids(shop.claim(annotator))
    shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    assert shop.label(annotator, (task, "cat")) == ["already_settled"]
    assert shop.value("select count(*) from labels") == 0


def test_a_large_batch_is_taken_as_a_whole(shop: Shop) -> None:
    job = shop.processing(make_chunk(500), consensus_threshold=2)
    assert shop.answer(shop.annotator(), "cat", 500) == ["accepted"] * 500
    assert shop.answer(shop.annotator(), "cat", 500) == ["settled"] * 500
    assert shop.job(job).status == "completed"
    check_books(shop, job)


# Consensus


def vectors(options: int, total: int) -> list[tuple[int, ...]]:
    """All votes of up to `total` labels over that many options."""
    return [v for v in itertools.product(range(total + 1), repeat=options) if sum(v) <= total]


def test_the_rule_in_sql_is_the_rule_in_python(shop: Shop) -> None:
    cases = [
        (list(votes), threshold, stop_early)
        for options, total in ((2, 20), (3, 9), (4, 6))
        for votes in vectors(options, total)
        for threshold in range(1, 11)
        for stop_early in (False, True)
    ]
    dice = random.Random(5)
    for _ in range(2000):
        votes = [dice.choice((0, 0, 0, 1, 2, 5, 9)) for _ in range(dice.randint(2, 100))]
        cases.append((votes, dice.randint(1, 10), dice.random() < 0.5))
    query = """
        select n, task_outcome(
            array(select jsonb_array_elements_text(c.v)::smallint), c.t::smallint, c.s) as outcome
        from unnest(%s::jsonb[], %s::int[], %s::bool[]) with ordinality as c (v, t, s, n) order by n
    """
    votes_json = [str(votes) for votes, _, _ in cases]
    columns = [threshold for _, threshold, _ in cases], [stop_early for _, _, stop_early in cases]
    rows = shop.run(query, votes_json, *columns)
    assert len(rows) == len(cases) > 10_000
    for row, (votes, threshold, stop_early) in zip(rows, cases, strict=True):
        expected = majority_outcome(votes, threshold, stop_early=stop_early)
        assert row["outcome"] == expected, (votes, threshold)


def vote(shop: Shop, options: Sequence[str]) -> list[str]:
    """One label after the other on the one open task; the outcomes."""
    outcomes: list[str] = []
    for option in options:
        annotator = shop.annotator()
        (task,) = shop.claim(annotator)
        outcomes += shop.label(annotator, (task.task_id, option))
    return outcomes


@pytest.mark.parametrize(
    "threshold, votes",
    [
        (1, ["dog"]),
        (2, ["cat", "cat"]),
        (2, ["cat", "dog", "dog"]),
        (3, ["cat", "dog", "cat"]),
        (3, ["cat", "dog", "fox", "fox"]),
        (5, ["cat", "cat", "dog", "dog", "cat"]),
        (5, ["cat", "cat", "dog", "dog", "fox", "dog"]),
        (4, ["cat", "cat", "dog", "dog", "fox", "fox", "fox"]),
    ],
)
def test_a_task_settles_at_the_first_label_that_decides(
    shop: Shop, threshold: int, votes: list[str]
) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=threshold)
    assert vote(shop, votes) == ["accepted"] * (len(votes) - 1) + ["settled"]
    assert OPTIONS[shop.value("select outcome from tallies") - 1] == votes[-1]
    assert shop.job(job).status == "completed"
    check_books(shop, job)


def test_after_the_threshold_annotators_are_asked_one_at_a_time(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=3)
    for option in ("cat", "dog", "fox"):
        shop.answer(shop.annotator(), option)
    fourth, fifth = shop.annotators(2)
    assert len(shop.claim(fourth)) == 1
    assert shop.claim(fifth) == []
    check_books(shop, job)
    shop.expire_leases()
    assert len(shop.claim(fifth)) == 1
    assert shop.claim(fourth) == []
    check_books(shop, job)


def test_a_task_without_a_winner_fails_after_twice_the_threshold(shop: Shop) -> None:
    options = ["cat", "dog", "fox", "owl"]
    job = shop.processing(make_chunk(1), consensus_threshold=4, options=options)
    outcomes = vote(shop, options * 2)
    assert outcomes == ["accepted"] * 8
    assert shop.run("select outcome, votes from tallies") == [{"outcome": 0, "votes": [2, 2, 2, 2]}]
    ended = shop.job(job)
    assert (ended.status, ended.tasks_done, ended.tasks_failed) == ("completed", 0, 1)
    assert shop.claim(shop.annotator()) == []
    check_books(shop, job)


def test_the_last_label_can_still_decide(shop: Shop) -> None:
    options = ["cat", "dog", "fox"]
    job = shop.processing(make_chunk(1), consensus_threshold=4, options=options)
    assert vote(shop, ["cat", "cat", "dog", "dog", "fox", "fox", "cat"])[-1] == "settled"
    check_books(shop, job)


def test_stop_early_settles_on_a_majority_of_the_threshold(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=5, stop_early=True)
    assert vote(shop, ["cat", "cat", "cat"]) == ["accepted", "accepted", "settled"]
    assert shop.job(job).status == "completed"
    check_books(shop, job)


def test_without_stop_early_all_wanted_labels_are_collected(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=5)
    assert vote(shop, ["cat"] * 5) == ["accepted"] * 4 + ["settled"]
    check_books(shop, job)


def test_a_task_that_settled_without_its_holder_does_not_come_back(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), consensus_threshold=3, stop_early=True)
    one, two, three = shop.annotators(3)
    task, other = ids(shop.claim(one))
    shop.claim(two)
    shop.claim(three)
    shop.label(one, (task, "cat"))
    assert shop.label(two, (task, "cat")) == ["settled"]
    check_books(shop, job)
    shop.expire_leases()
    assert ids(shop.claim(shop.annotator())) == [other]
    check_books(shop, job)


def test_a_label_takes_its_task_off_the_lease_whatever_becomes_of_it(shop: Shop) -> None:
    job = shop.processing(make_chunk(3), consensus_threshold=3, stop_early=True)
    one, two, three = shop.annotators(3)
    tasks = ids(shop.claim(one))
    shop.claim(two)
    shop.claim(three)
    for annotator in (one, two):
        shop.label(annotator, (tasks[0], "cat"))
    assert shop.label(three, (tasks[0], "cat"), (tasks[1], "cow")) == [
        "already_settled",
        "unknown_option",
    ]
    held = "select task_nos from leases where annotator_no = %s"
    assert shop.value(held, three) == [1, 2]
    shop.label(three, (tasks[1], "cat"), (tasks[2], "cat"))
    assert shop.run(held, three) == []
    check_books(shop, job)


# Races


def sweep(shop: Shop) -> None:
    """Let every lease run out; then none is left, of whatever became of its task."""
    shop.expire_leases()
    for _ in range(10):
        shop.claim(shop.annotator(), job_id=new_id("job"))
    assert shop.run("select * from leases") == []


def test_a_claim_beside_the_deciding_label_leaves_no_lease_behind(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=5, stop_early=True)
    people = shop.annotators(4)
    for annotator in people[:2]:
        shop.answer(annotator, "cat")
    (task,) = shop.claim(people[2])
    with shop.held() as tx:
        assert annotation.claim(tx, people[3], limit=1, lease_s=600)
        deciding = Side(lambda: shop.label(people[2], (task.task_id, "cat")))
        shop.wait_for_waiters(1)
    assert deciding.join() == ["settled"]
    sweep(shop)
    check_books(shop, job)


def test_a_claim_beside_a_label_of_the_same_annotator_loses_no_place(shop: Shop) -> None:
    """They label a task that they do not hold, and are handed it at the same moment."""
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    (task,) = ids(shop.claim(one))
    with shop.held() as tx:
        assert labelling.submit(tx, two, [labelling.Label(task, "cat")]) == ["accepted"]
        assert ids(shop.claim(two)) == [task]
    assert shop.label(two, (task, "cat")) == ["duplicate"]
    check_books(shop, job)
    shop.release(one, task)
    assert ids(shop.claim(three)) == [task]
    check_books(shop, job)


def test_two_labels_of_one_annotator_for_one_task_at_once_lose_no_place(shop: Shop) -> None:
    """The first comes late and is not committed when they claim the task again, and label it again."""
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    one, two = shop.annotators(2)
    (task,) = ids(shop.claim(one))
    shop.expire_leases()
    shop.do(lease_returns.return_leases, limit=1)
    with shop.held() as tx:
        assert labelling.submit(tx, one, [labelling.Label(task, "cat")]) == ["accepted"]
        assert ids(shop.claim(one)) == [task]
        again = Side(lambda: shop.label(one, (task, "cat")))
        shop.wait_for_waiters(1)
    assert again.join() == ["duplicate"]
    check_books(shop, job)
    assert shop.answer(two, "cat") == ["settled"]
    check_books(shop, job)


def test_leases_expire_however_many_there_are(shop: Shop) -> None:
    shop.processing(make_chunk(250), consensus_threshold=2)
    one, two, three = shop.annotators(3)
    for annotator in (one, two):
        while shop.claim(annotator, 1):
            pass
    assert shop.claim(three) == []
    shop.expire_leases()
    found = [ids(shop.claim(three, 100)) for _ in range(5)]
    assert len(set(itertools.chain.from_iterable(found))) == 250


def test_a_claim_beside_the_failure_of_its_job_leaves_no_open_task_behind(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), ingested=False)
    with shop.held() as tx:
        assert annotation.claim(tx, shop.annotator(), limit=2, lease_s=600)
        failing = Side(lambda: shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed."))
        # Either the failure waits for the claim, or it does not see what the claim opens.
        failing.wait(0.5)
    failing.join()
    sweep(shop)
    assert shop.run("select * from lanes") == []


def test_a_job_that_fails_beside_the_last_label_of_a_chunk_is_no_deadlock(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2, ingested=False)
    shop.answer(shop.annotator(), "cat")
    annotator = shop.annotator()
    (task,) = shop.claim(annotator)
    with shop.held() as tx:  # a chunk being committed: it holds the job
        assert chunks.commit(tx, job.job_no, 1, make_chunk(1, start=1000), None)
        failing = Side(lambda: shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed."))
        shop.wait_for_waiters(1)
        labelling = Side(lambda: shop.label(annotator, (task.task_id, "cat")))
        shop.wait_for_waiters(2)
    failing.join()
    labelling.join()
    assert shop.job(job).status == "failed"


def test_a_claim_passes_over_what_others_are_just_taking_if_it_finds_something_else(
    shop: Shop,
) -> None:
    held = shop.processing(make_chunk(3), priority=1)
    free = shop.processing(make_chunk(3), priority=9)
    with shop.held() as tx:
        assert annotation.claim(tx, shop.annotator(), limit=1, lease_s=600, job_id=held.job_id)
        claimed = shop.claim(shop.annotator(), 6)
    assert {task.job.job_id for task in claimed} == {free.job_id}


def test_a_claim_waits_for_others_rather_than_come_back_empty(shop: Shop) -> None:
    shop.processing(make_chunk(3))
    with shop.held() as tx:
        assert annotation.claim(tx, shop.annotator(), limit=1, lease_s=600)
        annotator = shop.annotator()
        waiting = Side(lambda: shop.claim(annotator, 6))
        shop.wait_for_waiters(1)
    assert len(waiting.join()) == 3


def test_claims_of_one_annotator_at_once_never_give_him_a_task_twice(shop: Shop) -> None:
    for _ in range(10):
        job = shop.processing(make_chunk(30), make_chunk(30, start=10_000))
        annotator = shop.annotator()
        shop.claim(shop.annotator(), 20, job_id=job.job_id)
        shop.expire_leases()
        claimed = at_once(*[lambda who=annotator: ids(shop.claim(who, 15))] * 5)
        tasks = list(itertools.chain.from_iterable(claimed))
        assert len(tasks) == len(set(tasks))
        check_books(shop, job)


def test_two_last_batches_at_once_end_the_job(shop: Shop) -> None:
    for _ in range(25):
        job = shop.processing(make_chunk(2), make_chunk(2, start=1000), consensus_threshold=2)
        one, two = shop.annotators(2)
        mine, others = ids(shop.claim(one))[:2], ids(shop.claim(two))[2:]
        shop.label(one, *((task, "cat") for task in others))
        shop.label(two, *((task, "cat") for task in mine))
        at_once(
            partial(shop.label, one, *((task, "cat") for task in mine)),
            partial(shop.label, two, *((task, "cat") for task in others)),
        )
        assert shop.job(job).status == "completed"


def test_two_deciding_labels_for_the_same_tasks_at_once_end_the_job_once(shop: Shop) -> None:
    for _ in range(12):
        job = shop.processing(
            make_chunk(3), consensus_threshold=3, stop_early=True, delivery=DELIVERY
        )
        people = shop.annotators(3)
        tasks = [ids(shop.claim(annotator)) for annotator in people].pop()
        shop.label(people[0], *((task, "cat") for task in tasks))
        outcomes = at_once(
            *[
                lambda who=who, tasks=tasks: shop.label(who, *((task, "cat") for task in tasks))
                for who in people[1:]
            ]
        )
        assert sorted(outcomes) == [["already_settled"] * 3, ["settled"] * 3]
        assert shop.job(job).delivery_status == "pending"
        assert shop.runs(job) == ["deliver_job"]
        check_books(shop, job)


def test_the_last_label_and_the_end_of_the_manifest_at_once_end_the_job(shop: Shop) -> None:
    for _ in range(25):
        job = shop.processing(make_chunk(1), consensus_threshold=2, ingested=False)
        shop.answer(shop.annotator(), "cat")
        annotator = shop.annotator()
        (task,) = shop.claim(annotator)
        at_once(
            partial(shop.label, annotator, (task.task_id, "cat")),
            partial(shop.do, jobs.finish_ingestion, job.job_no),
        )
        assert shop.job(job).status == "completed"


class Crowd:
    """Annotators who do at random what annotators do, until the jobs are done."""

    def __init__(self, shop: Shop, made: Sequence[Job]) -> None:
        self.shop = shop
        self.made = made
        self.settled: Counter[str] = Counter()
        self.lock = threading.Lock()

    def done(self, labels: int) -> bool:
        query = "select count(*) from labels"
        if self.shop.value(query) >= labels:
            return True
        query = "select count(*) from jobs where status <> 'completed'"
        return bool(self.shop.value(query) == 0)

    def work(self, annotator: int, seed: int, enough: int) -> None:
        """Until there are `enough` labels."""
        dice = random.Random(seed)
        while not self.done(enough):
            tasks = ids(self.shop.claim(annotator, dice.choice([1, 5, 40])))
            labels = [(task, dice.choice(OPTIONS)) for task in tasks if dice.random() < 0.8]
            if dice.random() < 0.2:
                self.shop.release(annotator, *dice.sample(tasks, len(tasks) // 2))
            dice.shuffle(labels)
            labels += labels[: dice.randint(0, 2)]
            outcomes = self.shop.label(annotator, *labels)
            with self.lock:
                self.settled.update(
                    task
                    for (task, _), outcome in zip(labels, outcomes, strict=True)
                    if outcome == "settled"
                )
            if dice.random() < 0.3 or not tasks:
                self.shop.run(
                    "update leases set expires_at = now() - interval '1 s' where annotator_no = %s",
                    annotator,
                )


@pytest.mark.parametrize("stop_early", [False, True])
def test_a_crowd_at_work_leaves_the_books_in_order(shop: Shop, stop_early: bool) -> None:
    made = [
        shop.processing(
            make_chunk(20), make_chunk(20, start=10_000),
            consensus_threshold=threshold, stop_early=stop_early, priority=threshold,
        )
        for threshold in (2, 5)
    ]  # fmt: skip
    # More than twice the threshold: enough for every task to end whoever abandons it.
    crowd = Crowd(shop, made)
    people = shop.annotators(12)
    for labels in (20, 60, 120, 10**9):
        at_once(*[partial(crowd.work, who, who + labels, labels) for who in people])
        for job in made:
            check_books(shop, job)
    sweep(shop)
    for job in made:
        ended = shop.job(job)
        assert ended.tasks_done + ended.tasks_failed == ended.total_tasks == 40
        check_books(shop, job)
    assert max(crowd.settled.values()) == 1
    assert len(crowd.settled) == shop.value("select count(*) from tallies where outcome > 0")


def test_a_deadlock_would_be_seen_by_these_tests(shop: Shop) -> None:
    one, two = (shop.processing(make_chunk(1)) for _ in range(2))
    barrier = threading.Barrier(2)

    def lock(first: Job, second: Job) -> None:
        with shop.held() as tx:
            tx.execute("select from jobs where job_no = %s for update", [first.job_no])
            barrier.wait(10)
            tx.execute("select from jobs where job_no = %s for update", [second.job_no])

    with pytest.raises(Transient, match="deadlock"):
        at_once(lambda: lock(one, two), lambda: lock(two, one))
