"""A worker that is killed together with its run."""

import time
from dataclasses import dataclass

import psutil
import s3fs

from deployments.embedded.stack import Stack
from deployments.lost_runs import WORKER_LABEL
from tests.support.client import Customer, prefect_client, runs_of, wait_for
from tests.support.held_chunk import held_chunk
from tests.support.manifests import Manifest, make_manifest


@dataclass(frozen=True)
class Lost:
    """A job whose worker and run were killed at `killed_s`, when it `had` so many lines."""

    customer: Customer
    job_id: str
    manifest: Manifest
    had: int
    killed_s: float


def lose_worker(stack: Stack, customer: Customer, s3: s3fs.S3FileSystem) -> Lost:
    """Kill the worker and its run in the middle of a manifest."""
    manifest = make_manifest(100_000, seed=9)
    s3.mkdir("lost")
    s3.pipe_file("lost/m.jsonl", manifest.data)
    job_id = customer.submit(manifest_url="s3://lost/m.jsonl", credentials=store_credentials(stack))
    with held_chunk(stack, job_id):
        return _kill_worker(stack, customer, manifest, job_id)


def _kill_worker(stack: Stack, customer: Customer, manifest: Manifest, job_id: str) -> Lost:
    wait_for("the first tasks", lambda: customer.job(job_id)["total_tasks"])
    kept = stack._supervisor._supervised
    (worker,) = [each for each in kept if each.child.name == "Prefect worker"]
    pid = worker.child.pid
    with prefect_client(stack) as prefect:
        (run,) = runs_of(prefect, job_id)
        # As if it were on another machine: a worker that comes back sees which processes are gone.
        elsewhere = {WORKER_LABEL: "of a machine that is gone"}
        prefect.patch(f"/flow_runs/{run['id']}/labels", json=elsewhere).raise_for_status()
    # The worker first: it would tell that the run has crashed.
    for each in (pid, int(run["infrastructure_pid"])):
        psutil.Process(each).kill()
    killed_s, had = time.monotonic(), customer.job(job_id)["total_tasks"]
    wait_for("another worker", lambda: worker.child.pid != pid and worker.is_ready)
    return Lost(customer, job_id, manifest, had, killed_s)


def store_credentials(stack: Stack) -> dict[str, str]:
    """Return what a job says to be let into the bundled store."""
    assert stack.object_store is not None
    return {
        "access_key_id": stack.object_store.access_key_id,
        "secret_access_key": stack.object_store.secret_access_key,
        "region": "us-east-1",
        "endpoint_url": stack.object_store.endpoint_url,
    }
