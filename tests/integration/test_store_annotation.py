"""Annotators: who is handed what, what becomes of a label, and that no number drifts."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from blocks.errors import Transient
from blocks.ids import new_id, parse_task_id, task_id
from blocks.model import LabelOutcome, TaskType, decide, exhausted
from blocks.store import annotation, chunks, jobs
from blocks.store.annotation import ClaimedTask, Label
from blocks.store.jobs import Job
from tests.integration.conftest import DELIVERY, OPTIONS, Shop, Side, at_once, make_chunk

pytestmark = pytest.mark.integration


def ids(tasks: Sequence[ClaimedTask]) -> list[str]:
    return [task.task_id for task in tasks]


def check_books(shop: Shop, job: Job) -> None:
    """Everything that is counted or derived equals what the labels say."""
    votes: dict[int, Counter[int]] = {}
    for row in shop.run("select * from labels where job_no = %s order by created_at", job.job_no):
        votes.setdefault(row["byte_offset"], Counter())[row["option"]] += 1
    ended = {
        row["byte_offset"]: row
        for row in shop.run("select * from results where job_no = %s", job.job_no)
    }
    open_now = {
        row["byte_offset"]: row
        for row in shop.run("select * from open_tasks where job_no = %s", job.job_no)
    }
    assert not ended.keys() & open_now.keys()
    for offset, row in (ended | open_now).items():
        counted = [votes.get(offset, Counter())[n + 1] for n in range(len(job.options))]
        assert row["votes"] == counted
        assert row["labels"] == sum(counted)
    for offset in votes.keys() | ended.keys() | open_now.keys():
        check_task(job, votes.get(offset, Counter()), ended.get(offset))
    check_counters(shop, job)
    check_leases(shop, job, open_now)


def check_task(job: Job, votes: Counter[int], ended: dict[str, Any] | None) -> None:
    """A task ended if, and only if, the rule in Python says so of its labels."""
    counted = [votes[n + 1] for n in range(len(job.options))]
    winner = decide(counted, job.consensus_threshold, stop_early=job.stop_early)
    if ended is None:
        assert winner is None
        assert not exhausted(sum(counted), job.consensus_threshold)
    else:
        assert ended["consensus"] == (None if winner is None else winner + 1)
        assert winner is not None or exhausted(sum(counted), job.consensus_threshold)


def check_counters(shop: Shop, job: Job) -> None:
    query = """
        select c.chunk_no, c.tasks, c.settled, c.failed, c.fresh,
            count(t) as task_rows, count(r.consensus) as settled_rows,
            count(r.job_no) - count(r.consensus) as failed_rows,
            count(t) filter (where o.job_no is null and r.job_no is null) as fresh_rows
        from chunks c left join tasks t using (job_no, chunk_no)
        left join open_tasks o using (job_no, byte_offset)
        left join results r using (job_no, byte_offset)
        where c.job_no = %s group by c.job_no, c.chunk_no
    """
    for row in shop.run(query, job.job_no):
        for name, rows in (("tasks", "task_rows"), ("settled", "settled_rows")):
            assert row[name] == row[rows]
        assert row["failed"] == row["failed_rows"]
        assert row["fresh"] == row["fresh_rows"]


def check_leases(shop: Shop, job: Job, open_now: dict[int, dict[str, Any]]) -> None:
    """Whoever is counted on an open task has labelled it or holds it, and nobody else does."""
    involved: dict[int, list[int]] = {offset: [] for offset in open_now}
    for table in ("labels", "leases"):
        for row in shop.run(f"select * from {table} where job_no = %s", job.job_no):
            if table == "leases":
                assert row["byte_offset"] in open_now, "a lease on a task that is not open"
            if row["byte_offset"] in open_now:
                involved[row["byte_offset"]].append(row["annotator_no"])
    for offset, row in open_now.items():
        assert sorted(row["annotators"]) == sorted(involved[offset])
        assert len(row["annotators"]) <= row["wanted"]


# Claims


def test_a_claim_tells_what_an_annotator_needs(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), task_type=TaskType.SENTIMENT, question="Which animal?")
    (task,) = shop.claim(shop.annotator(), lease_s=60)
    assert task.task_id == task_id(job.job_id, 0)
    assert (task.data_url, task.metadata) == ("https://img.example.com/0.jpg", None)
    assert (task.task_type, task.question, task.options) == ("sentiment", "Which animal?", OPTIONS)
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
        task_id(job.job_id, start + n * 100) for start in (0, 10_000) for n in range(50)
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
    assert ids(claimed) == [task_id(wanted.job_id, n * 100) for n in range(3)]
    assert shop.claim(shop.annotator(), job_id=new_id("job")) == []


def test_a_claim_can_be_for_some_types_of_task(shop: Shop) -> None:
    for task_type in TaskType:
        shop.processing(make_chunk(2), task_type=task_type)
    shop.claim(shop.annotator(), 1)
    claimed = shop.claim(shop.annotator(), task_types=["sentiment", "moderation"])
    assert Counter(task.task_type for task in claimed) == {"sentiment": 2, "moderation": 2}


def test_fresh_tasks_of_a_job_with_higher_priority_come_first(shop: Shop) -> None:
    low, high, higher = (shop.processing(make_chunk(2), priority=n) for n in (1, 8, 9))
    claimed = ids(shop.claim(shop.annotator(), 5))
    assert claimed == [
        *(task_id(higher.job_id, n) for n in (0, 100)),
        *(task_id(high.job_id, n) for n in (0, 100)),
        task_id(low.job_id, 0),
    ]


def test_begun_tasks_of_a_job_with_higher_priority_come_first(shop: Shop) -> None:
    low, high = (shop.processing(make_chunk(2), priority=n) for n in (1, 8))
    shop.claim(shop.annotator())
    claimed = ids(shop.claim(shop.annotator(), 3))
    assert claimed == [
        *(task_id(high.job_id, n) for n in (0, 100)),
        task_id(low.job_id, 0),
    ]


def test_a_job_with_higher_priority_comes_first_even_if_a_lower_one_was_begun(shop: Shop) -> None:
    shop.processing(make_chunk(2), priority=0)
    shop.claim(shop.annotator())
    high = shop.processing(make_chunk(1), priority=9)
    assert ids(shop.claim(shop.annotator(), 1)) == [task_id(high.job_id, 0)]


def test_among_jobs_of_one_priority_the_oldest_comes_first(shop: Shop) -> None:
    older, newer = (shop.processing(make_chunk(2)) for _ in range(2))
    claimed = ids(shop.claim(shop.annotator(), 3))
    assert claimed == [
        *(task_id(older.job_id, n) for n in (0, 100)),
        task_id(newer.job_id, 0),
    ]


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
    assert shop.value("select option from labels where byte_offset = 0") == 2
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
    assert shop.label(shop.annotator(), (task_id(job.job_id, 0), "cat")) == ["unknown_task"]
    assert shop.value("select count(*) from labels") == 0


def test_a_line_that_is_no_task_takes_no_label(shop: Shop) -> None:
    job = shop.processing(make_chunk(1, bad=1))
    shop.claim(shop.annotator())
    labels = [(task_id(job.job_id, offset), "cat") for offset in (1, 100, 10**15)]
    assert shop.label(shop.annotator(), *labels) == ["unknown_task"] * 3


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
        for threshold in range(2, 11)
        for stop_early in (False, True)
    ]
    dice = random.Random(5)
    for _ in range(2000):
        votes = [dice.choice((0, 0, 0, 1, 2, 5, 9)) for _ in range(dice.randint(2, 100))]
        cases.append((votes, dice.randint(2, 10), dice.random() < 0.5))
    query = """
        select n, consensus_winner(
            array(select jsonb_array_elements_text(c.v)::smallint), c.t::smallint, c.s) as winner
        from unnest(%s::jsonb[], %s::int[], %s::bool[]) with ordinality as c (v, t, s, n) order by n
    """
    votes_json = [str(votes) for votes, _, _ in cases]
    columns = [threshold for _, threshold, _ in cases], [stop_early for _, _, stop_early in cases]
    rows = shop.run(query, votes_json, *columns)
    assert len(rows) == len(cases) > 10_000
    for row, (votes, threshold, stop_early) in zip(rows, cases, strict=True):
        winner = decide(votes, threshold, stop_early=stop_early)
        assert row["winner"] == (None if winner is None else winner + 1), (votes, threshold)


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
    (row,) = shop.run("select * from results")
    assert OPTIONS[row["consensus"] - 1] == votes[-1]
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
    (row,) = shop.run("select * from results")
    assert (row["consensus"], row["labels"], row["votes"]) == (None, 8, [2, 2, 2, 2])
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


def test_a_settled_task_takes_the_leases_of_others_with_it(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=3, stop_early=True)
    one, two, three = shop.annotators(3)
    (task,) = shop.claim(one)
    shop.claim(two)
    shop.claim(three)
    shop.label(one, (task.task_id, "cat"))
    assert shop.label(two, (task.task_id, "cat")) == ["settled"]
    assert shop.label(three, (task.task_id, "cat")) == ["already_settled"]
    assert shop.value("select count(*) from leases") == 0
    check_books(shop, job)


# Races


def sweep(shop: Shop) -> None:
    """Let every lease run out; then none is left, of whatever became of its task."""
    shop.expire_leases()
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


def test_leases_expire_however_many_there_are_of_ended_tasks(shop: Shop) -> None:
    shop.processing(make_chunk(1))
    (task,) = shop.claim(shop.annotator())
    shop.run(
        "insert into leases select job_no + 1000, n, 1, now() - interval '1 hour' "
        "from leases, generate_series(1, 3000) n"
    )
    shop.expire_leases()
    for annotator in shop.annotators(3):
        assert ids(shop.claim(annotator)) == [task.task_id]
    assert shop.claim(shop.annotator()) == []
    shop.run("update leases set expires_at = now() - interval '1 s' where job_no < 1000")
    assert ids(shop.claim(shop.annotator())) == [task.task_id]


def test_a_claim_beside_the_failure_of_its_job_leaves_no_open_task_behind(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), ingested=False)
    with shop.held() as tx:
        assert annotation.claim(tx, shop.annotator(), limit=2, lease_s=600)
        failing = Side(lambda: shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed."))
        # Either the failure waits for the claim, or it does not see what the claim opens.
        failing.wait(0.5)
    failing.join()
    sweep(shop)
    assert shop.run("select * from open_tasks") == []


def test_a_job_that_fails_beside_the_last_label_of_a_chunk_is_no_deadlock(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2, ingested=False)
    shop.answer(shop.annotator(), "cat")
    annotator = shop.annotator()
    (task,) = shop.claim(annotator)
    with shop.held() as tx:  # a chunk being committed: it holds the job
        assert chunks.commit(tx, job.job_no, 1, make_chunk(1, start=1000))
        failing = Side(lambda: shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed."))
        shop.wait_for_waiters(1)
        labelling = Side(lambda: shop.label(annotator, (task.task_id, "cat")))
        shop.wait_for_waiters(2)
    failing.join()
    labelling.join()
    assert shop.job(job).status == "failed"


def test_a_claim_passes_over_a_chunk_that_is_held_once_it_holds_one_itself(shop: Shop) -> None:
    # It would deadlock with labels for both jobs, which hold the older's chunk and want the newer's.
    older = shop.processing(make_chunk(3), consensus_threshold=2, priority=1)
    newer = shop.processing(make_chunk(3), consensus_threshold=2, priority=9)
    one, two, three = shop.annotators(3)
    for annotator in (one, two):
        shop.claim(annotator, 1, job_id=older.job_id)
    task = task_id(older.job_id, 0)
    shop.label(one, (task, "cat"))
    with shop.held() as tx:
        assert annotation.submit(tx, two, [Label(task, "cat")]) == [LabelOutcome.SETTLED]
        claimed = shop.claim(three, 6)
    assert {parse_task_id(t.task_id) for t in claimed} == {
        (newer.job_id, offset) for offset in (0, 100, 200)
    }


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
        assert shop.outbox(job) == ["process_job", "deliver_job"]
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

    def done(self) -> bool:
        query = "select count(*) from jobs where status <> 'completed'"
        return bool(self.shop.value(query) == 0)

    def work(self, annotator: int, seed: int) -> None:
        dice = random.Random(seed)
        while not self.done():
            tasks = ids(self.shop.claim(annotator, dice.choice([1, 5, 40])))
            labels = [(task, dice.choice(OPTIONS)) for task in tasks if dice.random() < 0.8]
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
    at_once(*[partial(crowd.work, who, who) for who in people])
    sweep(shop)
    for job in made:
        ended = shop.job(job)
        assert ended.tasks_done + ended.tasks_failed == ended.total_tasks == 40
        check_books(shop, job)
    assert max(crowd.settled.values()) == 1
    assert len(crowd.settled) == shop.value("select count(consensus) from results")
    assert shop.value("select count(*) from open_tasks") == 0
    assert shop.value("select count(*) from labels") == shop.value(
        "select sum(labels) from results"
    )


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
