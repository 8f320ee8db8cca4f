"""Out of the door, through the whole stack: told by webhook, delivered at the second try, verified."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs
from gcsfs.core import GCSFileSystem
from standardwebhooks.webhooks import Webhook

from api.cli.verify import check_folder
from deployments.embedded.stack import Stack
from tests.support.checks import truth
from tests.support.client import Annotator, Customer
from tests.support.endpoint import Endpoint
from tests.support.manifests import make_manifest

pytestmark = pytest.mark.e2e

LINES = 500


def refinery(stack: Stack, customer: Customer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as the customer has it."""
    key = customer.http.headers["Authorization"].removeprefix("Bearer ")
    return subprocess.run(
        [sys.executable, "-m", "deployments", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "REFINERY_API_URL": stack.api_url, "REFINERY_API_KEY": key},
        check=False,
    )


def test_a_refused_delivery_is_told_and_made_elsewhere_by_the_command_line(
    stack: Stack,
    customer: Customer,
    make_annotator: Callable[[Callable[[dict[str, Any]], str]], Annotator],
    endpoint: Endpoint,
    gcs: GCSFileSystem,
    gcs_bucket: str,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
    tmp_path: Path,
) -> None:
    manifest = make_manifest(LINES, bad_share=0.02, seed=6)
    gcs.pipe_file(f"{gcs_bucket}/m.jsonl", manifest.data)
    answer = customer.http.post("/v1/webhooks/default-secret/rotate", json={})
    secret = answer.raise_for_status().json()["secret"]
    job_id = customer.submit(
        manifest_url=f"gs://{gcs_bucket}/m.jsonl",
        consensus_threshold=2,
        callback_url=endpoint.url,
        metadata={"order": "17"},
        delivery={"type": "gcs", "bucket": "there-is-no-such-bucket"},
    )
    customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
    for _ in range(2):
        make_annotator(truth).work(job_id)
    told = [endpoint.next() for _ in range(2)]
    for each in told:
        Webhook(secret).verify(each.body, each.headers)
    bodies = {body["type"]: body["data"] for body in (json.loads(each.body) for each in told)}
    assert bodies.keys() == {"job.processing", "job.completed"}
    ended = bodies["job.completed"]
    assert (ended["job_id"], ended["metadata"]) == (job_id, {"order": "17"})
    assert (ended["tasks_done"], ended["tasks_failed"]) == (len(manifest.good), len(manifest.bad))
    assert ended["delivery"]["status"] == "failed"
    watched = refinery(stack, customer, "jobs", "watch", job_id)
    assert (watched.returncode, ended["delivery"]["message"] in watched.stderr) == (1, True)

    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps(s3_credentials))
    again = refinery(
        stack, customer, "jobs", "deliver", job_id, "--delivery", f"s3://{s3_bucket}/second",
        "--format", "parquet", "--credentials-file", str(credentials),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    watched = refinery(stack, customer, "jobs", "watch", job_id, "--json")
    assert watched.returncode == 0, watched.stderr
    delivery = json.loads(watched.stdout)["delivery"]
    assert (delivery["status"], delivery["prefix"]) == ("delivered", "second")
    report = check_folder(s3, f"{s3_bucket}/second/{job_id}")
    assert report.problems == []
    assert report.rows == len(manifest.good) + len(manifest.bad)
