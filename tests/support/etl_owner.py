"""Somebody who has a recurring ETL: a bucket, blocks for it, and a deployment in a folder of their own."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import s3fs
from ruamel.yaml import YAML

from deployments.embedded.stack import Stack
from tests.support.client import Customer

# As docs/etl.md has it.
_BLOCKS = """
import sys

from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters

from blocks.prefect.blocks import ManifestSource, ResultsDelivery

name, results, key, secret, endpoint_url = sys.argv[1:]
credentials = AwsCredentials(
    aws_access_key_id=key,
    aws_secret_access_key=secret,
    region_name="us-east-1",
    aws_client_parameters=AwsClientParameters(endpoint_url=endpoint_url),
)
credentials.save(name, overwrite=True)
ManifestSource(bucket_url=f"s3://{name}", aws_credentials=AwsCredentials.load(name)).save(name, overwrite=True)
ResultsDelivery(url=f"s3://{results}/labels").save(name, overwrite=True)
"""


class EtlOwner:
    """What they have goes by `name`: bucket, blocks, stream, deployment."""

    def __init__(
        self, stack: Stack, prefect: httpx.Client, s3: s3fs.S3FileSystem, folder: Path
    ) -> None:
        self._stack = stack
        self._prefect = prefect
        self._s3 = s3
        self._folder = folder
        self.name = f"etl-{secrets.token_hex(4)}"
        s3.mkdir(self.name)
        self.save_blocks()

    def save_blocks(self, *, secret: str | None = None, results: str | None = None) -> None:
        """Make the blocks, or save them again with another key, or with another bucket for results."""
        assert self._stack.object_store is not None
        store = self._stack.object_store
        key = [store.access_key_id, secret or store.secret_access_key, store.endpoint_url]
        self._program("-c", _BLOCKS, self.name, results or self.name, *key)

    def put(self, key: str, data: bytes) -> None:
        """Put an object into the bucket."""
        self._s3.pipe_file(f"{self.name}/{key}", data)

    @contextmanager
    def deployed(self, customer: Customer, *, pool: str, **options: Any) -> Iterator[None]:
        """`prefect deploy --all` from their own folder, with `options` of the deployment."""
        deployment = {
            "name": self.name,
            "entrypoint": "flows.submit_manifests.submit_manifests",
            "tags": ["refinery", "etl"],
            "work_pool": {"name": pool},
            "parameters": {
                "customer": customer.customer_id,
                "block": self.name,
                "source": "in/",
                "delivery": self.name,
                "label_spec": {"question": "What is it?", "options": ["cat", "dog"]},
                "options": {"consensus_threshold": 2},
                "stream": self.name,
                "find": {"min_age_s": 0, "catch_up": True},
            },
        }
        content = {"name": "an-owners", "pull": [], "deployments": [deployment | options]}
        YAML().dump(content, self._folder / "prefect.yaml")
        self._program("-m", "prefect", "--no-prompt", "deploy", "--all")
        try:
            yield
        finally:
            self._prefect.delete(f"/deployments/{self.deployment_id}").raise_for_status()

    @property
    def deployment_id(self) -> str:
        """Prefect's id of the deployment."""
        found = self._prefect.get(f"/deployments/name/submit-manifests/{self.name}")
        return str(found.raise_for_status().json()["id"])

    def start_run(self, **parameters: Any) -> str:
        """Start a run by hand; its id."""
        url = f"/deployments/{self.deployment_id}/create_flow_run"
        answer = self._prefect.post(url, json={"parameters": parameters}).raise_for_status()
        return str(answer.json()["id"])

    def runs(self, *state_types: str) -> list[dict[str, Any]]:
        """Runs of the deployment that are in one of the states, or in any."""
        body: dict[str, Any] = {"deployments": {"name": {"any_": [self.name]}}}
        if state_types:
            body["flow_runs"] = {"state": {"type": {"any_": list(state_types)}}}
        found = self._prefect.post("/flow_runs/filter", json=body).raise_for_status().json()
        return list(found)

    @contextmanager
    def worker(self, pool: str) -> Iterator[None]:
        """A worker in the owner's folder, which has nothing of Refinery's."""
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments", "worker", "--pool", pool],
            cwd=self._folder,
            env={
                **os.environ,
                **self._stack.prefect_environment,
                "REFINERY_DATABASE_URL": self._stack.database_url,
                "ASG_ENCRYPTION_KEY": self._stack.encryption_key,
                "REFINERY_EGRESS_ALLOW": "127.0.0.1",
            },
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()

    def refinery(self, *arguments: str) -> str:
        """A command of the operator; what it printed."""
        return self._program("-m", "deployments", *arguments)

    def _program(self, *arguments: str) -> str:
        environment = {
            "REFINERY_DATABASE_URL": self._stack.database_url,
            "ASG_ENCRYPTION_KEY": self._stack.encryption_key,
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self._folder,
            env={**os.environ, **self._stack.prefect_environment, **environment},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout


def jobs_of(customer: Customer) -> list[dict[str, Any]]:
    """All jobs of the customer, newest first."""
    found: list[dict[str, Any]] = customer.http.get("/v1/jobs").raise_for_status().json()["jobs"]
    return [customer.job(job["job_id"]) for job in found]
