"""The flows under Prefect's own test server, against a real database and a real object store."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import prefect.settings
import pytest
import s3fs
from prefect.client.schemas.objects import State
from prefect.testing.utilities import prefect_test_harness

from blocks.buckets import S3Bucket
from blocks.credentials import S3Credentials
from blocks.errors import Transient
from blocks.model import JobStatus, Pin, TaskType
from blocks.settings import Settings
from blocks.store import annotation, customers, jobs
from blocks.store.database import Database
from blocks.store.jobs import DeliveryTarget, Job, NewJob
from deployments.object_stores import ObjectStoreAddress
from flows import resources
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from tests.conftest import KEY
from tests.e2e.checks import check_delivery, truth
from tests.manifests import Manifest, make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def _prefect_server() -> Iterator[None]:
    # The heartbeat thread makes every run a second longer.
    quick = {prefect.settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with prefect.settings.temporary_settings(quick), prefect_test_harness(120):
        yield


class Shop:
    """A customer with a bucket, and the flows' own view of the world."""

    def __init__(self, database: Database, address: ObjectStoreAddress) -> None:
        self.database = database
        self._address = address
        self.s3 = s3fs.S3FileSystem(
            key=address.access_key_id,
            secret=address.secret_access_key,
            endpoint_url=address.endpoint_url,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self.bucket = f"bucket-{secrets.token_hex(4)}"
        self.s3.mkdir(self.bucket)
        with database.transaction() as tx:
            self.customer_id = customers.add_customer(tx, "Acme")

    def put(self, data: bytes) -> None:
        self.s3.pipe_file(f"{self.bucket}/m.jsonl", data)

    def submit(self, **changes: Any) -> str:
        """A job for `m.jsonl` that is delivered to `out/`."""
        credentials = S3Credentials(
            access_key_id=self._address.access_key_id,
            secret_access_key=self._address.secret_access_key,
            region="us-east-1",
            endpoint_url=self._address.endpoint_url,
        )
        delivery = DeliveryTarget("s3", self.bucket, "out", "none", None, None)
        new = NewJob(
            customer_id=self.customer_id,
            manifest_url=f"s3://{self.bucket}/m.jsonl",
            question="What is it?",
            options=["cat", "dog", "other"],
            consensus_threshold=2,
            task_type=TaskType.IMAGE_CLASSIFICATION,
            callback_url=None,
            metadata=None,
            priority=5,
            stop_early=False,
            failure_threshold_percent=100,
            credentials=msgspec.json.encode(credentials),
            delivery=delivery,
        )
        vault = Settings(database_url="", encryption_key=KEY).vault()
        with self.database.transaction() as tx:
            job_id, _ = jobs.submit(tx, msgspec.structs.replace(new, **changes), vault)
        return job_id

    def job(self, job_id: str) -> Job:
        with self.database.transaction() as tx:
            job = jobs.get(tx, job_id)
        assert job is not None
        return job

    def label_all(self, job_id: str) -> None:
        for name in ("ann", "ben"):
            self._label(job_id, name)

    def _label(self, job_id: str, name: str) -> None:
        with self.database.transaction() as tx:
            _, key = customers.add_annotator_key(tx, name)
            principal = customers.find_principal(tx, key)
        assert principal is not None
        assert principal.annotator_no is not None
        while True:
            with self.database.transaction() as tx:
                tasks = annotation.claim(
                    tx, principal.annotator_no, limit=500, lease_s=60, job_id=job_id
                )
                labels = [
                    annotation.Label(t.task_id, truth({"data_url": t.data_url})) for t in tasks
                ]
                annotation.submit(tx, principal.annotator_no, labels)
            if not tasks:
                return

    def objects(self, job_id: str) -> dict[str, bytes]:
        paths = self.s3.find(f"{self.bucket}/out/{job_id}")
        return {path.rpartition("/")[2]: self.s3.cat_file(path) for path in paths}

    def rows(self, job_id: str) -> list[dict[str, Any]]:
        query = "select t.* from tasks t join jobs using (job_no) where job_id = %s order by 2"
        with self.database.transaction() as tx:
            return tx.execute(query, [job_id]).fetchall()


@pytest.fixture
def shop(
    _prefect_server: None,
    database: Database,
    database_url: str,
    object_store: ObjectStoreAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    monkeypatch.setenv("REFINERY_DATABASE_URL", database_url)
    monkeypatch.setenv("ASG_ENCRYPTION_KEY", KEY)
    monkeypatch.setenv("REFINERY_EGRESS_ALLOW", "127.0.0.1")
    monkeypatch.setenv("REFINERY_CHUNK_BYTES_MIN", "20000")
    monkeypatch.setenv("REFINERY_CHUNK_BYTES_MAX", "20000")
    monkeypatch.setenv("REFINERY_PART_BYTES_MAX", "100000")
    cached = (resources.settings, resources.database, resources._bucket)
    for function in cached:
        function.cache_clear()
    yield Shop(database, object_store)
    resources.database().close()
    for function in cached:
        function.cache_clear()


def run(flow: Any, job_id: str) -> State[Any]:
    state: State[Any] = flow(job_id, return_state=True)
    return state


def check_created(shop: Shop, job_id: str, manifest: Manifest) -> None:
    rows = shop.rows(job_id)
    assert [(r["data_url"], r["metadata"]) for r in rows] == [g[1:] for g in manifest.good]
    job = shop.job(job_id)
    assert job.total_tasks == len(manifest.good) + len(manifest.bad)
    assert job.tasks_failed == len(manifest.bad)


def test_a_manifest_of_many_chunks_becomes_tasks_and_then_a_delivery(shop: Shop) -> None:
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


def test_both_flows_can_be_run_again_and_say_that_there_is_nothing_to_do(shop: Shop) -> None:
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
    shop: Shop, monkeypatch: pytest.MonkeyPatch
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


def test_a_manifest_that_is_replaced_while_it_is_read_fails_the_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(make_manifest(1000).data)
    job_id = shop.submit()
    real = S3Bucket.read

    def overwriting(self: S3Bucket, key: str, pin: Pin, start: int, end: int) -> bytes:
        if start > 0:
            shop.put(make_manifest(1000, seed=99).data)
        return real(self, key, pin, start, end)

    monkeypatch.setattr(S3Bucket, "read", overwriting)
    state = run(process_job, job_id)
    assert state.is_failed()
    job = shop.job(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "manifest_changed")


@pytest.mark.parametrize(
    "lines, bad, limit, failed",
    [(2000, 0.10, 5.0, True), (2000, 0.10, 20.0, False), (200, 0.10, 5.0, True)],
)
def test_too_many_bad_lines_fail_the_job_where_it_says_so(
    lines: int, bad: float, limit: float, failed: bool, shop: Shop
) -> None:
    shop.put(make_manifest(lines, bad_share=bad).data)
    job_id = shop.submit(failure_threshold_percent=limit)
    assert run(process_job, job_id).is_failed() is failed
    assert shop.job(job_id).error_code == ("failure_threshold_exceeded" if failed else None)


def test_nothing_secret_reaches_prefect(shop: Shop, tmp_path: Path) -> None:
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/missing.jsonl")
    state = run(process_job, job_id)
    assert shop._address.secret_access_key not in repr(state)
    assert shop._address.secret_access_key not in str(state.model_dump())
