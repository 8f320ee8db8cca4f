"""What becomes of tasks when labels are set aside: what would have become of them without these."""

from typing import Any

import pytest

from blocks.domain.model import JobStatus, SkipReason
from blocks.store import (
    annotation,
    exclusions,
    labelling,
    lease_returns,
    reviews,
    skills,
)
from blocks.store.database import Database
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip
from blocks.store.labelling import Label
from blocks.store.reviews import Decision
from tests.support.books import check_books
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

RULE: dict[str, Any] = {
    "options": ["cat", "dog"], "consensus_threshold": 2, "labels_max": 8, "target_confidence": 9_000,
}  # fmt: skip
"""Two labels of people who are right in 0.8 of all cases settle a task if they agree."""
REVIEWED = RULE | {"review_share": 10_000}
UNCLEAR = SkipReason.UNCLEAR


def settled_without_the_second(shop: Shop, **rule: Any) -> tuple[Job, str, list[int]]:
    """A job of one open task, with the labels of three, and what is left of it without those of one."""
    job = shop.processing(make_chunk(1), **rule)
    people = shop.annotators(3)
    for annotator, option in zip(people, ("cat", "dog", "cat"), strict=True):
        assert shop.answer(annotator, option) == ["accepted"]
    assert shop.do(exclusions.exclude, job.job_no, people[1])
    shop.set_aside()
    check_books(shop, job)
    return job, job.task_id(0), people


def test_what_is_to_be_reviewed_is_reviewed_when_an_exclusion_settles_it(shop: Shop) -> None:
    job, task, _ = settled_without_the_second(shop, **REVIEWED)
    assert shop.job(job).tasks_done == 0
    reviewer = shop.annotator()
    (claimed,) = shop.do(reviews.claim, reviewer, limit=1, lease_s=600)
    assert (claimed.case.reason, claimed.case.proposed_label) == ("sample", "cat")
    assert shop.do(reviews.decide, reviewer, [Decision(task, "dog")]) == ["settled"]
    assert shop.job(job).status == JobStatus.COMPLETED
    check_books(shop, job)


def test_who_labelled_what_an_exclusion_settles_is_compared_and_endpoints_are_told(
    shop: Shop,
) -> None:
    shop.run(
        "insert into webhooks (webhook_id, customer_id, callback_url, registered, events) "
        "values ('whk_1', %s, 'https://x.example', true, '{task.settled}')",
        shop.customer_id,
    )
    _, _, people = settled_without_the_second(shop, **RULE)
    assert [row["event"] for row in shop.run("select event from notifications")] == ["task.settled"]
    shop.do(skills.compare_some, limit=10)
    query = "select compared, agreed from job_annotators where annotator_no = any (%s)"
    assert shop.run(query, [people[0], people[2]]) == [{"compared": 1, "agreed": 1}] * 2


def test_a_skip_before_a_label_that_is_set_aside_does_not_come_back(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=3, skips_max=2)
    task = job.task_id(0)
    first, second = shop.annotators(2)
    shop.claim(first)
    shop.enter(first, Skip(task, UNCLEAR))
    assert shop.enter(first, Label(task, "cat")) == ["accepted"]
    assert shop.do(exclusions.exclude, job.job_no, first)
    shop.set_aside()
    shop.claim(second)
    assert shop.enter(second, Skip(task, UNCLEAR)) == ["skipped"]
    assert shop.job(job).tasks_failed == 0
    check_books(shop, job)


@pytest.mark.parametrize("did", ["skipped", "reviewed", "nothing"])
def test_who_has_to_do_with_a_job_can_be_excluded_from_it(shop: Shop, did: str) -> None:
    changes: dict[str, Any] = {"consensus_threshold": 1, "review_share": 10_000}
    job = shop.processing(make_chunk(2), **changes)
    someone, other = shop.annotators(2)
    if did == "skipped":
        (first, _) = shop.claim(someone)
        shop.enter(someone, Skip(first.task_id, UNCLEAR))
        shop.expire_leases()
        shop.run("delete from leases")
    elif did == "reviewed":
        shop.answer(other, "cat", 1)
        (held,) = shop.do(reviews.claim, someone, limit=1, lease_s=600)
        shop.do(reviews.decide, someone, [Decision(held.task.task_id, "dog")])
    query = "select annotator_id from annotators where annotator_no = %s"
    found = shop.do(exclusions.find_annotator, job.job_no, shop.value(query, someone))
    assert found == (None if did == "nothing" else someone)


def test_a_reviewer_is_proposed_what_the_labels_say_that_are_left(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=1, review_share=10_000)
    labeller, reviewer = shop.annotators(2)
    shop.answer(labeller, "cat")
    assert shop.do(exclusions.exclude, job.job_no, labeller)
    shop.set_aside()
    (claimed,) = shop.do(reviews.claim, reviewer, limit=1, lease_s=600)
    case = claimed.case
    assert (case.proposed_label, case.proposed_failure, case.confidence) == (None, None, None)
    check_books(shop, job)


def test_a_label_that_is_just_being_counted_is_set_aside_and_holds_nobody_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not see the exclusion, which is committed first; housekeeping looks, and comes again."""
    monkeypatch.setattr(exclusions, "_WRITERS_S_MAX", 0.0)
    job = shop.processing(make_chunk(1))
    task = job.task_id(0)
    someone, other = shop.annotators(2)
    shop.claim(other)  # a label of somebody who holds nothing, so that no lease is waited for
    with shop.held() as tx:
        assert labelling.submit(tx, someone, [Label(task, "dog")]) == ["accepted"]
        assert shop.do(exclusions.exclude, job.job_no, someone)
        assert exclusions.go_on(shop.database) == exclusions.go_on(shop.database) == 0
        # Another transaction, which writes labels since, is not waited for.
        with shop.held() as late:
            late.execute("lock table labels in row exclusive mode")
            tx.commit()
            assert exclusions.go_on(shop.database) == 1
    assert shop.label(someone, (task, "dog")) == ["excluded"]
    assert shop.label(other, (task, "cat")) == ["accepted"]
    query = "select labels_set_aside, done_at is not null as done from exclusions"
    assert shop.run(query) == [{"labels_set_aside": 1, "done": True}]
    check_books(shop, job)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("gives_up", ["claims", "releases", "runs out"])
def test_no_place_is_lost_of_a_task_that_opens_again_while_somebody_gives_one_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, gives_up: str, is_first: bool
) -> None:
    """A claim passes over a task that has ended, or a lease of it goes, and commits after an exclusion."""
    monkeypatch.setattr(exclusions, "_WRITERS_S_MAX", 0.0)
    job = shop.processing(make_chunk(2), consensus_threshold=3, stop_early=True)
    task = job.task_id(0)
    first, second, third = shop.annotators(3)
    if gives_up != "claims":
        shop.claim(third, 1)
    for annotator in (first, second):
        shop.claim(annotator, 1)
        shop.label(annotator, (task, "cat"))
    shop.expire_leases()

    with shop.held() as tx:
        if not is_first:
            assert shop.do(exclusions.exclude, job.job_no, first)
        if gives_up == "claims":
            (given,) = annotation.claim(tx, third, limit=1, lease_s=600)
            assert given.task_id == job.task_id(1)
        elif gives_up == "releases":
            assert annotation.release(tx, third, [task]) == {task}
        else:
            assert lease_returns.return_leases(tx, limit=10) == 1
        if is_first:
            assert shop.do(exclusions.exclude, job.job_no, first)
        exclusions.go_on(shop.database)
    shop.set_aside()

    check_books(shop, job)
    assert shop.job(job).tasks_done == 0
    assert shop.answer(third, "cat")[0] == "settled"
    check_books(shop, job)


def test_an_exclusion_goes_on_by_itself_while_that_of_another_job_is_held_up(shop: Shop) -> None:
    jobs = [shop.processing(make_chunk(1)) for _ in range(2)]
    someone = shop.annotator()
    assert len(shop.answer(someone, "dog")) == 2
    for job in jobs:
        assert shop.do(exclusions.exclude, job.job_no, someone)
    hasty = Database(shop.url, connections_max=2, lock_s_max=0.05)
    with hasty, shop.held() as tx:
        tx.execute("select from tallies where job_no = %s for update", [jobs[0].job_no])
        exclusions.go_on(hasty, job_no=jobs[1].job_no)
        found = [shop.do(exclusions.get, job.job_no, someone) for job in jobs]
        assert [each.labels_set_aside for each in found] == [0, 1]
        exclusions.go_on(hasty)
    shop.set_aside()
    for job in jobs:
        check_books(shop, job)
        assert shop.do(exclusions.get, job.job_no, someone).done_at
