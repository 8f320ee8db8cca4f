"""Labels are weighed by skill, gold measures it, and who is excluded counts no more, in the store."""

import random
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest

from blocks.domain import consensus
from blocks.domain.ids import task_no
from blocks.domain.model import JobStatus, SkipReason
from blocks.store import annotation, exclusions, lease_returns, skills, waits
from blocks.store.jobs import Job
from blocks.store.label_changes import Replacement, Skip, Withdrawal
from blocks.store.labelling import Label
from tests.support.books import check_books
from tests.support.store_shop import OPTIONS, WEIGHTED_RULE, LastingShop, Shop, make_chunk

pytestmark = pytest.mark.integration


def make_job(shop: Shop, count: int, gold: dict[int, int] | None = None, **changes: Any) -> Job:
    return shop.processing(make_chunk(count, gold=gold or {}), **WEIGHTED_RULE | changes)


def know(shop: Shop, job: Job, annotator: int, right: int, seen: int) -> None:
    """Have an annotator be right on so many gold tasks of earlier jobs."""
    shop.run(
        "insert into job_annotators (job_no, annotator_no, earlier_gold_right, earlier_gold_seen, "
        "earlier_agreed, earlier_compared) values (%s, %s, %s, %s, %s, %s)",
        *(job.job_no, annotator, right, seen, right, seen),
    )


# The rules stand twice, and are the same


@pytest.mark.parametrize("options", [2, 3, 10, 100])
def test_weights_are_those_of_the_reference(shop: Shop, options: int) -> None:
    found = shop.value(
        "select array_agg(label_weight(p::smallint, %s) order by p) from generate_series(0, 9900, 7) p",
        options,
    )
    assert found == [consensus.weight(skill, options) for skill in range(0, 9901, 7)]


def test_skills_are_those_of_the_reference(shop: Shop) -> None:
    query = """
        select array_agg(skill(%s, a, n, a, n) order by n, a)
        from generate_series(0, 120) n cross join lateral generate_series(0, n) a
    """
    pairs = [(a, n) for n in range(121) for a in range(n + 1)]
    gold, agreement = (shop.value(query, has_gold) for has_gold in (True, False))
    assert gold == [consensus.gold_skill(*pair) for pair in pairs]
    assert agreement == [consensus.agreement_skill(*pair) for pair in pairs]


def test_confidence_and_outcomes_are_those_of_the_reference(lasting_shop: LastingShop) -> None:
    rng = random.Random(5)
    rows = []
    for _ in range(1000):
        options, labels = rng.choice([2, 3, 10, 100]), rng.randrange(21)
        scores = [0] * options
        for _ in range(labels):
            scores[rng.randrange(options)] += consensus.weight(rng.randrange(9901), options)
        least = rng.randint(1, 10)
        rows.append((scores, labels, least, rng.randint(least, 20), rng.randint(5001, 9999)))
    query = """
        select confidence_of(scores, likeliest(scores)) as c,
               weighted_outcome(scores, %s, %s::smallint, %s::smallint, %s::smallint) as o
        from (select %s::integer[] as scores) s
    """
    for scores, labels, least, most, target in rows:
        (row,) = lasting_shop.run(query, labels, least, most, target, scores)
        assert row["c"] == consensus.confidence(scores)
        assert row["o"] == consensus.weighted_outcome(
            scores, labels, labels_min=least, labels_max=most, target=target
        )


# Labels are weighed


def test_one_label_of_who_is_known_to_be_right_settles_a_task(shop: Shop) -> None:
    job = make_job(shop, 1)
    sure, unsure = shop.annotators(2)
    know(shop, job, sure, 200, 200)
    assert shop.answer(unsure, "cat") == ["accepted"]
    assert shop.answer(sure, "dog") == ["settled"]
    check_books(shop, job)
    assert shop.value("select outcome from tallies") == OPTIONS.index("dog") + 1
    assert shop.job(job).status == JobStatus.COMPLETED
    assert shop.value("select array_agg(skill order by created_at) from labels") == [8000, 9900]


def test_a_task_asks_for_one_more_label_until_there_are_enough(shop: Shop) -> None:
    job = make_job(shop, 1, labels_max=4)
    people = shop.annotators(5)
    for annotator, option in zip(people[:4], ["cat", "dog", "cat", "dog"], strict=True):
        assert shop.answer(annotator, option) == ["accepted"]
        check_books(shop, job)
    assert shop.claim(people[4]) == []
    ended = shop.job(job)
    assert (ended.status, ended.tasks_failed) == (JobStatus.COMPLETED, 1)


def test_agreement_with_results_makes_the_next_labels_weigh_more(shop: Shop) -> None:
    job = make_job(shop, 40)
    one, two, three = shop.annotators(3)
    for annotator in (one, two, three):
        shop.answer(annotator, "cat")
    assert shop.do(skills.compare_some, limit=100) > 0
    assert shop.do(skills.compare_some, limit=100) == 0
    found = shop.run("select * from job_annotators where job_no = %s", job.job_no)
    labels = Counter(row["annotator_no"] for row in shop.run("select * from labels"))
    settled = shop.run("select annotators from tallies where outcome > 0")
    compared = Counter(who for row in settled for who in row["annotators"])
    assert {row["annotator_no"]: row["compared"] for row in found} == dict(compared)
    assert all(row["agreed"] == row["compared"] <= labels[row["annotator_no"]] for row in found)
    later = make_job(shop, 1)
    shop.answer(one, "cat")
    known = "select skill from labels where job_no = %s"
    assert shop.value(known, later.job_no) == consensus.agreement_skill(
        compared[one], compared[one]
    )


# Gold


def test_gold_is_settled_from_the_beginning_and_handed_to_as_many_as_come(shop: Shop) -> None:
    gold = dict.fromkeys(range(5, 200, 10), 2)
    job = shop.processing(make_chunk(200, gold=gold))
    assert shop.job(job).tasks_done == len(gold)
    for annotator in shop.annotators(3):
        shown: list[int] = []
        while tasks := shop.claim(annotator, 7):
            numbers = [shop.find_task(task.task_id)[1] for task in tasks]
            assert {type(task).__struct_fields__ for task in tasks} == {
                annotation.ClaimedTask.__struct_fields__
            }
            shown += numbers
            shop.label(annotator, *((task.task_id, "cat") for task in tasks))
        assert len(shown) == len(set(shown))
        known = [number for number in shown if number in gold]
        # At a tenth of 180 tasks and of what is gold among them, and the first ones early.
        assert 18 <= len(known) <= 20
        assert sum(number in gold for number in shown[:14]) >= 4
        check_books(shop, job)
    ended = shop.job(job)
    assert (ended.status, ended.tasks_done) == (JobStatus.COMPLETED, 200)


def test_nothing_but_gold_is_a_job_that_is_done(shop: Shop) -> None:
    job = shop.processing(make_chunk(3, gold={0: 1, 1: 2, 2: 3}))
    assert shop.job(job).status == JobStatus.COMPLETED
    assert shop.claim(shop.annotator()) == []


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_labels_of_gold_are_answered_like_those_of_other_tasks(shop: Shop, threshold: int) -> None:
    job = shop.processing(make_chunk(60, gold={30: 1}), consensus_threshold=threshold)
    id_ = job.task_id(30)
    people = shop.annotators(2 * threshold)
    for annotator in people:
        assert id_ in {task.task_id for task in shop.claim(annotator, 50)}
    told = [shop.label(annotator, (id_, "cat"))[0] for annotator in people]
    assert told == ["accepted"] * (threshold - 1) + ["settled"] + ["accepted"] * (threshold - 1) + [
        "settled"
    ]
    for annotator in people:
        assert shop.label(annotator, (id_, "dog")) == ["duplicate"]
        assert shop.enter(annotator, Replacement(id_, "dog")) == ["already_settled"]
        assert shop.enter(annotator, Withdrawal(id_)) == ["already_settled"]
    check_books(shop, job)


def test_withdrawals_of_no_label_do_not_tell_which_tasks_have_ended(shop: Shop) -> None:
    job = shop.processing(make_chunk(20, gold={5: 1, 15: 1}), consensus_threshold=1)
    worker, prober = shop.annotators(2)
    shop.answer(worker, "cat", limit=12)
    assert 10 <= shop.job(job).tasks_done < 20  # tasks that have ended, open ones, and gold
    told = shop.enter(prober, *(Withdrawal(job.task_id(n)) for n in range(20)))
    assert told == ["not_labelled"] * 20


def test_gold_takes_labels_of_those_only_who_were_handed_it(shop: Shop) -> None:
    job = shop.processing(make_chunk(3, gold={1: 1}), skips_max=1)
    first, second = shop.annotators(2)
    gold = job.task_id(1)
    assert gold in {task.task_id for task in shop.claim(first)}
    for entry in (Label(gold, "cat"), Skip(gold, SkipReason.BROKEN), Replacement(gold, "dog")):
        assert shop.enter(second, entry) == ["already_settled"]
    assert shop.label(second, (gold, "cat")) == ["already_settled"]
    shop.release(first, gold)
    assert shop.label(first, (gold, "cat")) == ["accepted"]
    check_books(shop, job)


def let_go_of(shop: Shop, annotator: int, ids: Collection[str], how: str) -> None:
    if how == "released":
        shop.release(annotator, *ids)
    elif how == "skipped":
        shop.enter(annotator, *(Skip(id_, SkipReason.UNCLEAR) for id_ in ids))
    elif how == "run out":
        shop.run("update leases set expires_at = now() - interval '1 second'")
        shop.do(lease_returns.return_leases, limit=1_000)
    else:
        shop.label(annotator, *((id_, "cat") for id_ in ids))
        shop.enter(annotator, *(Withdrawal(id_) for id_ in ids))


def claim_all(shop: Shop, annotator: int) -> set[str]:
    """What an annotator is given until nothing more comes."""
    found: set[str] = set()
    while tasks := {task.task_id for task in shop.claim(annotator, 12)}:
        found |= tasks
    return found


@pytest.mark.parametrize("how", ["released", "skipped", "run out", "withdrawn"])
def test_gold_that_somebody_lets_go_of_comes_back_as_other_tasks_do_and_to_nobody_else(
    shop: Shop, how: str
) -> None:
    gold = {task_no(0, n): 1 for n in range(0, 60, 6)}
    job = shop.processing(make_chunk(60, gold=gold), gold_share=2000, consensus_threshold=4)
    first, second = shop.annotators(2)
    ids = claim_all(shop, first)
    assert {shop.find_task(id_)[1] for id_ in ids} >= set(range(60)) - gold.keys()
    known = {id_ for id_ in ids if shop.find_task(id_)[1] in gold}
    assert len(known) >= 9
    let_go_of(shop, first, ids, how)
    query = "select count(*) from vacancies join gold_tasks using (job_no, task_no) where annotator_no = %s"
    let_go = shop.value(query, first)
    others = claim_all(shop, second)
    given = shop.value("select gold_given from job_annotators where annotator_no = %s", second)
    assert sum(shop.find_task(id_)[1] in gold for id_ in others) == given
    assert shop.value(query, first) == let_go
    let_go_of(shop, second, others, "released")
    assert claim_all(shop, first) == (set() if how == "skipped" else ids)
    check_books(shop, job)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("said", ["label", "skip"])
def test_gold_that_others_have_labelled_since_looks_settled_as_another_task_would(
    shop: Shop, said: str, others: int
) -> None:
    """Of one task the first label settles it; so it is when somebody comes back to it."""
    job = shop.processing(make_chunk(20, gold={5: 1}), consensus_threshold=1)
    first, second = shop.annotators(2)
    gold, other = job.task_id(5), job.task_id(6)
    assert {gold, other} <= {task.task_id for task in shop.claim(first)}
    shop.release(first, gold, other)
    if others:
        shop.claim(second)
        shop.label(second, (gold, "cat"), (other, "cat"))
    told = [
        shop.enter(first, Label(id_, "cat") if said == "label" else Skip(id_, SkipReason.UNCLEAR))
        for id_ in (gold, other)
    ]
    assert told[0] == told[1]
    assert (told[0] == ["already_settled"]) == bool(others)
    check_books(shop, job)


@pytest.mark.parametrize("skippers", [1, 2])
def test_gold_looks_failed_to_those_whose_skips_would_have_failed_another_task(
    shop: Shop, skippers: int
) -> None:
    job = shop.processing(make_chunk(20, gold={5: 1}), consensus_threshold=3, skips_max=skippers)
    gold, other = job.task_id(5), job.task_id(6)
    people = shop.annotators(skippers)
    for annotator in people:
        shop.claim(annotator)
    for annotator in people:
        entries = [Skip(gold, SkipReason.BROKEN), Skip(other, SkipReason.BROKEN)]
        assert shop.enter(annotator, *entries) == ["skipped"] * 2
    for annotator in people:
        for id_ in (gold, other):
            assert shop.label(annotator, (id_, "cat")) == ["already_settled"]
    check_books(shop, job)


@pytest.mark.parametrize("share, told", [(10_000, "accepted"), (None, "settled")])
def test_gold_of_a_job_with_reviews_is_answered_as_what_is_reviewed(
    shop: Shop, share: int | None, told: str
) -> None:
    changes: dict[str, Any] = {"review_share": share, "review_no_consensus": True}
    job = shop.processing(make_chunk(20, gold={5: 1}), consensus_threshold=1, **changes)
    annotator = shop.annotator()
    ids = [task.task_id for task in shop.claim(annotator)]
    assert job.task_id(5) in ids
    assert set(shop.label(annotator, *((id_, "cat") for id_ in ids))) == {told}


def test_a_label_that_no_other_agrees_with_does_not_settle_gold_either(shop: Shop) -> None:
    job = shop.processing(make_chunk(20, gold={5: 1}), consensus_threshold=2)
    gold, other = job.task_id(5), job.task_id(6)
    for option in ("cat", "dog"):
        annotator = shop.annotator()
        shop.claim(annotator)
        assert shop.label(annotator, (gold, option), (other, option)) == ["accepted"] * 2


def test_nobody_is_given_gold_by_itself(shop: Shop) -> None:
    job = shop.processing(make_chunk(60, gold=dict.fromkeys(range(0, 60, 3), 1)))
    annotator = shop.annotator()
    held = claim_all(shop, annotator)
    numbers = [shop.find_task(id_)[1] for id_ in held]
    assert set(numbers) >= {n for n in range(60) if n % 3}
    one = next(id_ for id_ in held if shop.find_task(id_)[1] % 3)
    shop.release(annotator, one)
    assert [task.task_id for task in shop.claim(annotator)] == [one]
    check_books(shop, job)


def test_who_is_wrong_on_gold_gets_no_more(shop: Shop) -> None:
    gold = dict.fromkeys(range(0, 40, 2), 1)
    job = shop.processing(
        make_chunk(400, gold=gold), min_accuracy=5000, min_gold_seen=4, gold_share=5000
    )
    good, bad = shop.annotators(2)
    while tasks := shop.claim(bad, 4):
        told = shop.label(bad, *((task.task_id, "dog") for task in tasks))
        assert set(told) <= {"accepted", "settled"}
    (row,) = shop.run("select * from job_annotators where annotator_no = %s", bad)
    assert row["excluded_at"]
    assert row["excluded_for"] == "min_accuracy"
    assert 4 <= row["gold_seen"] <= 8
    assert shop.value("select count(*) from leases where annotator_no = %s", bad) == 0
    assert shop.value("select count(*) from labels where annotator_no = %s", bad) > 4
    left = shop.claim(good, 4)
    assert shop.label(bad, (left[0].task_id, "dog")) == ["excluded"]
    assert shop.enter(bad, Replacement(left[0].task_id, "dog")) == ["excluded"]
    assert set(shop.label(good, *((task.task_id, "cat") for task in left))) <= {
        "accepted",
        "settled",
    }
    check_books(shop, job)


# Exclusion


def test_labels_that_are_set_aside_count_no_more(shop: Shop) -> None:
    job = shop.processing(make_chunk(6))
    bad, *others = shop.annotators(4)
    for annotator, said in [(bad, "dog"), (others[0], "dog"), (others[1], "cat")]:
        shop.answer(annotator, said, limit=4)
    assert shop.job(job).tasks_done == 4
    assert shop.do(exclusions.exclude, job.job_no, bad)
    assert shop.do(exclusions.exclude, job.job_no, bad)
    shop.set_aside()
    check_books(shop, job)
    found = shop.do(exclusions.get, job.job_no, bad)
    assert (found.labels_set_aside, found.tasks_reopened, found.is_under_way) == (4, 4, False)
    assert shop.job(job).tasks_done == 0
    assert shop.claim(bad) == []
    for annotator in others:
        shop.answer(annotator, "cat")
        check_books(shop, job)
    assert shop.job(job).status == JobStatus.COMPLETED
    assert not shop.do(exclusions.exclude, job.job_no, others[0])


def test_who_is_excluded_is_not_waited_for(shop: Shop) -> None:
    job = shop.processing(make_chunk(3), consensus_threshold=2)
    bad, good = shop.annotators(2)
    assert shop.do(waits.find_waits, [job]) == {}
    shop.answer(good, "cat")
    assert shop.do(exclusions.exclude, job.job_no, bad)
    shop.set_aside()
    found = shop.do(waits.find_waits, [job])[job.job_no]
    assert (found.what, found.annotators) == ("annotators", 1)
    shop.annotator()
    assert shop.do(waits.find_waits, [job]) == {}


def test_a_job_does_not_complete_while_labels_are_set_aside(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=1)
    extra = shop.processing(make_chunk(1), consensus_threshold=1)
    bad, good = shop.annotators(2)
    assert len(shop.claim(bad)) == 2
    assert shop.do(exclusions.exclude, job.job_no, bad)
    assert shop.answer(good, "cat") == ["settled"]
    assert shop.job(job).status == JobStatus.PROCESSING
    shop.set_aside()
    assert shop.job(job).status == JobStatus.COMPLETED
    assert shop.job(extra).status == JobStatus.PROCESSING
