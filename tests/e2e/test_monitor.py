"""What an operator sees of a job in Prefect, and what the operator's automations hear of it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import s3fs

from deployments.embedded.stack import Stack
from tests.support.checks import truth
from tests.support.client import Annotator, Customer, artifacts, retry, runs_of, wait_for
from tests.support.manifests import make_manifest

pytestmark = pytest.mark.e2e

MakeAnnotator = Callable[[Callable[[dict[str, Any]], str]], Annotator]
EXAMPLE = "Refinery: an example, after a job"


def test_metrics_tell_of_the_worker_that_prefect_knows(stack: Stack) -> None:
    online = 'refinery_workers_online{pool="refinery"} 1.0\n'
    wait_for("the worker", lambda: online in httpx.get(f"{stack.api_url}/metrics").text)


def test_a_job_is_found_read_and_rerun_in_prefect_and_its_events_begin_what_was_asked_for(
    customer: Customer,
    make_annotator: MakeAnnotator,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(6000, bad_share=0.05)
    s3.pipe_file(f"{s3_bucket}/m.jsonl", manifest.data)
    with switched_on(prefect, EXAMPLE):
        job_id = customer.submit(
            manifest_url=f"s3://{s3_bucket}/m.jsonl",
            credentials=s3_credentials,
            consensus_threshold=2,
            delivery={"type": "s3", "bucket": s3_bucket, "prefix": "labels"},
        )
        customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
        for _ in range(2):
            make_annotator(truth).work(job_id)
        customer.wait(job_id, "completed")
        after = wait_for("the automation's run", lambda: ended(prefect, job_id, "after"))
    assert f"{len(manifest.good)} of" in after["state"]["message"]
    assert after["parameters"] == {"job_id": job_id, "event": "refinery.job.completed"}

    process, deliver = (ended(prefect, job_id, what) for what in ("process", "deliver"))
    assert process is not None
    assert deliver is not None
    for run in (process, deliver):
        assert {job_id, customer.customer_id} <= set(run["tags"])
        # An automation that waits for `Completed` waits for this name.
        assert run["state"]["name"] == "Completed"
    assert f"{len(manifest.bad)} of them bad" in process["state"]["message"]
    assert {"bad-lines", f"{len(manifest.bad)} bad"} <= set(
        process["tags"]
    )  # as a list of runs shows
    assert tasks_of(prefect, process) == [
        "begin",
        "plan chunks",
        *chunks(prefect, process),
        "finish",
    ]

    (progress,) = artifacts(prefect, job_id, "-progress")
    assert progress["data"] == 100.0
    (table,) = artifacts(prefect, job_id, "-chunks")
    # Their groups are named by their first and their last chunk.
    numbers = [int(n) for name in chunks(prefect, process) for n in re.findall("[0-9]+", name)]
    assert table["data"].count('"chunk"') == max(numbers) + 1 > 1
    *_, page = artifacts(prefect, job_id, "")
    assert page["description"].startswith("completed: ")
    for words in (
        f"s3://{s3_bucket}/labels/{job_id}/",
        "| settled |",
        f"| {manifest.bad[0][2]} |",
    ):
        assert words in page["data"], words
    assert s3_credentials["secret_access_key"] not in page["data"]

    events = ["accepted", "processing", "completed", "delivered"]
    wait_for("the events", lambda: events_of(prefect, job_id) == sorted(events))

    before = customer.job(job_id)
    for run in (process, deliver):
        retry(prefect, run["id"])
        wait_for("it to have been run again", partial(says_that_nothing_is_to_do, prefect, run))
        assert found(prefect, run)["state"]["type"] == "COMPLETED"
    assert customer.job(job_id) == before


@contextmanager
def switched_on(prefect: httpx.Client, name: str) -> Iterator[None]:
    """What the switch beside an automation does in the UI."""
    body = {"automations": {"name": {"any_": [name]}}}
    (automation,) = prefect.post("/automations/filter", json=body).raise_for_status().json()
    assert automation["enabled"] is False
    url = f"/automations/{automation['id']}"
    prefect.patch(url, json={"enabled": True}).raise_for_status()
    try:
        yield
    finally:
        prefect.patch(url, json={"enabled": False}).raise_for_status()


def ended(prefect: httpx.Client, job_id: str, what: str) -> dict[str, Any] | None:
    runs = [run for run in runs_of(prefect, job_id) if run["name"] == f"{what} {job_id}"]
    return next((run for run in runs if run["end_time"]), None)


def found(prefect: httpx.Client, run: dict[str, Any]) -> dict[str, Any]:
    again: dict[str, Any] = prefect.get(f"/flow_runs/{run['id']}").raise_for_status().json()
    return again


def says_that_nothing_is_to_do(prefect: httpx.Client, run: dict[str, Any]) -> bool:
    return "nothing to do" in str(found(prefect, run)["state"]["message"])


def tasks_of(prefect: httpx.Client, run: dict[str, Any]) -> list[str]:
    """The names of a run's tasks, in the order of their start."""
    body = {"flow_runs": {"id": {"any_": [run["id"]]}}, "sort": "EXPECTED_START_TIME_DESC"}
    tasks = prefect.post("/task_runs/filter", json=body).raise_for_status().json()
    return [task["name"] for task in sorted(tasks, key=lambda task: task["start_time"])]


def chunks(prefect: httpx.Client, run: dict[str, Any]) -> list[str]:
    return [name for name in tasks_of(prefect, run) if name.startswith(("chunk", "judge"))]


def events_of(prefect: httpx.Client, job_id: str) -> list[str]:
    body = {"filter": {"resource": {"id": [f"refinery.job.{job_id}"]}}}
    rows = prefect.post("/events/filter", json=body).raise_for_status().json()["events"]
    return sorted(row["event"].removeprefix("refinery.job.") for row in rows)
