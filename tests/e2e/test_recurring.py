"""An ETL owner's deployment, with schedules that really fire: each manifest becomes one job."""

import os
import secrets
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from ruamel.yaml import YAML

from deployments.prefect_servers import REPOSITORY
from deployments.stack import Stack
from tests.e2e.client import Customer, wait_for
from tests.manifests import make_manifest

pytestmark = pytest.mark.e2e

EVERY_S = 3
SLOTS = 3

# As docs/etl.md has it.
BLOCKS = """
import sys

from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters

from blocks.prefect_blocks import ManifestSource, ResultsDelivery

name, key, secret, endpoint_url = sys.argv[1:]
credentials = AwsCredentials(
    aws_access_key_id=key,
    aws_secret_access_key=secret,
    region_name="us-east-1",
    aws_client_parameters=AwsClientParameters(endpoint_url=endpoint_url),
)
credentials.save(name)
ManifestSource(bucket_url=f"s3://{name}", aws_credentials=AwsCredentials.load(name)).save(name)
ResultsDelivery(url=f"s3://{name}/labels").save(name)
"""


def prefect_run(stack: Stack, *arguments: str) -> None:
    """A program of the owner's, against the stack's Prefect."""
    subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **stack.prefect_environment},
        check=True,
    )


@pytest.mark.timeout(240)
def test_schedules_of_two_kinds_make_one_job_of_each_manifest(
    stack: Stack,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    tmp_path: Path,
) -> None:
    name = f"etl-{secrets.token_hex(4)}"
    s3.mkdir(name)
    assert stack.object_store is not None
    store = stack.object_store
    prefect_run(
        stack, "-c", BLOCKS, name, store.access_key_id, store.secret_access_key, store.endpoint_url
    )
    file = tmp_path / "prefect.yaml"
    YAML().dump(_deployment(name, customer), file)
    prefect_run(
        stack, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)
    )
    try:
        manifest = make_manifest(20)
        for n in (1, 2):
            s3.pipe_file(f"{name}/in/{n}.jsonl", manifest.data)
            wait_for(f"job {n}", partial(_has_jobs, customer, n))
        ended = _slots(prefect, name)
        wait_for("more slots", lambda: _slots(prefect, name) >= ended + SLOTS)
        jobs = _jobs(customer)
        assert sorted(job["manifest"]["url"] for job in jobs) == [
            f"s3://{name}/in/{n}.jsonl" for n in (1, 2)
        ]
        for job in jobs:
            customer.wait_ingested(job["job_id"], 20)
    finally:
        found = prefect.get(f"/deployments/name/submit-manifests/{name}").json()
        prefect.delete(f"/deployments/{found['id']}").raise_for_status()


def _deployment(name: str, customer: Customer) -> dict[str, Any]:
    return {
        "name": "an-owners",
        "deployments": [
            {
                "name": name,
                "entrypoint": "flows/submit_manifests.py:submit_manifests",
                "tags": ["refinery", "etl"],
                "work_pool": {"name": "refinery"},
                "parameters": {
                    "customer": customer.customer_id,
                    "block": name,
                    "source": "in/",
                    "delivery": name,
                    "label_spec": {"question": "What is it?", "options": ["cat", "dog"]},
                    "stream": name,
                    "find": {"min_age_s": 0, "catch_up": True},
                },
                "schedules": [
                    {"interval": EVERY_S, "anchor_date": "2026-01-01T00:00:00", "timezone": "UTC"},
                    {"rrule": f"FREQ=SECONDLY;INTERVAL={EVERY_S + 1}", "timezone": "Europe/Berlin"},
                ],
            }
        ],
    }


def _has_jobs(customer: Customer, count: int) -> bool:
    return len(_jobs(customer)) == count


def _jobs(customer: Customer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = customer.http.get("/v1/jobs").raise_for_status().json()["jobs"]
    return [customer.job(job["job_id"]) for job in found]


def _slots(prefect: httpx.Client, name: str) -> int:
    """How many runs of the deployment have completed."""
    body = {
        "deployments": {"name": {"any_": [name]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    return len(prefect.post("/flow_runs/filter", json=body).raise_for_status().json())
