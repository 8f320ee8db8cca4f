"""What every test of the flows stands on: Prefect's test server, and settings of the test's own."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from prefect.client.schemas.objects import State
from tenacity import wait_fixed

from blocks.domain.model import TaskType
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import S3Credentials
from blocks.settings import Settings
from blocks.store import annotation, customers, jobs, labelling
from blocks.store.database import Database
from blocks.store.jobs import DeliveryTarget, Job, NewJob
from deployments.embedded.object_stores import ObjectStoreAddress
from flows import process_job as tasks
from flows.running import resources
from flows.running.policy import RETRY
from tests.support.checks import truth
from tests.support.manifests import Manifest
from tests.support.s3_files import open_s3
from tests.support.servers import KEY
from tests.support.task_rows import list_tasks


@contextmanager
def flow_settings(
    monkeypatch: pytest.MonkeyPatch, database_url: str, **settings: str
) -> Iterator[None]:
    """Small chunks, 127.0.0.1 allowed, and nothing kept of another test; `settings` by their names."""
    defaults = {
        "REFINERY_DATABASE_URL": database_url,
        "ASG_ENCRYPTION_KEY": KEY,
        "REFINERY_EGRESS_ALLOW": "127.0.0.1",
        "REFINERY_CHUNK_BYTES_MIN": "20000",
        "REFINERY_CHUNK_BYTES_MAX": "20000",
        "REFINERY_PART_BYTES_MAX": "100000",
    }
    for name, value in (defaults | settings).items():
        monkeypatch.setenv(name, value)
    cached = (resources.settings, resources.database, resources._bucket, resources._bucket_of)
    for function in cached:
        function.cache_clear()
    try:
        yield
    finally:
        resources.database().close()
        for function in cached:
            function.cache_clear()


def retry_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads waits for a moment only before it tries again."""
    monkeypatch.setattr(tasks.begin, "retry_delay_seconds", 0.05)
    monkeypatch.setattr(RETRY, "wait", wait_fixed(0.05))


class FlowShop:
    """A customer with a bucket, and the flows' own view of the world."""

    def __init__(self, database: Database, address: ObjectStoreAddress) -> None:
        self.database = database
        self._address = address
        self.s3 = open_s3(address)
        self.bucket = f"bucket-{secrets.token_hex(4)}"
        self.s3.mkdir(self.bucket)
        with database.transaction() as tx:
            self.customer_id = customers.add_customer(tx, "Acme")

    def put_as(self, name: str, data: bytes) -> None:
        self.s3.pipe_file(f"{self.bucket}/{name}", data)

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
        delivery = DeliveryTarget(StoreType.S3, self.bucket, "out")
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
                    labelling.Label(t.task_id, truth({"data_url": t.data_url or "///0"}))
                    for t in tasks
                ]
                labelling.submit(tx, principal.annotator_no, labels)
            if not tasks:
                return

    def objects(self, job_id: str) -> dict[str, bytes]:
        paths = self.s3.find(f"{self.bucket}/out/{job_id}")
        return {path.rpartition("/")[2]: self.s3.cat_file(path) for path in paths}

    def rows(self, job_id: str) -> list[dict[str, Any]]:
        with self.database.transaction() as tx:
            return list_tasks(
                lambda query, *values: tx.execute(query, values).fetchall(), "job_id = %s", job_id
            )


def run(flow: Any, job_id: str) -> State[Any]:
    state: State[Any] = flow(job_id, return_state=True)
    return state


def check_created(shop: FlowShop, job_id: str, manifest: Manifest) -> None:
    rows = shop.rows(job_id)
    assert [(r["data_url"], r["metadata"]) for r in rows] == [g[1:] for g in manifest.good]
    job = shop.job(job_id)
    assert job.total_tasks == len(manifest.good) + len(manifest.bad)
    assert job.tasks_failed == len(manifest.bad)
