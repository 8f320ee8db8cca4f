"""`refinery up` as an operator runs it: a process with children of its own, which can be found and hurt."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from blocks.prefect.auth import PrefectAuth
from deployments.embedded.operator_environment import load_environment
from deployments.registered import REPOSITORY

API, POSTGRES, PREFECT = "API", "PostgreSQL", "Prefect server"
WORKER, STORE = "Prefect worker", "SeaweedFS"
SERVERS = (API, POSTGRES, PREFECT, WORKER, STORE)

_START_S_MAX = 240.0
_STOP_S_MAX = 60.0
_POLL_S = 0.05
_ASK_S_MAX = 2.0


class Installation:
    """A data directory with `refinery up --store` running from it."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self._given = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.output = data_dir.with_name(f"{data_dir.name}.out")

    def start(self) -> float:
        """Return when the API answers and the worker is there; how many seconds it took.

        Raises:
            AssertionError: `refinery up` ended, or took too long.
        """
        began_s = time.monotonic()
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deployments", "up", "--store", "--data-dir", self.data_dir],
                cwd=REPOSITORY,
                env={**os.environ, **self._given},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self._is_up():
            assert self.is_running, f"refinery up has ended:\n{self.said()}"
            late = f"refinery up is not ready:\n{self.said()}"
            assert time.monotonic() - began_s < _START_S_MAX, late
            time.sleep(_POLL_S)
        return time.monotonic() - began_s

    def _is_up(self) -> bool:
        state = self._state()
        if state.get("pid") != self.pid or not self.environment.get("REFINERY_API_URL"):
            return False
        if {name for name in SERVERS if self.find(name) is None}:
            return False
        try:
            return httpx.get(f"{self.api_url}/health/ready", timeout=_ASK_S_MAX).is_success
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill the supervisor alone, and see it end."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does; by force if that does not help."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def said(self) -> str:
        """The end of what it has printed."""
        return self.output.read_text(errors="replace")[-3000:]

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.data_dir / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return state

    @property
    def environment(self) -> dict[str, str]:
        """What a shell has after `eval "$(refinery env)"`."""
        return load_environment(self.data_dir)

    @property
    def api_url(self) -> str:
        return self.environment["REFINERY_API_URL"]

    @property
    def ready_url(self) -> str:
        """What answers well as long as the API can do its work."""
        return f"{self.api_url}/health/ready"

    @property
    def database_url(self) -> str:
        return self.environment["REFINERY_DATABASE_URL"]

    @property
    def encryption_key(self) -> str:
        return self.environment["ASG_ENCRYPTION_KEY"]

    def prefect(self) -> httpx.Client:
        """A client of Prefect's API, with the operator's password."""
        url = self.environment["PREFECT_API_URL"]
        auth = PrefectAuth(self.environment["PREFECT_API_AUTH_STRING"], url)
        return httpx.Client(base_url=url, auth=auth, timeout=30)

    def find(self, name: str) -> psutil.Process | None:
        """The server of that name, if it runs."""
        for entry in self._state().get("processes", []):
            if entry["name"] == name:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found = psutil.Process(entry["pid"])
                    if found.status() != psutil.STATUS_ZOMBIE:
                        return found
        return None

    def await_server(
        self, name: str, *, other_than: psutil.Process | None = None
    ) -> psutil.Process:
        """The server of that name, as soon as it runs; another process than that."""
        deadline = time.monotonic() + _START_S_MAX
        while time.monotonic() < deadline:
            found = self.find(name)
            if found and found != other_than:
                return found
            assert self.is_running, f"refinery up has ended:\n{self.said()}"
            time.sleep(_POLL_S)
        raise AssertionError(f"waited {_START_S_MAX} s for {name}:\n{self.said()}")

    def fork_server(self) -> psutil.Process | None:
        """The process that runs are forked from."""
        return next((p for p in self._children(WORKER) if _is_fork(p)), None)

    def flows(self) -> list[psutil.Process]:
        """The processes of all runs."""
        parent = self.fork_server()
        if parent is None:
            return []
        try:
            return [child for child in parent.children() if _is_fork(child)]
        except psutil.NoSuchProcess:
            return []

    def backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes for its clients."""
        return [p for p in self._children(POSTGRES) if "127.0.0.1" in _command(p)]

    def postgres(self) -> list[psutil.Process]:
        """All of PostgreSQL's processes."""
        return [self.await_server(POSTGRES), *self._children(POSTGRES)]

    def _children(self, name: str) -> list[psutil.Process]:
        parent = self.find(name)
        try:
            return parent.children() if parent else []
        except psutil.NoSuchProcess:
            return []


def any_of(found: list[psutil.Process], dice: random.Random) -> list[psutil.Process]:
    """One of them, or none where there is none."""
    return [dice.choice(found)] if found else []


def send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    """Send a signal to all of them that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _is_fork(process: psutil.Process) -> bool:
    return "forkserver" in _command(process)
