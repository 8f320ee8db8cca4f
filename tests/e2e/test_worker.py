"""Our type of worker, on a pool of its own, with a flow that does what it is told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.embedded.stack import Stack
from deployments.names import WORKER_TYPE
from deployments.registered import REPOSITORY
from tests.support.client import cancel, prefect_client, set_state, wait_for

pytestmark = pytest.mark.e2e

POOL = "one-at-a-time"
NAME = "tester"
FLOW = """
import os
import signal
import time
from pathlib import Path

from prefect import flow


@flow
def probe(folder: str, name: str, how: str) -> None:
    Path(folder, name).write_text(str(os.getpid()))
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fail":
        raise ValueError("It is told to.")
    while how == "wait" and not Path(folder, "go").exists():
        time.sleep(0.02)
"""


class Probe:
    """Runs of the flow on a worker that does one at a time."""

    def __init__(self, prefect: httpx.Client, folder: Path, worker: "Worker") -> None:
        self._prefect = prefect
        self._folder = folder
        self._runs = 0
        self.worker = worker
        self._deployment_id = self._deploy()

    def _deploy(self) -> str:
        (self._folder / "probe.py").write_text(FLOW)
        flow_id = self._prefect.post("/flows/", json={"name": "probe"}).json()["id"]
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(self._folder)}}
        body = {
            "name": "probe",
            "flow_id": flow_id,
            "work_pool_name": POOL,
            "entrypoint": "probe.py:probe",
            "pull_steps": [step],
        }
        made = self._prefect.post("/deployments/", json=body).raise_for_status().json()
        return str(made["id"])

    def start(self, how: str) -> str:
        """The id of a new run."""
        self._runs += 1
        parameters = {"folder": str(self._folder), "name": f"run-{self._runs}", "how": how}
        url = f"/deployments/{self._deployment_id}/create_flow_run"
        answer = self._prefect.post(url, json={"parameters": parameters}).raise_for_status()
        return str(answer.json()["id"])

    def process(self) -> psutil.Process:
        """That of the latest run, once it is in its flow."""
        file = self._folder / f"run-{self._runs}"
        pid: str = wait_for("the flow", lambda: file.exists() and file.read_text())
        return psutil.Process(int(pid))

    def go(self) -> None:
        """Let those that wait go on."""
        (self._folder / "go").touch()

    def end(self, run_id: str) -> dict[str, Any]:
        """The run, when it has ended."""
        ended: dict[str, Any] = wait_for("the run to end", partial(self._ended, run_id))
        return ended

    def _ended(self, run_id: str) -> dict[str, Any] | None:
        run: dict[str, Any] = self._prefect.get(f"/flow_runs/{run_id}").raise_for_status().json()
        ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return run if run["state"]["type"] in ended else None


class Worker:
    """One of a pool of its own, with a name that stays."""

    def __init__(self, stack: Stack) -> None:
        self._environment = {**os.environ, **stack.prefect_environment}
        self._program = self._start()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._program.pid)

    def kill(self) -> None:
        self._program.kill()
        self._program.wait(30)

    def start_again(self) -> None:
        self._program = self._start()

    def stop(self) -> None:
        self._program.terminate()
        try:
            self._program.wait(30)
        finally:
            self._program.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["-m", "deployments", "worker", "--pool", POOL, "--name", NAME, "--limit", "1"]
        return subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, env=self._environment)


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[Worker]:
    with prefect_client(stack) as prefect:
        prefect.post("/work_pools/", json={"name": POOL, "type": WORKER_TYPE}).raise_for_status()
        found = Worker(stack)
        try:
            wait_for("the worker", lambda: _is_online(prefect))
            yield found
        finally:
            found.stop()
            prefect.delete(f"/work_pools/{POOL}")


def _is_online(prefect: httpx.Client) -> bool:
    workers = prefect.post(f"/work_pools/{POOL}/workers/filter", json={}).raise_for_status().json()
    return any(worker["name"] == NAME for worker in workers)


@pytest.fixture
def probe(worker: Worker, prefect: httpx.Client, tmp_path: Path) -> Probe:
    return Probe(prefect, tmp_path, worker)


def test_a_run_that_is_cancelled_in_the_ui_ends_with_its_process(
    probe: Probe, prefect: httpx.Client
) -> None:
    run_id = probe.start("wait")
    process = probe.process()
    cancel(prefect, run_id)
    assert probe.end(run_id)["state"]["type"] == "CANCELLED"
    wait_for("its process to be gone", lambda: not process.is_running())


def test_a_child_that_dies_is_a_crashed_run_and_nothing_else(probe: Probe) -> None:
    crashed = probe.start("die")
    assert probe.end(crashed)["state"]["type"] == "CRASHED"
    failed = probe.start("fail")
    assert probe.end(failed)["state"]["type"] == "FAILED"
    assert probe.end(probe.start("end"))["state"]["type"] == "COMPLETED"
    assert probe.worker.process.is_running()


def test_no_more_run_at_once_than_the_limit(probe: Probe) -> None:
    first = probe.start("wait")
    probe.process()
    second, third = probe.start("wait"), probe.start("end")
    probe.go()
    runs = sorted((probe.end(id_) for id_ in (first, second, third)), key=_began)
    assert runs[0]["id"] == first
    for before, after in pairwise(runs):
        assert datetime.fromisoformat(before["end_time"]) <= _began(after)


def test_a_fork_server_that_was_killed_is_made_anew(probe: Probe) -> None:
    before = _fork_server(probe)
    before.kill()
    assert probe.end(probe.start("end"))["state"]["type"] == "COMPLETED"
    assert _fork_server(probe) != before


def test_what_a_killed_worker_had_taken_is_begun_when_it_is_back(
    probe: Probe, prefect: httpx.Client
) -> None:
    probe.worker.kill()
    taken = [probe.start("end") for _ in range(2)]
    # As the worker leaves them that has taken them and not started their processes yet.
    for run_id, name in zip(taken, ("Pending", "Submitting"), strict=True):
        set_state(prefect, run_id, type="PENDING", name=name)
    probe.worker.start_again()
    assert [probe.end(run_id)["state"]["type"] for run_id in taken] == ["COMPLETED"] * 2


def test_a_run_that_died_with_its_worker_has_crashed_when_another_one_is_back(
    probe: Probe,
) -> None:
    run_id = probe.start("wait")
    process = probe.process()
    probe.worker.kill()
    process.kill()
    probe.worker.start_again()
    state = probe.end(run_id)["state"]
    assert (state["type"], "died with its worker" in state["message"]) == ("CRASHED", True)


def _began(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["start_time"])


def _fork_server(probe: Probe) -> psutil.Process:
    (found,) = [
        child
        for child in probe.worker.process.children()
        if child.status() != psutil.STATUS_ZOMBIE and "forkserver" in " ".join(child.cmdline())
    ]
    return found
