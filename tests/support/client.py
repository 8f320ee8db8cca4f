"""What a customer, an annotator and an operator do, over HTTP."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from blocks.prefect.auth import PrefectAuth
from deployments.embedded.stack import Stack

WAIT_S = 90.0
_POLL_S = 0.1


def wait_for(what: str, check: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """The first true answer of `check`; fails the test after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(_POLL_S)
    raise AssertionError(f"waited {wait_s} s for {what}")


def prefect_client(stack: Stack) -> httpx.Client:
    """A client of Prefect's API with the password of the stack."""
    auth = PrefectAuth(stack.prefect_auth_string, stack.prefect_api_url)
    return httpx.Client(base_url=stack.prefect_api_url, auth=auth, timeout=30)


class Customer:
    """Somebody with an `sk_…` key."""

    def __init__(self, url: str, key: str, customer_id: str = "") -> None:
        self.customer_id = customer_id
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        )

    def submit(self, **body: Any) -> str:
        spec = {"question": "What is it?", "options": ["cat", "dog", "other"]}
        answer = self.http.post("/v1/jobs", json={"label_spec": spec} | body)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return answer

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """The job once it has one of the statuses."""
        job: dict[str, Any] = wait_for(
            f"{job_id} to be {statuses}",
            lambda: job if (job := self.job(job_id))["status"] in statuses else None,
        )
        return job

    def wait_ingested(self, job_id: str, lines: int) -> dict[str, Any]:
        """The job once all its lines are tasks or bad lines."""
        job: dict[str, Any] = wait_for(
            f"{job_id} to have {lines} lines",
            lambda: job if (job := self.job(job_id))["total_tasks"] == lines else None,
        )
        return job

    def lines(self, job_id: str, what: str) -> list[dict[str, Any]]:
        """`export` or `errors`, decoded."""
        answer = self.http.get(f"/v1/jobs/{job_id}/{what}").raise_for_status()
        return [json.loads(line) for line in answer.content.splitlines()]


class Annotator:
    """Somebody with an `ak_…` key, who gives the answer that `look` gives for a task."""

    def __init__(self, url: str, key: str, look: Callable[[dict[str, Any]], str]) -> None:
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        )
        self._look = look

    def work(self, job_id: str, limit: int = 500) -> int:
        """Claim and label until there is nothing left to do; how many labels that were."""
        done = 0
        while True:
            body = {"limit": limit, "job_id": job_id}
            tasks = self.http.post("/v1/annotation/claim", json=body).raise_for_status().json()
            labels = [{"task_id": t["task_id"], "label": self._look(t)} for t in tasks["tasks"]]
            if not labels:
                return done
            answer = self.http.post("/v1/annotation/labels", json={"labels": labels})
            outcomes = {r["outcome"] for r in answer.raise_for_status().json()["results"]}
            assert outcomes <= {"accepted", "settled"}, outcomes
            done += len(labels)


def runs_of(prefect: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    """What an operator finds who looks for the job's id."""
    body = {"flow_runs": {"tags": {"all_": [job_id]}}}
    found: list[dict[str, Any]] = prefect.post("/flow_runs/filter", json=body).json()
    return found


def cancel(prefect: httpx.Client, run_id: str) -> None:
    """What the button "Cancel" in Prefect's UI does."""
    set_state(prefect, run_id, type="CANCELLING", name="Cancelling")


def retry(prefect: httpx.Client, run_id: str) -> None:
    """What the button "Retry" in Prefect's UI does."""
    message = "Retry from the UI"
    set_state(prefect, run_id, type="SCHEDULED", name="AwaitingRetry", message=message)


def pause(prefect: httpx.Client, run_id: str) -> None:
    """What the button "Pause" in Prefect's UI does, with the time-out that stands there."""
    details = {
        "pause_timeout": (datetime.now(UTC) + timedelta(seconds=300)).isoformat(),
        "pause_reschedule": True,
        "deferred": False,
        "untrackable_result": False,
    }
    set_state(prefect, run_id, type="PAUSED", name="Suspended", state_details=details)


def resume(prefect: httpx.Client, run_id: str) -> None:
    """What the button "Resume" in Prefect's UI does."""
    answer = prefect.post(f"/flow_runs/{run_id}/resume").raise_for_status()
    assert answer.json()["status"] == "ACCEPT", answer.text


def delete(prefect: httpx.Client, run_id: str) -> None:
    """What the button "Delete" in Prefect's UI does."""
    prefect.delete(f"/flow_runs/{run_id}").raise_for_status()


@contextmanager
def paused(prefect: httpx.Client, pool: str) -> Iterator[None]:
    """What the switch of a work pool in Prefect's UI does: no worker takes a run, which stays Scheduled."""
    url = f"/work_pools/{pool}"
    prefect.patch(url, json={"is_paused": True}).raise_for_status()
    try:
        yield
    finally:
        prefect.patch(url, json={"is_paused": False}).raise_for_status()


def quick_run(prefect: httpx.Client, deployment: str, body: dict[str, Any]) -> str:
    """What "Quick run" in Prefect's UI does; the id of the run."""
    found = prefect.get(f"/deployments/name/{deployment}").raise_for_status().json()
    url = f"/deployments/{found['id']}/create_flow_run"
    run_id: str = prefect.post(url, json=body).raise_for_status().json()["id"]
    return run_id


def set_state(prefect: httpx.Client, run_id: str, **state: Any) -> None:
    """What Prefect's UI does to have a run be in another state."""
    body = {"state": state, "force": True}
    prefect.post(f"/flow_runs/{run_id}/set_state", json=body).raise_for_status()


def artifacts(prefect: httpx.Client, job_id: str, suffix: str) -> list[dict[str, Any]]:
    """Those of a job under one key, the latest last."""
    key = job_id.replace("_", "-") + suffix
    body = {"artifacts": {"key": {"any_": [key]}}}
    rows: list[dict[str, Any]] = (
        prefect.post("/artifacts/filter", json=body).raise_for_status().json()
    )
    return sorted(rows, key=lambda row: str(row["created"]))
