"""A customer's secret is found nowhere but sealed in its own row."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import s3fs

from deployments.embedded.stack import Stack
from tests.support.canaries import Place, in_database, in_folder, places_of
from tests.support.client import Annotator, Customer, wait_for
from tests.support.collector import Collector
from tests.support.manifests import make_manifest

pytestmark = pytest.mark.e2e

CANARY = "canary/0f9a8b7c+6d5e4f3a=2b1c"
_SERVERS_FOLDERS = ("postgres", "postgres-programs", "seaweedfs")
# The store of the stack is the customers' too, and its key the one that they use.
_OPERATORS_FILES = {"object-store.secret-access-key"}


def test_a_canary_is_nowhere_in_databases_logs_prefect_or_process_arguments(
    stack: Stack,
    customer: Customer,
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
    make_annotator: Callable[[Callable[[dict[str, Any]], str]], Annotator],
    collector: Collector,
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
    answers += [
        httpx.get(f"{stack.api_url}{path}") for path in ("/metrics", "/schema/openapi.json")
    ]
    collector.wait(
        lambda spans: {f"process {refused}", f"process {works}"} <= {s.name for s in spans}
    )
    places = [
        *((f"answer {n}", answer.content) for n, answer in enumerate(answers)),
        *in_database(stack.database_url),
        *_in_prefect(stack.database_url),
        # The store's folder has its keys, and what PostgreSQL's has was read just now.
        *in_folder(stack.data_dir, without=_SERVERS_FOLDERS),
        ("process arguments", _process_arguments().encode()),
        *((f"spans {n}", body) for n, body in enumerate(collector.bodies)),
    ]
    assert places_of({"refused": CANARY, "a signature": signature}, places) == []
    used = {"used": s3_credentials["secret_access_key"]}
    others = [(place, content) for place, content in places if place not in _OPERATORS_FILES]
    assert places_of(used, others) == []
    found = places_of({"a job": refused}, places)
    for place in ("jobs.job_id", "prefect flow_run.parameters", "logs/", "answer", "spans"):
        assert [each for each in found if each.startswith(f"a job: {place}")], (place, found)


def _ended(prefect: httpx.Client, job_ids: list[str]) -> bool:
    body: dict[str, Any] = {"flow_runs": {"tags": {"any_": job_ids}}}
    runs = prefect.post("/flow_runs/filter", json=body).json()
    ended = [r for r in runs if r["state"]["type"] in {"COMPLETED", "FAILED"}]
    return len(ended) == len(job_ids)


def _in_prefect(url: str) -> Iterator[Place]:
    """All that Prefect keeps: runs, states, logs, artifacts, events."""
    for place, content in in_database(url.rpartition("/")[0] + "/prefect"):
        yield f"prefect {place}", content


def _process_arguments() -> str:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += process.cmdline()
    return " ".join(found)
