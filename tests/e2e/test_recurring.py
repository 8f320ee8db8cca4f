"""An ETL owner's deployment, with schedules that really fire: each manifest becomes one job."""

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs

from deployments.embedded.stack import Stack
from deployments.names import WORK_POOL, WORKER_TYPE
from tests.support.client import Annotator, Customer, paused, wait_for
from tests.support.etl_owner import EtlOwner, jobs_of
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MakeAnnotator = Callable[[Callable[[dict[str, Any]], str]], Annotator]

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
        customer, pool=WORK_POOL, schedules=schedules, concurrency_limit=ONE_AT_A_TIME
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


def test_a_bad_day_ends_with_every_manifest_delivered_after_one_resubmit(
    owner: EtlOwner,
    customer: Customer,
    make_annotator: MakeAnnotator,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    pool: str,
) -> None:
    away = f"{owner.name}-away"
    owner.save_blocks(results=away)  # a bucket that is not there
    with owner.deployed(customer, pool=pool), owner.worker(pool):
        owner.put("in/undelivered.jsonl", make_manifest(20).data)
        undelivered = _job_of_slot(owner, customer)
        _label(undelivered, make_annotator, customer)
        refused = customer.wait(undelivered, "completed")["delivery"]
        assert (refused["status"], refused["code"]) == ("failed", "bucket_not_found")

        owner.put("in/unreadable.jsonl", make_manifest(20).data)
        with paused(prefect, WORK_POOL):
            unreadable = _job_of_slot(owner, customer)
            owner.save_blocks(secret="wrong", results=away)
        assert customer.wait(unreadable, "failed")["error"]["code"] == "invalid_credentials"
        owner.save_blocks(results=away)
        run = _slot(owner)
        assert run["state"]["type"] == "FAILED"
        assert "2 of 2 manifests have no result" in run["state"]["message"]
        assert "2 without a result" in run["name"]

        s3.mkdir(away)
        of = (customer.customer_id, owner.name)
        assert owner.refinery("streams", "resubmit", *of).count("resubmitted") == 2
        read_again = jobs_of(customer)[0]["job_id"]
        _label(read_again, make_annotator, customer)
        for job_id in (undelivered, read_again):
            wait_for("its results", partial(s3.exists, f"{away}/labels/{job_id}/manifest.json"))
        wait_for("all to stand", lambda: "[]" in owner.refinery("streams", "failed", *of, "--json"))
        assert _slot(owner)["state"]["type"] == "COMPLETED"
        assert len(jobs_of(customer)) == 3  # what was labelled was not labelled again


def _slot(owner: EtlOwner) -> dict[str, Any]:
    """A run of the deployment by hand, once it has ended."""
    run_id = owner.start_run()
    ended: dict[str, Any] = wait_for(
        "the slot's run to end",
        lambda: next((run for run in owner.runs(*ENDED) if run["id"] == run_id), None),
    )
    return ended


def _job_of_slot(owner: EtlOwner, customer: Customer) -> str:
    before = len(jobs_of(customer))
    owner.start_run()
    wait_for("its job", partial(_has_jobs, customer, before + 1))
    return str(jobs_of(customer)[0]["job_id"])


def _label(job_id: str, make_annotator: MakeAnnotator, customer: Customer) -> None:
    customer.wait_ingested(job_id, 20)
    for _ in range(2):
        make_annotator(lambda _: "cat").work(job_id)


def _has_jobs(customer: Customer, count: int) -> bool:
    return len(jobs_of(customer)) == count
