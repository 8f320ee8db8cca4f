"""A run that finds its job paused begins nothing more of it, and another one goes on where it was."""

import gzip
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.runtime import flow_run

from blocks.buckets.s3 import S3Bucket
from blocks.domain.model import JobStatus, Pin
from blocks.store import pauses
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from flows.small_jobs import small_jobs
from tests.support.checks import check_delivery
from tests.support.flow_world import FlowShop, check_created, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def do(shop: FlowShop, act: Any, job_id: str) -> None:
    with shop.database.transaction() as tx:
        assert act(tx, shop.job(job_id).job_no)


def rows_of(shop: FlowShop, job_id: str) -> list[dict[str, Any]]:
    query = "select r.* from runs r join jobs using (job_no) where job_id = %s"
    with shop.database.transaction() as tx:
        found: list[dict[str, Any]] = tx.execute(query, [job_id]).fetchall()
    return found


def chunks_of(shop: FlowShop, job_id: str) -> int:
    query = "select count(*) as chunks from chunks join jobs using (job_no) where job_id = %s"
    with shop.database.transaction() as tx:
        row = tx.execute(query, [job_id]).fetchone()
    assert row is not None
    return int(row["chunks"])


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_a_manifest_is_read_to_the_chunk_in_hand_and_later_to_its_end(
    flow_shop: FlowShop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    manifest = make_manifest(3000, bad_share=0.05)
    flow_shop.put_as(name, gzip.compress(manifest.data) if name.endswith("gz") else manifest.data)
    job_id = flow_shop.submit(manifest_url=f"s3://{flow_shop.bucket}/{name}")
    real = S3Bucket.read
    is_paused: list[bool] = []

    def read(self: S3Bucket, key: str, pin: Pin, start: int, end: int) -> bytes:
        if not is_paused and (start or name.endswith("gz")):
            is_paused.append(True)
            do(flow_shop, pauses.pause_job, job_id)
        return real(self, key, pin, start, end)

    monkeypatch.setattr(S3Bucket, "read", read)
    state = run(process_job, job_id)
    assert (state.type, "paused by an operator" in str(state.message)) == ("COMPLETED", True)
    all_chunks = len(manifest.data) // 20_000 + 1
    assert chunks_of(flow_shop, job_id) < all_chunks
    assert flow_shop.job(job_id).status is JobStatus.PROCESSING
    (waits,) = rows_of(flow_shop, job_id)
    assert (waits["launched_at"], waits["is_paused"], waits["tries"]) == (None, True, 0)
    # Whatever is pressed in Prefect meanwhile.
    done = chunks_of(flow_shop, job_id)
    assert "paused by an operator" in str(run(process_job, job_id).message)
    assert chunks_of(flow_shop, job_id) == done
    do(flow_shop, pauses.resume_job, job_id)
    assert run(process_job, job_id).is_completed()
    check_created(flow_shop, job_id, manifest)


def test_a_delivery_is_not_begun_and_one_that_has_begun_goes_on(
    flow_shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(2000)
    flow_shop.put(manifest.data)
    job_id = flow_shop.submit()
    assert run(process_job, job_id).is_completed()
    flow_shop.label_all(job_id)
    do(flow_shop, pauses.pause_job, job_id)
    for flow in (deliver_job, small_jobs):
        assert "pause" in str(run(flow, job_id).message)
        assert flow_shop.objects(job_id) == {}
        (waits,) = rows_of(flow_shop, job_id)
        assert waits["launched_at"] is None
    do(flow_shop, pauses.resume_job, job_id)
    real = S3Bucket.create

    def create(self: S3Bucket, *args: Any, **options: Any) -> Any:
        do(flow_shop, pauses.pause_job, job_id)
        return real(self, *args, **options)

    monkeypatch.setattr(S3Bucket, "create", create)
    assert run(deliver_job, job_id).is_completed()
    assert flow_shop.job(job_id).status is JobStatus.COMPLETED
    check_delivery(flow_shop.objects(job_id), manifest, labels=2)


def test_a_run_for_many_small_jobs_leaves_a_paused_one_and_does_the_others(
    flow_shop: FlowShop,
) -> None:
    manifest = make_manifest(10)
    flow_shop.put(manifest.data)
    first, second = flow_shop.submit(), flow_shop.submit()
    with (
        flow_shop.database.transaction() as tx
    ):  # it was launched for both, and the first is paused
        tx.execute("update runs set launched_at = now(), flow_run_id = %s", [uuid4()])
    do(flow_shop, pauses.pause_job, first)
    runs_of = {}

    def take_both(job_no: int, run_id: UUID) -> Any:
        from blocks.store.runs import Work

        with flow_shop.database.transaction() as tx:
            tx.execute("update runs set flow_run_id = %s", [run_id])
        runs_of["both"] = str(flow_run.id)
        return [Work("process_job", first), Work("process_job", second)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.small_jobs._take_back", take_both)
        state = run(small_jobs, first)
    assert (state.type, state.message) == ("COMPLETED", "1 done, 1 paused.")
    check_created(flow_shop, second, manifest)
    (waits,) = rows_of(flow_shop, first)
    assert (waits["launched_at"], waits["tries"]) == (None, 0)
    do(flow_shop, pauses.resume_job, first)
    assert run(process_job, first).is_completed()
    check_created(flow_shop, first, manifest)
