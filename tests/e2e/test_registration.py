"""What Prefect has of ours already is not registered again, and what it has not any more is."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from deployments.embedded.stack import Stack
from deployments.names import WORK_POOL
from deployments.registered import REPOSITORY, VARIABLE, is_registered
from tests.support.client import Customer, quick_run

pytestmark = pytest.mark.e2e

AUTOMATION = "Refinery: reconcile after a crash"
MESSAGES = {
    "Refinery: tell of a failed job",
    "Refinery: tell of a refused delivery",
    "Refinery: tell of a failed ETL run",
}
WAIT_S = 60.0


def test_what_is_registered_is_written_down_and_what_was_deleted_is_missed(
    stack: Stack, prefect: httpx.Client
) -> None:
    registration = stack.log_folder / "registration.log"
    assert registration.read_text().count("deployments  in the work pool") == 1
    assert is_registered(prefect, WORK_POOL)
    assert not is_registered(prefect, "docker")

    assert _automations(prefect, *MESSAGES) == []  # there is no block to send them by
    (automation,) = _automations(prefect, AUTOMATION)
    prefect.delete(f"/automations/{automation['id']}").raise_for_status()
    assert not is_registered(prefect, WORK_POOL)
    _deploy(stack)
    assert len(_automations(prefect, AUTOMATION)) == 1
    assert is_registered(prefect, WORK_POOL)

    value = {"value": {"digest": "of another version"}}
    prefect.patch(f"/variables/name/{VARIABLE}", json=value).raise_for_status()
    assert not is_registered(prefect, WORK_POOL)
    _deploy(stack)
    assert is_registered(prefect, WORK_POOL)


@pytest.fixture
def inbox() -> Iterator[tuple[str, "queue.Queue[dict[str, str]]"]]:
    """The URL of a chat to post messages to, and the messages."""
    messages: queue.Queue[dict[str, str]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", messages
        server.shutdown()
        thread.join()


def test_messages_are_sent_of_what_has_failed_once_there_is_a_block_to_send_them_by(
    stack: Stack,
    prefect: httpx.Client,
    customer: Customer,
    s3_bucket: str,
    s3_credentials: dict[str, str],
    inbox: tuple[str, "queue.Queue[dict[str, str]]"],
) -> None:
    url, messages = inbox
    _make_block(prefect, "refinery-notifications", url)
    _deploy(stack)
    made = _automations(prefect, *MESSAGES)
    assert {each["name"]: each["enabled"] for each in made} == dict.fromkeys(MESSAGES, False)
    for each in made:
        prefect.patch(f"/automations/{each['id']}", json={"enabled": True}).raise_for_status()

    missing = f"s3://{s3_bucket}/none.jsonl"
    failed = customer.submit(manifest_url=missing, credentials=s3_credentials)
    told = messages.get(timeout=WAIT_S)
    assert told["subject"] == f"refinery.job.failed: {failed}"
    assert f"job {failed} of customer {customer.customer_id}" in told["body"]

    event = {
        "event": "refinery.job.delivery-failed",
        "resource": {"prefect.resource.id": "refinery.job.job_1"},
        "payload": {"job_id": "job_1", "customer_id": "cust_1"},
        "occurred": "2026-11-30T00:00:00Z",
        "id": "018f0000-0000-7000-8000-000000000001",
    }
    prefect.post("/events", json=[event]).raise_for_status()
    assert messages.get(timeout=WAIT_S)["subject"] == "refinery.job.delivery-failed: job_1"

    run_id = quick_run(prefect, "submit-manifests/nightly", {})  # its block is not there
    told = messages.get(timeout=WAIT_S)
    assert told["subject"].endswith(": Failed")
    assert run_id in told["body"]

    for each in made:
        prefect.delete(f"/automations/{each['id']}").raise_for_status()


def _make_block(prefect: httpx.Client, name: str, url: str) -> None:
    """What an operator does in the UI: a webhook of their own that takes subject and body."""
    kind = prefect.get("/block_types/slug/custom-webhook").raise_for_status().json()
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    schema, *_ = prefect.post("/block_schemas/filter", json=wanted).raise_for_status().json()
    text = {"subject": "{{subject}}", "body": "{{body}}"}
    block = {
        "name": name,
        "block_type_id": kind["id"],
        "block_schema_id": schema["id"],
        "data": {"name": "chat", "url": url, "json_data": text},
    }
    prefect.post("/block_documents/", json=block).raise_for_status()


def _automations(prefect: httpx.Client, *names: str) -> list[dict[str, Any]]:
    body = {"automations": {"name": {"any_": list(names)}}}
    found: list[dict[str, Any]] = prefect.post("/automations/filter", json=body).json()
    return found


def _deploy(stack: Stack) -> None:
    command = [sys.executable, "-m", "deployments", "deploy"]
    environment = {**os.environ, **stack.environment}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=240)
