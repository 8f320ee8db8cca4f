"""The flows under Prefect's own test server, against a real database and a real object store."""

from pathlib import Path

import pytest

from blocks.buckets.s3 import S3Bucket
from blocks.domain.errors import Transient
from blocks.domain.model import JobStatus, Pin
from blocks.store import jobs
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from tests.support.checks import check_delivery
from tests.support.flow_world import FlowShop, check_created, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def shop(flow_shop: FlowShop) -> FlowShop:
    return flow_shop


def test_a_manifest_of_many_chunks_becomes_tasks_and_then_a_delivery(shop: FlowShop) -> None:
    manifest = make_manifest(2000, bad_share=0.05)
    shop.put(manifest.data)
    job_id = shop.submit()

    state = run(process_job, job_id)
    assert state.is_completed()
    assert f"{len(manifest.bad)} of them bad" in str(state.message)
    check_created(shop, job_id, manifest)
    assert shop.job(job_id).status is JobStatus.PROCESSING

    shop.label_all(job_id)
    assert shop.job(job_id).delivery_status == "pending"
    assert run(deliver_job, job_id).is_completed()
    job = shop.job(job_id)
    assert (job.status, job.delivery_status) == (JobStatus.COMPLETED, "delivered")
    assert job.credentials is None
    assert len([name for name in shop.objects(job_id) if name.startswith("part-")]) > 1
    check_delivery(shop.objects(job_id), manifest, labels=2)


def test_both_flows_can_be_run_again_and_say_that_there_is_nothing_to_do(shop: FlowShop) -> None:
    shop.put(make_manifest(100).data)
    job_id = shop.submit()
    for flow, before in ((process_job, None), (deliver_job, shop.label_all)):
        if before:
            before(job_id)
        assert run(flow, job_id).is_completed()
        then = shop.job(job_id), shop.rows(job_id), shop.objects(job_id)
        assert "nothing to do" in str(run(flow, job_id).message)
        assert (shop.job(job_id), shop.rows(job_id), shop.objects(job_id)) == then


def test_what_time_mends_is_tried_again_and_what_it_does_not_mend_is_not(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(300)
    shop.put(manifest.data)
    job_id = shop.submit()
    asked: list[int] = []
    real = S3Bucket.read

    def flaky(self: S3Bucket, key: str, pin: Pin, start: int, end: int) -> bytes:
        asked.append(start)
        if len(asked) == 1:
            raise Transient("The store answered SlowDown.")
        return real(self, key, pin, start, end)

    monkeypatch.setattr(S3Bucket, "read", flaky)
    assert run(process_job, job_id).is_completed()
    check_created(shop, job_id, manifest)

    shop.s3.rm(f"{shop.bucket}/m.jsonl")
    missing = shop.submit()
    state = run(process_job, missing)
    assert state.is_failed()
    assert "object_not_found" in str(state.message)
    assert shop.job(missing).status is JobStatus.FAILED


def test_a_run_whose_job_is_cancelled_meanwhile_ends_as_cancelled(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(make_manifest(2000).data)
    job_id = shop.submit()
    real = S3Bucket.read

    def read(self: S3Bucket, key: str, pin: Pin, start: int, end: int) -> bytes:
        if start:
            with shop.database.transaction() as tx:
                jobs.cancel(tx, shop.job(job_id).job_no)
        return real(self, key, pin, start, end)

    monkeypatch.setattr(S3Bucket, "read", read)
    assert run(process_job, job_id).is_cancelled()
    assert shop.job(job_id).status is JobStatus.CANCELLED
    # Later it is a run that was not needed.
    assert run(process_job, job_id).is_completed()


@pytest.mark.parametrize(
    "lines, bad, limit, failed",
    [(2000, 0.10, 5.0, True), (2000, 0.10, 20.0, False), (200, 0.10, 5.0, True)],
)
def test_too_many_bad_lines_fail_the_job_where_it_says_so(
    lines: int, bad: float, limit: float, failed: bool, shop: FlowShop
) -> None:
    shop.put(make_manifest(lines, bad_share=bad).data)
    job_id = shop.submit(failure_threshold_percent=limit)
    assert run(process_job, job_id).is_failed() is failed
    assert shop.job(job_id).error_code == ("failure_threshold_exceeded" if failed else None)


def test_nothing_secret_reaches_prefect(shop: FlowShop, tmp_path: Path) -> None:
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/missing.jsonl")
    state = run(process_job, job_id)
    assert shop._address.secret_access_key not in repr(state)
    assert shop._address.secret_access_key not in str(state.model_dump())
