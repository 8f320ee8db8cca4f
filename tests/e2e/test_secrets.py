"""A customer's secret is found nowhere but sealed in its own row."""

import contextlib
import os
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import s3fs

from deployments.embedded.postgres_programs import wheel_folder
from deployments.embedded.stack import Stack
from tests.support.client import Annotator, Customer, wait_for
from tests.support.manifests import make_manifest

pytestmark = pytest.mark.e2e

CANARY = "canary-0f9a8b7c6d5e4f3a2b1c"


def test_a_canary_is_nowhere_in_databases_logs_prefect_or_process_arguments(
    stack: Stack,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
    make_annotator: Callable[[Callable[[dict[str, Any]], str]], Annotator],
) -> None:
    s3.pipe_file(f"{s3_bucket}/m.jsonl", make_manifest(100).data)
    url = f"s3://{s3_bucket}/m.jsonl"
    # One that the store refuses, so that it passes through errors; one that works, and waits.
    refused = customer.submit(
        manifest_url=url, credentials=s3_credentials | {"secret_access_key": CANARY}
    )
    works = customer.submit(manifest_url=url, credentials=s3_credentials)
    # One that signs URLs, and keeps its credentials for it.
    s3.pipe_file(f"{s3_bucket}/one.jsonl", b'{"data_url": "s3://pictures/1.jpg"}')
    signs = customer.submit(
        manifest_url=f"s3://{s3_bucket}/one.jsonl", credentials=s3_credentials, sign_urls=True
    )
    customer.wait_ingested(signs, 1)
    claim = {"limit": 1, "job_id": signs}
    headers = {"Idempotency-Key": "one"}
    annotator = make_annotator(lambda _: "cat").http
    claimed = annotator.post("/v1/annotation/claim", json=claim, headers=headers).json()
    _, _, signature = claimed["tasks"][0]["signed_url"].partition("X-Amz-Signature=")
    assert signature
    answers = [
        customer.http.post(
            "/v1/jobs", json={"manifest_url": url, "credentials": {"token": CANARY}}
        ),
        customer.http.post("/v1/jobs", content=f'{{"secret": "{CANARY}"'),
    ]
    customer.wait(refused, "failed")
    wait_for("all runs to end", lambda: _ended(prefect, [refused, works, signs]))
    answers += [customer.http.get(f"/v1/jobs/{job}") for job in (refused, works, signs)]

    with psycopg.connect(stack.database_url) as connection:
        sealed: dict[str, bool] = dict(
            connection.execute(
                "select job_id, credentials is not null from jobs where job_id = any(%s)",
                [[refused, works, signs]],
            ).fetchall()
        )
    # The first two need them no more.
    assert sealed == {refused: False, works: False, signs: True}
    places = {
        "answers": "".join(answer.text for answer in answers),
        "refinery database": _dump(stack.database_url),
        "prefect database": _dump(stack.database_url.rpartition("/")[0] + "/prefect"),
        "logs": "".join(p.read_text(errors="replace") for p in stack.log_folder.iterdir()),
        "process arguments": _process_arguments(),
    }
    for place, text in places.items():
        assert text, place
        assert CANARY not in text, place
        assert s3_credentials["secret_access_key"] not in text, place
        assert signature not in text, place


def _ended(prefect: httpx.Client, job_ids: list[str]) -> bool:
    body: dict[str, Any] = {"flow_runs": {"tags": {"any_": job_ids}}}
    runs = prefect.post("/flow_runs/filter", json=body).json()
    ended = [r for r in runs if r["state"]["type"] in {"COMPLETED", "FAILED"}]
    return len(ended) == len(job_ids)


def _dump(url: str) -> str:
    """Everything in a database, as text; bytes are in hexadecimal, so a canary in them is too."""
    program = wheel_folder() / "pginstall" / "bin" / "pg_dump"
    parts = psycopg.conninfo.conninfo_to_dict(url)
    environment = {**os.environ, "PGPASSWORD": str(parts.pop("password"))}
    address = " ".join(f"{name}={value}" for name, value in parts.items())
    done = subprocess.run(
        [program, "--inserts", "-d", address], env=environment, capture_output=True, check=True
    )
    return done.stdout.decode(errors="replace").replace(CANARY.encode().hex(), CANARY)


def _process_arguments() -> str:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += process.cmdline()
    return " ".join(found)
