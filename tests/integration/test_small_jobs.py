"""One run does the work of many small jobs, and what goes wrong with one of them is that job's alone."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact

from blocks.domain.errors import Transient
from blocks.domain.model import JobStatus
from blocks.prefect import job_page
from blocks.store import customer_limits, customers, jobs, runs
from blocks.store.runs import Launch, Work
from flows.process_job import process_job
from flows.reading import ingestion
from flows.small_jobs import small_jobs
from tests.support.checks import check_delivery
from tests.support.flow_world import FlowShop, check_created, run
from tests.support.manifests import make_manifest
from tests.support.store_shop import Shop, take

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

OTHERS = runs.QUEUE_MIN


def rows_of(shop: Any, job_id: str) -> list[dict[str, Any]]:
    query = "select r.* from runs r join jobs using (job_no) where job_id = %s"
    with shop.database.transaction() as tx:
        found: list[dict[str, Any]] = tx.execute(query, [job_id]).fetchall()
    return found


def pages_of(job_id: str) -> list[Artifact]:
    key = ArtifactFilterKey(any_=[job_page.key(job_id)])
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter(key=key))


def test_one_run_reads_all_that_wait_and_another_delivers_them(flow_shop: FlowShop) -> None:
    manifest = make_manifest(10, bad_share=0.2)
    flow_shop.put(manifest.data)
    job_ids = [flow_shop.submit() for _ in range(4)]
    state = run(small_jobs, job_ids[0])
    assert (state.type, state.message) == ("COMPLETED", "4 done.")
    for job_id in job_ids:
        check_created(flow_shop, job_id, manifest)
        flow_shop.label_all(job_id)
    state = run(small_jobs, job_ids[1])
    assert (state.type, state.message) == ("COMPLETED", "4 done.")
    for job_id in job_ids:
        assert flow_shop.job(job_id).status is JobStatus.COMPLETED
        check_delivery(flow_shop.objects(job_id), manifest, labels=2)
        (page,) = pages_of(job_id)
        assert "| status | completed |" in str(page.data)
    assert "nothing to do" in str(run(small_jobs, job_ids[0]).message)


def test_what_is_large_and_what_fails_is_left_to_a_run_of_its_own(
    flow_shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = make_manifest(10), make_manifest(1000)
    flow_shop.put(small.data)
    flow_shop.put_as("large.jsonl", large.data)
    url = f"s3://{flow_shop.bucket}"
    first = flow_shop.submit()
    is_large = flow_shop.submit(manifest_url=f"{url}/large.jsonl")
    is_missing = flow_shop.submit(manifest_url=f"{url}/nowhere.jsonl")
    is_unlucky = flow_shop.submit()
    is_cancelled = flow_shop.submit()
    last = flow_shop.submit()
    with flow_shop.database.transaction() as tx:
        assert jobs.cancel(tx, flow_shop.job(is_cancelled).job_no)
    read_small = ingestion.read_small

    def fail_one(job_id: str) -> Any:
        if job_id == is_unlucky:
            raise Transient("The store is away.")
        return read_small(job_id)

    monkeypatch.setattr(ingestion, "read_small", fail_one)
    state = run(small_jobs, first)
    assert state.type == "FAILED"
    assert state.message == f"2 done, 1 failed, 2 own run: {is_missing}"
    for job_id in (first, last):
        check_created(flow_shop, job_id, small)
        assert rows_of(flow_shop, job_id) == []
    assert flow_shop.job(is_missing).error_code == "object_not_found"
    (waits,) = rows_of(flow_shop, is_large)
    assert (waits["launched_at"], waits["needs_own_run"], waits["launches"]) == (None, True, 0)
    (waits,) = rows_of(flow_shop, is_unlucky)
    assert (waits["launched_at"], waits["needs_own_run"], waits["tries"]) == (None, True, 1)
    assert waits["reason"] == "The store is away."

    assert run(process_job, is_large).is_completed()
    check_created(flow_shop, is_large, large)
    flow_shop.label_all(is_large)
    assert run(small_jobs, is_large).message == "1 own run."
    (waits,) = rows_of(flow_shop, is_large)
    assert (waits["kind"], waits["launched_at"], waits["needs_own_run"]) == (
        "deliver_job",
        None,
        True,
    )


# Whose turn it is


def launch(shop: Shop) -> tuple[Launch, UUID]:
    """Have the next run started; it and its id."""
    taken = take(shop)
    assert taken is not None
    run_id = uuid4()
    shop.do(runs.record_launch, taken, str(run_id))
    return taken, run_id


def age(shop: Shop) -> None:
    """Three seconds pass for all that waits."""
    shop.run(
        "update runs set waiting_since = now() - interval '3 seconds', "
        "not_before = now() - interval '3 seconds' where launched_at is null"
    )


def take_more(shop: Shop, run_id: UUID) -> Work | None:
    found: Work | None = shop.do(runs.take_more, shop.customer_id, run_id, per_customer_max=4)
    return found


@pytest.mark.parametrize("others, is_queue", [(OTHERS - 1, False), (OTHERS, True)])
def test_a_run_is_for_many_where_enough_of_its_customer_wait(
    others: int, is_queue: bool, shop: Shop
) -> None:
    another = shop.do(customers.add_customer, "Another")
    for _ in range(1 + others):
        shop.submit()
    for _ in range(OTHERS):
        shop.submit(customer_id=another)
    taken = take(shop)
    assert taken is not None
    assert (taken.customer_id, taken.is_queue) == (shop.customer_id, is_queue)


def test_work_that_needs_a_run_of_its_own_is_not_done_by_one_for_many(shop: Shop) -> None:
    for _ in range(2 + OTHERS):
        shop.submit()
    shop.run("update runs set needs_own_run = true where run_no = (select min(run_no) from runs)")
    alone, _ = launch(shop)
    assert not alone.is_queue
    _, run_id = launch(shop)
    shop.run(
        "update runs set needs_own_run = true "
        "where run_no = (select min(run_no) from runs where launched_at is null)"
    )
    assert take_more(shop, run_id) is not None  # a launcher may be about to start it
    age(shop)
    assert take_more(shop, run_id) is None


def test_a_run_for_many_takes_one_place_and_goes_on_in_the_order_of_all(shop: Shop) -> None:
    for _ in range(1 + OTHERS):
        shop.submit()
    _, run_id = launch(shop)
    urgent = shop.submit(priority=9)
    more = take_more(shop, run_id)
    assert more == Work("process_job", urgent.job_id)
    assert take(shop, per_customer_max=1) is None
    assert take(shop, runs_max=1) is None
    assert take(shop, runs_max=2, per_customer_max=2) is not None
    shop.do(jobs.fail, urgent.job_no, "refused", "No.")
    assert take(shop, runs_max=2) is None  # it still holds its first


def test_a_run_for_many_ends_where_another_customer_waits_for_a_place(shop: Shop) -> None:
    for _ in range(1 + OTHERS):
        shop.submit()
    _, run_id = launch(shop)
    another = shop.do(customers.add_customer, "Another")
    shop.submit(customer_id=another)
    assert take_more(shop, run_id) is not None  # a launcher may be about to start it
    age(shop)
    assert take_more(shop, run_id) is None
    taken = take(shop)
    assert taken is not None
    assert taken.customer_id == another
    assert take_more(shop, run_id) is not None


def test_a_run_for_many_goes_on_where_the_others_have_all_that_they_may_have(shop: Shop) -> None:
    another = shop.do(customers.add_customer, "Another")
    shop.do(customer_limits.change, another, {"runs": 1})
    shop.submit(customer_id=another)
    assert take(shop) is not None
    shop.submit(customer_id=another)
    for _ in range(2 * (1 + OTHERS)):
        shop.submit()
    _, run_id = launch(shop)
    launch(shop)
    age(shop)
    assert take_more(shop, run_id) is not None
    shop.do(customer_limits.change, another, {"runs": None})
    assert take_more(shop, run_id) is None


def test_what_a_stopped_run_for_many_held_is_taken_back_by_its_retry(shop: Shop) -> None:
    for _ in range(1 + OTHERS):
        shop.submit()
    first, run_id = launch(shop)
    more = take_more(shop, run_id)
    assert more is not None
    shop.run(
        "update runs set launched_at = null, not_before = 'infinity' where launched_at is not null"
    )
    job_no = shop.value("select job_no from jobs where job_id = %s", first.job_id)
    taken_back = shop.do(runs.take_back, job_no, run_id)
    assert {work.job_id for work in taken_back} == {first.job_id, more.job_id}
    assert shop.value("select count(*) from runs where flow_run_id = %s", run_id) == 2
    assert shop.do(runs.take_back, job_no, uuid4()) == []  # it has a run


def test_work_that_is_left_to_a_run_of_its_own_is_launched_alone(shop: Shop) -> None:
    for _ in range(2 + OTHERS):
        shop.submit(priority=1)
    first, run_id = launch(shop)
    work = Work(first.kind, first.job_id)
    shop.do(runs.hand_over, work, uuid4(), error=None, delay_s=0)  # somebody else's
    assert shop.value("select count(*) from runs where launched_at is not null") == 1
    shop.do(runs.hand_over, work, run_id, error=None, delay_s=0)
    again, _ = launch(shop)
    assert (again.job_id, again.launches, again.is_queue) == (first.job_id, 1, False)
