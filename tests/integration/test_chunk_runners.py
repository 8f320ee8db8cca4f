"""The same manifest comes to the same tasks whatever runs its chunks, and however it is compressed."""

import gzip
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from prefect.client.schemas.objects import State

from blocks.domain.model import JobStatus
from blocks.store.database import Database
from deployments.embedded.object_stores import ObjectStoreAddress
from flows import process_job as tasks
from flows.process_job import process_job
from flows.reading import ingestion
from flows.running.policy import RETRY
from flows.running.resources import settings
from tests.support.flow_world import FlowShop, check_created, flow_settings, run
from tests.support.manifests import make_manifest
from tests.support.servers import KEY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480)]

MANIFEST = make_manifest(1500, bad_share=0.05)
_RUNS_MAX = 3

logger = logging.getLogger(__name__)


@pytest.fixture
def shop(
    prefect_server: None,
    runner: str,
    database: Database,
    database_url: str,
    object_store: ObjectStoreAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FlowShop]:
    changed = {"REFINERY_CHUNK_RUNNER": runner, "REFINERY_CHUNKS_IN_FLIGHT": "2"}
    with ExitStack() as stack:
        if runner == "dask":
            # Its workers have to know the settings too: they take the environment as it is now.
            monkeypatch.setenv("REFINERY_DATABASE_URL", database_url)
            monkeypatch.setenv("REFINERY_EGRESS_ALLOW", "127.0.0.1")
            monkeypatch.setenv("ASG_ENCRYPTION_KEY", KEY)
            cluster = stack.enter_context(
                LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
                )
            )
            changed["REFINERY_DASK_ADDRESS"] = cluster.scheduler_address
            changed["REFINERY_RUN_S_MAX"] = "60"
        stack.enter_context(flow_settings(monkeypatch, database_url, **changed))
        yield FlowShop(database, object_store)


def check_errors(shop: FlowShop, job_id: str) -> None:
    query = "select b.byte_offset, b.code from bad_lines b join jobs using (job_no) where job_id = %s order by 1"
    with shop.database.transaction() as tx:
        rows = tx.execute(query, [job_id]).fetchall()
    assert [(r["byte_offset"], r["code"]) for r in rows] == [bad[1:] for bad in MANIFEST.bad]


def run_to_end(shop: FlowShop, job_id: str) -> State[Any]:
    """Run the flow until the manifest is read or refused: a run that took too long has a successor.

    On a busy machine a worker of Dask imports for long before its first chunk.
    """
    for _ in range(_RUNS_MAX):
        state = run(process_job, job_id)
        if state.is_completed() or shop.job(job_id).error_code:
            return state
        if address := settings().dask_address:
            with Client(address) as client:  # type: ignore[no-untyped-call]
                logger.warning("The run ended while Dask did: %s", client.call_stack())
    pytest.fail(f"{_RUNS_MAX} runs have not read the manifest")


@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])
def test_a_manifest_becomes_the_same_tasks_whatever_runs_its_chunks(
    shop: FlowShop, runner: str
) -> None:
    shop.put(MANIFEST.data)
    job_id = shop.submit()
    assert run_to_end(shop, job_id).is_completed()
    check_created(shop, job_id, MANIFEST)
    check_errors(shop, job_id)

    refused = shop.submit(manifest_url=f"s3://{shop.bucket}/missing.jsonl")
    assert run(process_job, refused).is_failed()
    assert shop.job(refused).error_code == "object_not_found"


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_a_refusal_in_another_process_fails_the_job_with_its_sentence(
    shop: FlowShop, runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(MANIFEST.data)
    job_id = shop.submit()
    plan = ingestion.missing_ranges

    def plan_and_replace(job_id: str) -> list[ingestion.Range]:
        shop.put(make_manifest(1500, seed=99).data)
        return plan(job_id)

    monkeypatch.setattr(ingestion, "missing_ranges", plan_and_replace)
    assert run_to_end(shop, job_id).is_failed()
    assert shop.job(job_id).error_code == "manifest_changed"


COMPRESSED = {
    "m.jsonl.gz": gzip.compress(MANIFEST.data),
    "members.jsonl.gz": gzip.compress(MANIFEST.data[:50_001]) + gzip.compress(MANIFEST.data[50_001:]),
    "m.jsonl.zst": bytes(pa.compress(MANIFEST.data, codec="zstd", asbytes=True)),
}  # fmt: skip


@pytest.mark.parametrize("runner", ["threads"])
@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_manifest_becomes_the_tasks_of_its_text(shop: FlowShop, name: str) -> None:
    shop.put_as(name, COMPRESSED[name])
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/{name}")
    assert run(process_job, job_id).is_completed()
    check_created(shop, job_id, MANIFEST)
    check_errors(shop, job_id)
    assert "nothing to do" in str(run(process_job, job_id).message)


@pytest.mark.parametrize("runner", ["threads"])
@pytest.mark.parametrize(
    "data, code",
    [
        (gzip.compress(MANIFEST.data)[:-20], "manifest_corrupt"),
        (MANIFEST.data, "manifest_corrupt"),
        (gzip.compress(b"not JSON\n" * 5000), "manifest_not_jsonl"),
        (gzip.compress(MANIFEST.data * 20), "manifest_too_large"),
    ],
    ids=["cut short", "not compressed", "not JSON", "too long"],
)
def test_a_compressed_manifest_of_no_use_fails_the_job(
    shop: FlowShop, data: bytes, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFINERY_DECOMPRESSED_BYTES_MAX", "1000000")
    shop.put_as("m.gz", data)
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/m.gz")
    assert run(process_job, job_id).is_failed()
    job = shop.job(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, code)


@pytest.mark.parametrize("runner", ["threads"])
def test_a_run_that_died_goes_on_in_the_middle_of_a_compressed_manifest(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put_as("m.gz", gzip.compress(MANIFEST.data))
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/m.gz")
    commit = ingestion._commit
    made: list[int] = []

    def dies(job: object, chunk_no: int, *rest: object) -> object:
        if len(made) == 3:
            raise RuntimeError("killed")
        made.append(chunk_no)
        return commit(job, chunk_no, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ingestion, "_commit", dies)
    assert run(process_job, job_id).is_failed()
    assert shop.job(job_id).status is JobStatus.PROCESSING
    monkeypatch.setattr(ingestion, "_commit", commit)
    assert run(process_job, job_id).is_completed()
    check_created(shop, job_id, MANIFEST)


def test_a_step_that_must_not_begin_anew_is_tried_as_often_as_a_task() -> None:
    attempts, _ = RETRY.stop.stops  # type: ignore[union-attr]
    assert attempts.max_attempt_number == 1 + tasks.begin.retries
