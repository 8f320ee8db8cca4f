"""What Prefect has of ours already is not registered again, and what it has not any more is."""

import os
import subprocess
import sys

import httpx
import pytest

from deployments.embedded.stack import Stack
from deployments.names import WORK_POOL
from deployments.registered import REPOSITORY, VARIABLE, is_registered

pytestmark = pytest.mark.e2e

AUTOMATION = "Refinery: reconcile after a crash"


def test_what_is_registered_is_written_down_and_what_was_deleted_is_missed(
    stack: Stack, prefect: httpx.Client
) -> None:
    registration = stack.log_folder / "registration.log"
    assert registration.read_text().count("deployments  in the work pool") == 1
    assert is_registered(prefect, WORK_POOL)
    assert not is_registered(prefect, "docker")

    (automation,) = _automations(prefect)
    prefect.delete(f"/automations/{automation['id']}").raise_for_status()
    assert not is_registered(prefect, WORK_POOL)
    _deploy(stack)
    assert len(_automations(prefect)) == 1
    assert is_registered(prefect, WORK_POOL)

    value = {"value": {"digest": "of another version"}}
    prefect.patch(f"/variables/name/{VARIABLE}", json=value).raise_for_status()
    assert not is_registered(prefect, WORK_POOL)
    _deploy(stack)
    assert is_registered(prefect, WORK_POOL)


def _automations(prefect: httpx.Client) -> list[dict[str, str]]:
    body = {"automations": {"name": {"any_": [AUTOMATION]}}}
    found: list[dict[str, str]] = prefect.post("/automations/filter", json=body).json()
    return found


def _deploy(stack: Stack) -> None:
    command = [sys.executable, "-m", "deployments", "deploy"]
    environment = {**os.environ, **stack.environment}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=240)
