"""What is paused raises no alarm, hides nothing that should, and does not outlast its work."""

import pytest

from blocks.domain.model import JobStatus
from blocks.store import counts, customers, jobs, pauses
from blocks.store.jobs import Job
from tests.support.store_shop import DELIVERY, Shop, make_chunk, take

pytestmark = pytest.mark.integration


def pause(shop: Shop, job: Job, what: str) -> None:
    if what == "job":
        shop.do(pauses.pause_job, job.job_no)
    else:
        shop.do(pauses.pause_customer, job.customer_id)


@pytest.mark.parametrize("what", ["job", "customer"])
def test_paused_work_raises_no_alarm(shop: Shop, what: str) -> None:
    job = shop.submit()
    labelled = shop.processing(make_chunk(3))
    shop.run("update jobs set created_at = now() - interval '9 days'")
    for each in (job, labelled):
        pause(shop, each, what)
    queues = {queue.name: queue for queue in shop.do(counts.read_queues)}
    assert (queues["runs_waiting"].depth, queues["runs_waiting"].oldest_s) == (0, None)
    work = shop.do(counts.read_open_work)
    assert (set(work.oldest_s.values()), work.tasks) == ({None}, 0)


def test_paused_jobs_hide_no_others_that_wait(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "JOBS_MAX", 2)
    paused = [shop.submit() for _ in range(3)]
    pause(shop, paused[0], "customer")
    other = shop.submit(customer_id=shop.do(customers.add_customer, "Other"))
    back = "update jobs set created_at = now() - interval '9 days' where job_no = %s"
    shop.run(back, other.job_no)
    ages = shop.do(counts.read_open_work).oldest_s
    assert (ages["open"], ages["unread"]) == (pytest.approx(9 * 86400, rel=0.01),) * 2


def test_a_pause_ends_with_the_work_that_it_was_for(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    annotators = [shop.annotator() for _ in range(2)]
    held = [(annotator, shop.claim(annotator)) for annotator in annotators]
    pause(shop, job, "job")
    for annotator, (task,) in held:
        shop.label(annotator, (task.task_id, "cat"))
    assert shop.job(job).status is JobStatus.COMPLETED
    assert shop.do(jobs.redeliver, shop.job(job), DELIVERY, b"{}", shop.vault)
    taken = take(shop)
    assert taken is not None
    assert taken.kind == "deliver_job"
