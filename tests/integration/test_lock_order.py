"""Transactions that meet on two jobs wait for each other, and never in a circle."""

import pytest

from blocks.domain.ids import task_id
from blocks.domain.model import JobStatus, LabelOutcome
from blocks.store.jobs import Job
from tests.support.side import Side
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


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
    labels = [(task_id(job.job_id, 0), "cat") for job in jobs]
    with shop.held() as claim:
        # A claim has seen that the place on the later job is needed no more, and waits for a cursor.
        claim.execute("select from vacancies where job_no = %s for update", [jobs[1].job_no])
        batch = Side(lambda: shop.label(last, *labels))
        shop.wait_for_waiters(1)
        claim.execute("select from lanes where job_no = %s for update", [jobs[0].job_no])
    assert batch.join() == [LabelOutcome.SETTLED] * 2
    assert {shop.job(job).status for job in jobs} == {JobStatus.COMPLETED}
