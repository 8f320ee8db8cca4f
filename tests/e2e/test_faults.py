"""What goes wrong outside is named at once where it is the customer's, and mended where it is not."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import s3fs
from gcsfs.core import GCSFileSystem
from psycopg.rows import dict_row

from deployments import names
from deployments.embedded.stack import Stack
from tests.support.checks import check_delivery, check_errors, truth
from tests.support.client import (
    Annotator,
    Customer,
    artifacts,
    cancel,
    quick_run,
    retry,
    runs_of,
    wait_for,
)
from tests.support.faulty_store import FaultyStore
from tests.support.held_chunk import held_chunk
from tests.support.manifests import make_manifest
from tests.support.task_rows import list_tasks

pytestmark = pytest.mark.e2e

MakeAnnotator = Callable[[Callable[[dict[str, Any]], str]], Annotator]


@pytest.mark.parametrize(
    "change, key, code, words",
    [
        ({"secret_access_key": "wrong"}, "m.jsonl", "invalid_credentials", "secret access key"),
        ({"access_key_id": "WRONG"}, "m.jsonl", "invalid_credentials", "access key id"),
        ({}, "missing.jsonl", "object_not_found", "missing.jsonl"),
        ({}, "photo.jpg", "manifest_not_jsonl", "not JSON lines"),
    ],
)
def test_what_the_customer_has_to_mend_fails_the_job_within_seconds_and_without_a_retry(
    change: dict[str, str],
    key: str,
    code: str,
    words: str,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    s3.pipe_file(f"{s3_bucket}/m.jsonl", make_manifest(10).data)
    s3.pipe_file(f"{s3_bucket}/photo.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\n" * 50_000)
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/{key}", credentials=s3_credentials | change
    )
    job = customer.wait(job_id, "failed", "completed")
    assert (job["status"], job["error"]["code"]) == ("failed", code)
    assert words in job["error"]["message"]
    run = _ended_run(prefect, job_id)
    assert run["state"]["type"] == "FAILED"
    assert code in run["state"]["message"]
    assert all(task["run_count"] <= 1 for task in _task_runs(prefect, run["id"]))


def test_a_missing_bucket_is_named(customer: Customer, s3_credentials: dict[str, str]) -> None:
    job_id = customer.submit(
        manifest_url="s3://there-is-no-such-bucket/m.jsonl", credentials=s3_credentials
    )
    job = customer.wait(job_id, "failed", "completed")
    assert job["error"]["code"] == "bucket_not_found"
    assert "there-is-no-such-bucket" in job["error"]["message"]


def test_a_job_that_is_cancelled_while_its_manifest_is_read_stops_in_prefect_as_well(
    stack: Stack,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    lines = 120_000
    s3.pipe_file(f"{s3_bucket}/m.jsonl", b'{"data_url": "https://a.example/1.jpg"}\n' * lines)
    with FaultyStore(s3_credentials["endpoint_url"]) as slow:
        slow.slow_down(1.5, threading.Event())
        job_id = customer.submit(
            manifest_url=f"s3://{s3_bucket}/m.jsonl",
            credentials=s3_credentials | {"endpoint_url": slow.url},
        )
        wait_for("the first chunk", lambda: customer.job(job_id)["total_tasks"])
        customer.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
        cancelled = customer.job(job_id)
        assert cancelled["status"] == "cancelled"
        assert 0 < cancelled["tasks_failed"] == cancelled["total_tasks"] < lines
        assert _ended_run(prefect, job_id)["state"]["type"] == "CANCELLED"
    assert customer.job(job_id) == cancelled
    *_, page = wait_for("its page", lambda: artifacts(prefect, job_id, ""))
    assert "| status | cancelled |" in page["data"]
    # What a browser could not open is no link.
    assert re.findall(r"\]\(<?(.*?)>?\)", page["data"]) == [f"{stack.api_url}/console?job={job_id}"]


def test_a_refused_delivery_completes_the_job_and_says_why_and_is_tried_again_by_retry(
    customer: Customer, prefect: httpx.Client, gcs: GCSFileSystem, gcs_bucket: str, gcs_url: str
) -> None:
    gcs.pipe_file(f"{gcs_bucket}/blank.jsonl", b"\n")  # nobody has to label it
    job_id = customer.submit(
        manifest_url=f"gs://{gcs_bucket}/blank.jsonl",
        delivery={"type": "gcs", "bucket": "not-there-yet"},
    )
    job = customer.wait(job_id, "completed", "failed")
    assert job["status"] == "completed"
    assert (job["delivery"]["status"], job["delivery"]["code"]) == ("failed", "bucket_not_found")
    assert customer.lines(job_id, "export") == []

    run = wait_for(
        "the delivery's run to end",
        lambda: next((r for r in runs_of(prefect, job_id) if r["state"]["type"] == "FAILED"), None),
    )
    assert "delivery refused (bucket_not_found)" in run["state"]["message"]
    new_bucket = {"name": "not-there-yet"}
    httpx.post(f"{gcs_url}/storage/v1/b", json=new_bucket).raise_for_status()
    retry(prefect, run["id"])
    wait_for("it to stand", lambda: customer.job(job_id)["delivery"]["status"] == "delivered")
    assert gcs.exists(f"not-there-yet/{job_id}/manifest.json")
    deliveries = [r for r in runs_of(prefect, job_id) if r["name"].startswith("deliver ")]
    assert [r["id"] for r in deliveries] == [run["id"]]


def test_a_killed_flow_rerun_in_prefect_makes_every_task_exactly_once(
    stack: Stack,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(100_000, seed=3)
    s3.pipe_file(f"{s3_bucket}/large.jsonl", manifest.data)
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/large.jsonl", credentials=s3_credentials
    )
    with held_chunk(stack, job_id):
        wait_for("the first tasks", lambda: customer.job(job_id)["total_tasks"])
        _flow_process(job_id, prefect).kill()
    killed = customer.job(job_id)
    lines = len(manifest.good) + len(manifest.bad)
    assert 0 < killed["total_tasks"] < lines
    run = _ended_run(prefect, job_id)
    assert run["state"]["type"] == "CRASHED"

    def ingested_by_retry() -> dict[str, Any] | None:
        # Prefect may report a crash twice, and undo a retry between the two: press the button again.
        if runs_of(prefect, job_id)[0]["state"]["type"] == "CRASHED":
            retry(prefect, run["id"])
        job = customer.job(job_id)
        return job if job["total_tasks"] == lines else None

    job = wait_for("the rest of the lines", ingested_by_retry)
    assert job["tasks_failed"] == len(manifest.bad)
    wait_for("the run to end", lambda: _ended_run(prefect, job_id)["state"]["type"] == "COMPLETED")
    check_errors(customer.http.get(f"/v1/jobs/{job_id}/errors").content, manifest)
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        rows = list_tasks(
            lambda query, *values: connection.execute(query, values).fetchall(),
            "job_id = %s",
            job_id,
        )
    assert [(row["data_url"], row["metadata"]) for row in rows] == [
        (url, metadata) for _, url, metadata in manifest.good
    ]

    retry(prefect, run["id"])
    message = wait_for(
        "the third run", lambda: "nothing to do" in str(_ended_run(prefect, job_id)["state"])
    )
    assert message


def test_a_run_that_an_operator_cancels_leaves_its_job_waiting_until_it_is_retried(
    stack: Stack,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(60_000, seed=4)
    lines = len(manifest.good) + len(manifest.bad)
    s3.pipe_file(f"{s3_bucket}/m.jsonl", manifest.data)
    with FaultyStore(s3_credentials["endpoint_url"]) as slow:
        slow.slow_down(1.5, until := threading.Event())
        job_id = customer.submit(
            manifest_url=f"s3://{s3_bucket}/m.jsonl",
            credentials=s3_credentials | {"endpoint_url": slow.url},
        )
        wait_for("the first tasks", lambda: customer.job(job_id)["total_tasks"])
        (run,) = runs_of(prefect, job_id)
        cancel(prefect, run["id"])
        assert _ended_run(prefect, job_id)["state"]["type"] == "CANCELLED"
        _see_that_it_waits_for_a_retry(stack, prefect, job_id)
        stopped = customer.job(job_id)
        assert (stopped["status"], stopped["total_tasks"] < lines) == ("processing", True)

        until.set()
        retry(prefect, run["id"])
        customer.wait_ingested(job_id, lines)
    wait_for("the run to end", lambda: _ended_run(prefect, job_id)["state"]["type"] == "COMPLETED")
    process_runs = [r for r in runs_of(prefect, job_id) if r["name"] == f"process {job_id}"]
    assert [r["id"] for r in process_runs] == [run["id"]]


def _see_that_it_waits_for_a_retry(stack: Stack, prefect: httpx.Client, job_id: str) -> None:
    waiting = "select not_before = 'infinity' from runs join jobs using (job_no) where job_id = %s"
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        # The API, which looks three times a minute, is not waited for.
        quick_run(prefect, names.RECONCILE, {"parameters": {}})
        wait_for(
            "reconcile to see it",
            lambda: connection.execute(waiting, [job_id]).fetchone() == (True,),
        )


def test_two_runs_of_everything_are_as_good_as_one(
    customer: Customer,
    make_annotator: MakeAnnotator,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(10_000, seed=5)
    s3.pipe_file(f"{s3_bucket}/m.jsonl", manifest.data)
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/m.jsonl",
        credentials=s3_credentials,
        consensus_threshold=2,
        delivery={"type": "s3", "bucket": s3_bucket, "compression": "gzip"},
    )
    _start_another(prefect, names.PROCESS_JOB, job_id)
    customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
    for _ in range(2):
        make_annotator(truth).work(job_id)
    _start_another(prefect, names.DELIVER_JOB, job_id)
    job = customer.wait(job_id, "completed", "failed")
    assert job["delivery"]["status"] == "delivered"
    wait_for("four runs to end", lambda: len(list(_ended(prefect, job_id))) == 4)
    states = [(run["state"]["type"], run["state"]["message"]) for run in _ended(prefect, job_id)]
    assert [kind for kind, _ in states] == ["COMPLETED"] * 4, "\n".join(map(str, states))
    objects = {p.rpartition("/")[2]: s3.cat_file(p) for p in s3.find(f"{s3_bucket}/{job_id}")}
    check_delivery(objects, manifest, labels=2)


def _start_another(prefect: httpx.Client, deployment: str, job_id: str) -> None:
    quick_run(prefect, deployment, {"parameters": {"job_id": job_id}, "tags": [job_id]})


def _ended(prefect: httpx.Client, job_id: str) -> Iterator[dict[str, Any]]:
    kinds = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    return (run for run in runs_of(prefect, job_id) if run["state"]["type"] in kinds)


def _ended_run(prefect: httpx.Client, job_id: str) -> dict[str, Any]:
    run: dict[str, Any] = wait_for("the run to end", lambda: next(_ended(prefect, job_id), None))
    assert job_id in run["name"]
    return run


def _task_runs(prefect: httpx.Client, run_id: str) -> list[dict[str, Any]]:
    body = {"flow_runs": {"id": {"any_": [run_id]}}}
    found: list[dict[str, Any]] = prefect.post("/task_runs/filter", json=body).json()
    return found


def _flow_process(job_id: str, prefect: httpx.Client) -> psutil.Process:
    return psutil.Process(int(runs_of(prefect, job_id)[0]["infrastructure_pid"]))
