"""Tasks that reviewers decide: what goes there, who is handed it, and what a decision does."""

from typing import Any

import pytest

from blocks.domain.model import JobStatus, ReviewOutcome, SkipReason
from blocks.store import jobs, labelling, reviews
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip, Withdrawal
from blocks.store.labelling import Label
from blocks.store.reviews import ClaimedReview, Decision
from tests.support.books import check_books
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration

UNCLEAR, BROKEN, _ = SkipReason
FOUR = ["cat", "dog", "fox", "owl"]
"""As labels of one task, with a threshold of two, they come to no consensus."""


def make_job(shop: Shop, count: int = 1, **changes: Any) -> tuple[Job, list[str]]:
    """A job of one label a task, of which reviewers decide everything, unless `changes` say otherwise."""
    rule: dict[str, Any] = {
        "options": FOUR,
        "consensus_threshold": 1,
        "review_share": 10_000,
    } | changes
    job = shop.processing(make_chunk(count), **rule)
    return job, [job.task_id(n) for n in range(count)]


def claim(shop: Shop, reviewer: int, limit: int = 100, **more: Any) -> list[ClaimedReview]:
    found: list[ClaimedReview] = shop.do(reviews.claim, reviewer, limit=limit, lease_s=600, **more)
    return found


def decide(shop: Shop, reviewer: int, *decisions: Decision) -> list[ReviewOutcome]:
    found: list[ReviewOutcome] = shop.do(reviews.decide, reviewer, decisions)
    return found


def states(shop: Shop) -> list[str]:
    return [row["state"] for row in shop.run("select state from reviews order by review_no")]


@pytest.mark.parametrize(
    "rule, said, reason, proposed",
    [
        ({"review_no_consensus": True}, FOUR, "no_consensus", 0),
        ({"review_confidence_below": 7_000}, ["cat", "dog", "cat"], "low_confidence", 1),
        ({"review_share": 10_000}, ["dog", "dog"], "sample", 2),
        ({"review_confidence_below": 6_666}, ["cat", "dog", "cat"], None, 1),
        ({"review_no_consensus": True}, ["cat", "cat"], None, 1),
        ({"review_flagged": True}, FOUR, None, 0),
        ({}, FOUR, None, 0),
    ],
)
def test_a_task_goes_to_review_for_what_its_job_says(
    shop: Shop, rule: dict[str, Any], said: list[str], reason: str | None, proposed: int
) -> None:
    job, (task,) = make_job(shop, **{"consensus_threshold": 2, "review_share": None} | rule)
    people = shop.annotators(len(said))
    answers = [shop.answer(who, option) for who, option in zip(people, said, strict=True)]
    assert all(len(each) == 1 for each in answers[:-1])
    found = shop.run("select reason, proposed, state from reviews")
    if reason is None:
        assert not found
        assert shop.value("select outcome from tallies") == proposed
        return
    assert found == [{"reason": reason, "proposed": proposed, "state": "open"}]
    assert answers[-1] == ["accepted"]
    assert shop.value("select outcome from tallies") == -9
    assert shop.job(job).status == JobStatus.PROCESSING
    assert shop.label(shop.annotator(), (task, "cat")) == ["already_settled"]
    check_books(shop, job)


def test_a_task_that_was_flagged_goes_to_review_and_may_be_labelled_after_all(shop: Shop) -> None:
    job, (task,) = make_job(shop, review_share=None, review_flagged=True, skips_max=2)
    one, two, three = shop.annotators(3)
    for who in (one, two):
        (claimed,) = shop.claim(who)
        assert shop.enter(who, Skip(claimed.task_id, BROKEN, "black")) == ["skipped"]
    check_books(shop, job)
    assert shop.claim(three) == []
    (found,) = claim(shop, three)
    assert (found.case.reason, found.case.proposed_label, found.case.votes) == (
        "flagged", None, dict.fromkeys(FOUR, 0),
    )  # fmt: skip
    assert found.case.proposed_failure == "broken"
    assert [skip.note for skip in found.case.skips] == ["black", "black"]
    assert decide(shop, three, Decision(task)) == ["sent_back"]
    check_books(shop, job)
    assert shop.answer(three, "fox") == ["settled"]
    check_books(shop, job)
    assert shop.job(job).status == JobStatus.COMPLETED


@pytest.mark.parametrize(
    "decision, outcome, counts",
    [
        ({"label": "cat"}, "settled", (1, 0)),
        ({"label": "fox"}, "settled", (1, 0)),
        ({"failure": 0}, "failed", (0, 1)),
        ({"failure": -2}, "failed", (0, 1)),
    ],
)
def test_one_decision_ends_a_task_and_the_last_one_its_job(
    shop: Shop, decision: dict[str, Any], outcome: str, counts: tuple[int, int]
) -> None:
    job, (task,) = make_job(shop)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "cat")
    (found,) = claim(shop, reviewer)
    assert (found.task.task_id, found.case.proposed_label, found.case.confidence) == (
        task, "cat", 1.0,
    )  # fmt: skip
    assert decide(shop, reviewer, Decision(task, **decision)) == [outcome]
    ended = shop.job(job)
    assert ended.status == JobStatus.COMPLETED
    assert (ended.tasks_done, ended.tasks_failed) == counts
    assert decide(shop, reviewer, Decision(task, **decision)) == ["duplicate"]
    assert decide(shop, shop.annotator(), Decision(task, **decision)) == ["already_settled"]
    assert states(shop) == ["decided"]


def test_a_task_that_is_sent_back_collects_one_more_label_and_comes_again(shop: Shop) -> None:
    rule: dict[str, Any] = {
        "consensus_threshold": 2,
        "review_share": None,
        "review_no_consensus": True,
    }
    job, (task,) = make_job(shop, **rule, options=[*FOUR, "elk"])
    people = shop.annotators(6)
    for who, option in zip(people[:4], FOUR, strict=True):
        shop.answer(who, option)
    claim(shop, people[5])
    assert decide(shop, people[5], Decision(task)) == ["sent_back"]
    check_books(shop, job)
    assert shop.answer(people[4], "elk") == ["accepted"]
    check_books(shop, job)
    assert states(shop) == ["sent_back", "open"]
    claim(shop, people[5])
    assert decide(shop, people[5], Decision(task)) == ["sent_back"]
    assert shop.answer(shop.annotator(), "dog") == ["settled"]
    check_books(shop, job)
    assert shop.job(job).status == JobStatus.COMPLETED


def test_a_reviewer_is_not_handed_what_they_have_labelled_or_skipped(shop: Shop) -> None:
    make_job(shop, consensus_threshold=1, review_flagged=True, skips_max=1)
    one, two = shop.annotators(2)
    shop.answer(one, "cat")
    assert claim(shop, one) == []
    assert len(claim(shop, two)) == 1
    assert claim(shop, shop.annotator()) == []


def test_a_lease_runs_out_is_renewed_and_handed_back(shop: Shop) -> None:
    _, (task,) = make_job(shop)
    labeller, one, two = shop.annotators(3)
    shop.answer(labeller, "cat")
    assert len(claim(shop, one)) == 1
    assert shop.do(reviews.count_held, one).tasks == 1
    before = shop.value("select expires_at from reviews")
    assert shop.do(reviews.renew, one, [task], lease_s=6000)[task].expires_at > before
    assert shop.do(reviews.renew, two, [task], lease_s=6000) == {}
    assert shop.do(reviews.release, two, [task]) == set()
    assert shop.do(reviews.release, one, [task]) == {task}
    assert decide(shop, one, Decision(task, "cat")) == ["not_held"]
    assert len(claim(shop, two)) == 1
    shop.run("update reviews set expires_at = now() - interval '1 second'")
    assert shop.do(reviews.renew, two, [task], lease_s=6000) == {}
    assert len(claim(shop, one)) == 1
    assert decide(shop, two, Decision(task, "cat")) == ["not_held"]
    assert decide(shop, one, Decision(task, "cow")) == ["unknown_option"]
    assert decide(shop, one, Decision("tsk_1", "cat"), Decision(task, "cat")) == [
        "unknown_task", "settled",
    ]  # fmt: skip


def test_a_lease_is_not_longer_than_the_deadline(shop: Shop) -> None:
    make_job(shop, review_deadline=0.1)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "cat")
    claim(shop, reviewer)
    (row,) = shop.run("select expires_at <= due_at as is_short from reviews")
    assert row["is_short"]


def overdue(shop: Shop) -> None:
    shop.run("update reviews set due_at = now() - interval '1 second'")


def test_after_the_deadline_a_task_ends_as_it_would_have_without_a_review(shop: Shop) -> None:
    job, found = make_job(shop, 3)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "dog")
    claim(shop, reviewer, 1)
    overdue(shop)
    assert shop.do(reviews.time_out, limit=2) == 2
    check_books(shop, job)
    assert shop.do(reviews.time_out, limit=2) == 1
    assert shop.do(reviews.time_out, limit=2) == 0
    assert decide(shop, reviewer, Decision(found[0], "cat")) == ["already_settled"]
    ended = shop.job(job)
    assert (ended.status, ended.tasks_done) == (JobStatus.COMPLETED, 3)
    assert states(shop) == ["timed_out"] * 3


def test_a_decision_and_the_deadline_at_once_end_a_task_once(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "dog")
    claim(shop, reviewer)
    overdue(shop)
    with shop.held() as tx:
        assert reviews.decide(tx, reviewer, [Decision(task, "fox")]) == ["settled"]
        assert shop.do(reviews.time_out, limit=10) == 0
    check_books(shop, job)
    assert shop.do(reviews.time_out, limit=10) == 0
    assert shop.run("select outcome from tallies") == [{"outcome": 3}]


def test_the_deadline_before_a_decision_leaves_nothing_to_decide(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "dog")
    claim(shop, reviewer)
    overdue(shop)
    with shop.held() as tx:
        assert reviews.time_out(tx, limit=10) == 1
        beside = Side(lambda: decide(shop, reviewer, Decision(task, "fox")))
        shop.wait_for_waiters(1)
    assert beside.join() == ["already_settled"]
    check_books(shop, job)
    assert shop.run("select outcome from tallies") == [{"outcome": 2}]


def test_two_reviewers_at_once_are_handed_different_tasks(shop: Shop) -> None:
    _, found = make_job(shop, 4)
    labeller, one, two = shop.annotators(3)
    shop.answer(labeller, "cat")
    with shop.held() as tx:
        first = reviews.claim(tx, one, limit=2, lease_s=600)
        second = claim(shop, two)
    handed = [each.task.task_id for each in [*first, *second]]
    assert sorted(handed) == sorted(found)
    outcomes = at_once(
        *(
            lambda who=who: decide(shop, who, *(Decision(task, "cat") for task in found))
            for who in (one, two)
        )
    )
    said = [outcome for each in outcomes for outcome in each]
    assert said.count("settled") == 4
    assert set(said) <= {"settled", "already_settled", "not_held"}


@pytest.mark.parametrize("step", ["label", "decide", "send back", "time out"])
def test_a_process_that_is_killed_loses_and_doubles_nothing(shop: Shop, step: str) -> None:
    job, (task,) = make_job(shop)
    labeller, reviewer = shop.annotators(2)
    if step != "label":
        shop.answer(labeller, "cat")
        claim(shop, reviewer)
        overdue(shop)
    else:
        shop.claim(labeller)
    before = shop.run("select * from tallies"), shop.run("select * from reviews")
    with shop.given_up() as tx:
        match step:
            case "label":
                assert labelling.submit(tx, labeller, [Label(task, "cat")]) == ["accepted"]
            case "decide":
                assert reviews.decide(tx, reviewer, [Decision(task, "fox")]) == ["settled"]
            case "send back":
                assert reviews.decide(tx, reviewer, [Decision(task)]) == ["sent_back"]
            case _:
                assert reviews.time_out(tx, limit=10) == 1
    assert before == (shop.run("select * from tallies"), shop.run("select * from reviews"))
    check_books(shop, job)
    if step == "label":
        assert shop.label(labeller, (task, "cat")) == ["accepted"]
    assert shop.do(reviews.time_out, limit=10) == (step != "label")
    check_books(shop, job)


def test_the_queue_of_a_cancelled_job_is_dropped(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    labeller, reviewer, other = shop.annotators(3)
    shop.answer(labeller, "cat")
    claim(shop, reviewer)
    shop.do(jobs.cancel, job.job_no)
    assert claim(shop, other) == []
    assert decide(shop, reviewer, Decision(task, "cat")) == ["already_settled"]
    assert shop.do(reviews.count_held, reviewer).tasks == 0
    ended = shop.job(job)
    assert (ended.tasks_done, ended.tasks_failed) == (0, 1)
    overdue(shop)
    assert shop.do(reviews.time_out, limit=10) == 1
    assert states(shop) == ["dropped"]
    assert shop.job(job).tasks_failed == 1


def test_a_job_with_a_delivery_goes_on_to_it_with_the_last_decision(shop: Shop) -> None:
    job, (task,) = make_job(shop, delivery=DELIVERY)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "cat")
    assert shop.job(job).delivery_status is None
    claim(shop, reviewer)
    decide(shop, reviewer, Decision(task, "dog"))
    assert shop.job(job).delivery_status == "pending"


def test_a_share_is_the_same_tasks_whoever_labels_them(shop: Shop) -> None:
    sampled = []
    for _ in range(2):
        job, _found = make_job(shop, 200, review_share=2_500)
        shop.answer(shop.annotator(), "cat", 200)
        rows = shop.run("select task_no from reviews where job_no = %s", job.job_no)
        sampled.append({row["task_no"] for row in rows})
    assert sampled[0] == sampled[1]
    assert 25 < len(sampled[0]) < 75


def test_places_that_are_lost_during_a_review_are_there_again_after_it(shop: Shop) -> None:
    """Holders label, skip, let go and run out meanwhile; then the task still gets its label."""
    job, (task,) = make_job(shop, consensus_threshold=5, stop_early=True)
    people = shop.annotators(9)
    held = people[:5]
    for who in held:
        assert len(shop.claim(who)) == 1
    for who in held[:3]:
        shop.label(who, (task, "cat"))
    assert shop.value("select outcome from tallies") == -9
    assert shop.label(held[3], (task, "cat")) == ["already_settled"]
    assert shop.enter(held[4], Skip(task, UNCLEAR)) == ["already_settled"]
    assert shop.claim(people[5]) == []  # which drops the places
    assert len(claim(shop, people[6])) == 1
    assert decide(shop, people[6], Decision(task)) == ["sent_back"]
    check_books(shop, job)
    assert shop.answer(people[7], "dog") == ["accepted"]
    check_books(shop, job)
    assert states(shop) == ["sent_back", "open"]


def test_a_withdrawal_under_review_comes_too_late(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    labeller = shop.annotator()
    shop.answer(labeller, "cat")
    assert shop.enter(labeller, Withdrawal(task)) == ["already_settled"]
    check_books(shop, job)
