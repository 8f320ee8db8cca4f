"""What claims of reviews, decisions and deadlines touch in a queue of a million tasks."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from blocks.domain.model import ReviewReason
from blocks.store import reviews
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from blocks.store.reviews import Decision, Wanted
from tests.support.plans import Explained
from tests.support.servers import DatabaseServer
from tests.support.store_shop import Shop, make_chunk, open_shop

pytestmark = pytest.mark.integration

PAGE = 250
QUEUED = 1_000_000
BATCH = 10
PAGES_FOR_A_CLAIM = 60 + 50 * BATCH
PAGES_FOR_DECISIONS = 60 + 50 * BATCH
FLAGGED = 50
REVIEWS_LOOKED_AT = 5_000
PAGES_FOR_A_LOOK = 6
PAGES_FOR_A_COUNT = 200


@pytest.fixture(scope="module")
def crowded(database_server: DatabaseServer) -> Iterator[tuple[Shop, Job]]:
    """A job with a million tasks, each with a label of annotator 1 and under review."""
    with open_shop(database_server) as shop:
        alone = shop.annotator()
        job = shop.processing(make_chunk(PAGE), consensus_threshold=1, review_share=10_000)
        shop.run(
            "insert into pages select job_no, n * tasks, tasks, content "
            "from pages, generate_series(1, %s) n",
            QUEUED // PAGE - 1,
        )
        shop.run(
            "insert into tallies (job_no, task_no, labelled_at, latest, threshold, "
            "places, stop_early, votes, annotators, outcome) "
            "select %s, n, now(), 1, 1, 1, false, '{1,0,0}', array[%s], under_review() "
            "from generate_series(0, %s) n",
            job.job_no, alone, QUEUED - 1,
        )  # fmt: skip
        shop.run(
            "insert into reviews (job_no, task_no, reason, proposed, due_at) "
            "select %s, n, case when n < %s then 'sample' else 'flagged' end, 1, "
            "now() + interval '1 day' from generate_series(0, %s) n",
            job.job_no, QUEUED - FLAGGED, QUEUED - 1,
        )  # fmt: skip
        shop.run("update chunks set lines = %s, tasks = %s", QUEUED, QUEUED)
        shop.run("delete from lanes")
        shop.run("delete from open_chunks")
        yield shop, job


def claim(shop: Shop, reviewer: int, **wanted: Any) -> tuple[list[str], Explained]:
    with shop.held() as tx:
        explained = Explained(tx)
        found = reviews.claim(
            cast(Transaction, explained),
            reviewer,
            limit=BATCH,
            lease_s=600,
            wanted=Wanted(**wanted),
        )
    return [each.task.task_id for each in found], explained


def test_a_page_of_the_queue_reads_a_few_pages_for_each_task(crowded: tuple[Shop, Job]) -> None:
    shop, _ = crowded
    reviewer = shop.annotator()
    for _ in range(2):
        found, explained = claim(shop, reviewer)
        assert len(found) == BATCH
        explained.check(PAGES_FOR_A_CLAIM)


@pytest.mark.parametrize("reason, count", [("flagged", BATCH), ("no_consensus", 0)])
def test_the_reviews_of_a_rare_reason_are_found_without_a_look_at_the_others(
    crowded: tuple[Shop, Job], reason: ReviewReason, count: int
) -> None:
    shop, _ = crowded
    found, explained = claim(shop, shop.annotator(), reason=reason)
    assert len(found) == count
    explained.check(PAGES_FOR_A_CLAIM)


def test_a_claim_looks_at_two_parts_of_the_queue_for_one_annotator(
    crowded: tuple[Shop, Job],
) -> None:
    shop, job = crowded
    rare = shop.annotator()
    rare_id = shop.value("select annotator_id from annotators where annotator_no = %s", rare)
    found, explained = claim(shop, shop.annotator(), annotator_id=rare_id)
    assert found == []
    explained.check(2 * REVIEWS_LOOKED_AT * PAGES_FOR_A_LOOK)
    shop.run(
        "update tallies set skippers = array[%s] where (job_no, task_no) = (%s, %s)",
        rare, job.job_no, REVIEWS_LOOKED_AT // 2,
    )  # fmt: skip
    assert claim(shop, shop.annotator(), annotator_id=rare_id)[0] == [
        job.task_id(REVIEWS_LOOKED_AT // 2)
    ]


def test_what_waits_is_counted_up_to_a_bound(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    with shop.held() as tx:
        explained = Explained(tx)
        (queue,) = reviews.count_waiting(cast(Transaction, explained), shop.annotator(), limit=20)
    assert queue.job_id == job.job_id
    assert queue.waiting == {
        "no_consensus": 0, "low_confidence": 0, "sample": 1_000, "flagged": FLAGGED,
    }  # fmt: skip
    explained.check(PAGES_FOR_A_COUNT)


@pytest.mark.parametrize("label", ["cat", None])
def test_decisions_read_a_few_pages_for_each(crowded: tuple[Shop, Job], label: str | None) -> None:
    shop, _ = crowded
    reviewer = shop.annotator()
    found, _explained = claim(shop, reviewer)
    decisions = [Decision(task, label) for task in found]
    with shop.held() as tx:
        explained = Explained(tx)
        outcomes = reviews.decide(cast(Transaction, explained), reviewer, decisions)
    assert set(outcomes) == {"settled" if label else "sent_back"}
    explained.check(PAGES_FOR_DECISIONS)


def test_deadlines_are_found_without_a_look_at_the_others(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    shop.run(
        "update reviews set due_at = now() where job_no = %s and task_no between 900000 and %s",
        job.job_no,
        900_000 + BATCH - 1,
    )
    with shop.held() as tx:
        explained = Explained(tx)
        assert reviews.time_out(cast(Transaction, explained), limit=500) == BATCH
    explained.check(PAGES_FOR_DECISIONS)


def test_a_page_of_what_a_reviewer_holds_reads_a_few_pages(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    reviewer = shop.annotator()
    found, _explained = claim(shop, reviewer)
    with shop.held() as tx:
        explained = Explained(tx)
        page = reviews.list_page(cast(Transaction, explained), reviewer, limit=BATCH, after=None)
        assert reviews.count_held(cast(Transaction, explained), reviewer).tasks == BATCH
        assert reviews.release(cast(Transaction, explained), reviewer, found) == set(found)
    assert page is not None
    assert sorted(each.task.task_id for each in page.reviews) == sorted(found)
    assert job.task_id(0) not in found
    explained.check(3 * PAGES_FOR_A_CLAIM)
