"""An ETL owner's deployment, with schedules that really fire: each manifest becomes one job."""

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import s3fs

from deployments.embedded.stack import Stack
from deployments.names import WORKER_TYPE
from tests.e2e.client import Customer, wait_for
from tests.e2e.etl_owner import EtlOwner, jobs_of
from tests.manifests import make_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

EVERY_S = 3
SLOTS = 3
MISSED = 5
# As the examples in prefect.yaml have it.
ONE_AT_A_TIME = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture
def owner(stack: Stack, prefect: httpx.Client, s3: s3fs.S3FileSystem, tmp_path: Path) -> EtlOwner:
    return EtlOwner(stack, prefect, s3, tmp_path)


@pytest.fixture
def pool(prefect: httpx.Client) -> Iterator[str]:
    """A work pool that nobody serves yet."""
    name = f"pool-{secrets.token_hex(4)}"
    prefect.post("/work_pools/", json={"name": name, "type": WORKER_TYPE}).raise_for_status()
    yield name
    prefect.delete(f"/work_pools/{name}")


def test_schedules_of_two_kinds_make_one_job_of_each_manifest(
    owner: EtlOwner, customer: Customer
) -> None:
    schedules = [
        {"interval": EVERY_S, "anchor_date": "2026-01-01T00:00:00", "timezone": "UTC"},
        {"rrule": f"FREQ=SECONDLY;INTERVAL={EVERY_S + 1}", "timezone": "Europe/Berlin"},
    ]
    with owner.deployed(
        customer, pool="refinery", schedules=schedules, concurrency_limit=ONE_AT_A_TIME
    ):
        manifest = make_manifest(20)
        for n in (1, 2):
            owner.put(f"in/{n}.jsonl", manifest.data)
            wait_for(f"job {n}", partial(_has_jobs, customer, n))
        ended = len(owner.runs("COMPLETED"))
        wait_for("more slots", lambda: len(owner.runs("COMPLETED")) >= ended + SLOTS)
        jobs = jobs_of(customer)
        assert sorted(job["manifest"]["url"] for job in jobs) == [
            f"s3://{owner.name}/in/{n}.jsonl" for n in (1, 2)
        ]
        for job in jobs:
            customer.wait_ingested(job["job_id"], 20)


def test_one_run_catches_up_on_a_worker_in_a_folder_of_its_own(
    owner: EtlOwner, customer: Customer, pool: str
) -> None:
    with owner.deployed(customer, pool=pool, concurrency_limit=ONE_AT_A_TIME):
        owner.put("in/1.jsonl", make_manifest(20).data)
        for _ in range(MISSED):
            owner.start_run()
        with owner.worker(pool):
            wait_for("all slots to end", lambda: len(owner.runs(*ENDED)) == MISSED)
            owner.put("in/2.jsonl", make_manifest(20).data)
            owner.start_run()  # the place is free again
            wait_for("the next slot", lambda: len(owner.runs(*ENDED)) == MISSED + 1)
        assert len(owner.runs("COMPLETED")) == 2
        assert len(owner.runs("CANCELLED")) == MISSED - 1
        assert len(jobs_of(customer)) == 2


def _has_jobs(customer: Customer, count: int) -> bool:
    return len(jobs_of(customer)) == count
