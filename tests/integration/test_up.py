"""`refinery up` in a terminal: whenever it is ended, however that is done, nothing of it is left."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.embedded.operator_environment import load_environment
from deployments.embedded.state import DataDirectoryLock
from deployments.embedded.wait_for_exit import wait_ended
from deployments.registered import REPOSITORY

END_S = 60.0
INTERRUPTED = 130


class Up:
    """The command in a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        command = [sys.executable, "-u", "-m", "deployments", "up", "--data-dir", str(data_dir)]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.children: list[psutil.Process] = []
        self.said = ""

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if words in line:
                self.children = psutil.Process(self.process.pid).children(recursive=True)
                return
        raise AssertionError(f"{words!r} is not in {self.said}")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=END_S)
        return self.process.returncode


def first_keys(data_dir: Path) -> list[str]:
    """What `eval "$(refinery env --quickstart)"` sets in a shell: a customer's key, an annotator's."""
    env = [sys.executable, "-m", "deployments", "env", "--quickstart", "--data-dir", str(data_dir)]
    script = f'eval "$({shlex.join(env)})" && echo $REFINERY_API_KEY $REFINERY_ANNOTATOR_KEY'
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    return said.split()


def roles_of_links(said: str, url: str) -> list[str]:
    """Whom the links that were printed sign in, in their order."""
    tokens = re.findall(rf"{re.escape(url)}/#(\S+)", said)
    answers = [httpx.post(f"{url}/v1/session", json={"link": token}) for token in tokens]
    return [answer.raise_for_status().json()["role"] for answer in answers]


@pytest.fixture
def started() -> Iterator[list[Up]]:
    found: list[Up] = []
    yield found
    for each in found:
        each.process.kill()
        each.process.communicate()


def test_up_is_alone_and_leaves_nothing_when_it_is_killed_or_interrupted(
    data_dir: Path, started: list[Up]
) -> None:
    started.append(first := Up(data_dir))
    first.read_until("Ctrl-C stops it.")
    assert "The API answers" in first.said
    url = load_environment(data_dir)["REFINERY_API_URL"]
    assert httpx.get(f"{url}/health/live").is_success
    assert roles_of_links(first.said, url) == ["annotator", "reviewer", "customer", "admin"]
    keys = first_keys(data_dir)
    assert first_keys(data_dir) == keys
    jobs = httpx.get(f"{url}/v1/jobs", headers={"Authorization": f"Bearer {keys[0]}"})
    assert jobs.json()["jobs"] == []
    claim = f"{url}/v1/annotation/claim"
    tasks = httpx.post(claim, json={"limit": 1}, headers={"Authorization": f"Bearer {keys[1]}"})
    assert tasks.json()["tasks"] == []

    started.append(second := Up(data_dir))
    said, _ = second.process.communicate(timeout=END_S)
    assert second.process.returncode == 1
    assert f"already runs from {data_dir}" in said.replace("\n", " ")
    assert httpx.get(f"{url}/health/live").is_success

    first.end(signal.SIGKILL)
    assert len(first.children) > 4
    assert not wait_ended(first.children, END_S)

    # In the middle of its start, which finds what the killed one has left written down.
    started.append(third := Up(data_dir))
    third.read_until("PostgreSQL is ready")
    assert third.end(signal.SIGINT) == INTERRUPTED
    assert not wait_ended(third.children, 0)

    started.append(fourth := Up(data_dir))
    fourth.read_until("The API answers")
    assert load_environment(data_dir)["REFINERY_API_URL"] == url
    assert fourth.end(signal.SIGTERM) == INTERRUPTED
    assert not wait_ended(fourth.children, 0)
    assert load_environment(data_dir) == {}
    lock = DataDirectoryLock(data_dir)
    lock.acquire()
    lock.release()
