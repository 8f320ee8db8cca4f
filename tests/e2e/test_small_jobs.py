"""Many small jobs at once are done by few runs, one of which is killed, and one job of which is cancelled."""

from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest
import s3fs

from tests.support.client import Customer, runs_of, wait_for
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

JOBS = 30
LINES = 10


def test_many_small_jobs_share_runs_and_outlive_them(
    make_customer: Callable[[], Customer],
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    s3.pipe_file(f"{s3_bucket}/m.jsonl", make_manifest(LINES, bad_share=0).data)
    body = {"manifest_url": f"s3://{s3_bucket}/m.jsonl", "credentials": s3_credentials}
    customer = make_customer()
    job_ids = [customer.submit(**body) for _ in range(JOBS)]
    *_, cancelled = job_ids
    customer.http.post(f"/v1/jobs/{cancelled}/cancel").raise_for_status()

    def shared() -> list[dict[str, Any]]:
        runs = runs_of(prefect, customer.customer_id)
        return [run for run in runs if run["name"] == f"small jobs of {customer.customer_id}"]

    def running() -> dict[str, Any] | None:
        return next((run for run in shared() if run["state"]["type"] == "RUNNING"), None)

    killed = wait_for("a run for many", running)
    psutil.Process(int(killed["infrastructure_pid"])).kill()
    for job_id in job_ids[:-1]:
        customer.wait_ingested(job_id, LINES)
    assert customer.job(cancelled)["status"] == "cancelled"
    assert len(runs_of(prefect, customer.customer_id)) < JOBS / 2
    crashed = wait_for(
        "it to be known as crashed",
        lambda: [run for run in shared() if run["state"]["type"] == "CRASHED"],
    )
    assert [run["id"] for run in crashed] == [killed["id"]]
    *_, table = wait_for("a table of jobs", lambda: artifacts_of(prefect, shared()))
    assert "10 lines, 0 of them bad" in table["data"]
    *_, page = prefect.post(
        "/artifacts/filter",
        json={"artifacts": {"key": {"any_": [job_ids[-2].replace("_", "-")]}}},
    ).json()
    assert f"| lines | {LINES} |" in page["data"]


def artifacts_of(prefect: httpx.Client, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables of runs for many."""
    body = {
        "artifacts": {
            "key": {"any_": ["small-jobs"]},
            "flow_run_id": {"any_": [run["id"] for run in runs]},
        }
    }
    found: list[dict[str, Any]] = prefect.post("/artifacts/filter", json=body).json()
    return found
