"""A server as a child process: with a log of its own, asked if it is ready, stopped for certain."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from deployments.errors import ServerFailed
from deployments.exec_child import KEEP
from deployments.guard import Guard
from deployments.private_files import FILE_MODE

EXEC_CHILD = Path(__file__).with_name("exec_child.py")

READY_POLL_S = 0.05
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_TAIL_BYTES = 4096
LOG_TAIL_LINES = 15
PRIVATE_UMASK = 0o077


@dataclass(frozen=True)
class User:
    """Whom a server runs as."""

    name: str
    uid: int
    gid: int


def _nothing() -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Program:
    """How to start a server, how to ask it whether it is ready, and how to stop it.

    Secrets belong in `environment` or in files, never in `arguments`, which every user of the
    machine can read.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    is_ready: Callable[[], bool] = _never
    prepare: Callable[[], None] = _nothing
    """Runs before every start, restarts included."""
    user: User | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0
    stop_stage: int = 0
    """Lower stages stop first: what others need goes after them."""


class ChildProcess:
    """One run after another of a program, each in a process group of its own."""

    def __init__(
        self,
        program: Program,
        log_folder: Path,
        guard: Guard,
        on_death: Callable[["ChildProcess"], None] = lambda _: None,
    ) -> None:
        self.program = program
        self.log_path = log_folder / f"{program.name.lower().replace(' ', '-')}.log"
        self.pid = 0
        self.create_time = 0.0
        self.exit_code: int | None = None
        self._guard = guard
        self._on_death = on_death
        self._log_start = 0
        self._stopping = False
        self._started = threading.Event()
        self._exited = threading.Event()
        self._exited.set()
        # A group can outlive its leader: a killed Prefect worker leaves flow runs, which go on.
        self._groups: set[int] = set()

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def is_running(self) -> bool:
        return not self._exited.is_set()

    def spawn(self) -> None:
        """Starts the program and returns without waiting for it to be ready.

        Raises:
            OSError: the interpreter or the folder is missing.
        """
        self.program.prepare()
        self._forget_empty_groups()
        self._stopping = False
        self.exit_code = None
        self._exited.clear()
        self._started.clear()
        failure: list[OSError] = []
        # The parent-death signal comes when the *thread* that started the child ends. This one
        # lives as long as the child does, whichever thread called us.
        threading.Thread(
            target=self._live, args=(failure,), name=f"child {self.name}", daemon=True
        ).start()
        self._started.wait()
        if failure:
            raise failure[0]

    def _live(self, failure: list[OSError]) -> None:
        try:
            process = self._popen()
        except OSError as error:
            failure.append(error)
            self._exited.set()
            self._started.set()
            return
        self.pid = process.pid
        # Read before the process is reaped, so that it is there even if the program ended at once.
        self.create_time = psutil.Process(process.pid).create_time()
        self._groups.add(process.pid)
        self._guard.watch(process.pid)
        self._started.set()
        self.exit_code = process.wait()
        self._exited.set()
        if not self._stopping:
            self._on_death(self)

    def _popen(self) -> subprocess.Popen[bytes]:
        user = self.program.user
        uid, gid = (user.uid, user.gid) if user else (KEEP, KEEP)
        shim = [sys.executable, "-I", "-S", str(EXEC_CHILD), str(os.getpid()), str(uid), str(gid)]
        log = self._open_log()
        try:
            return subprocess.Popen(
                [*shim, *self.program.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.program.environment),
                cwd=self.program.folder,
                start_new_session=True,
                umask=PRIVATE_UMASK,
            )
        finally:
            os.close(log)

    def _open_log(self) -> int:
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        self._log_start = os.lseek(log, 0, os.SEEK_END)
        return log

    def wait_ready(self) -> None:
        """Returns when the server says that it is ready.

        Raises:
            ServerFailed: it ended first, or `start_timeout_s` passed; then it is killed.
        """
        deadline = time.monotonic() + self.program.start_timeout_s
        while not self.program.is_ready():
            if self._exited.wait(READY_POLL_S):
                raise self.failure(f"ended with exit code {self.exit_code} before it was ready")
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
                self._exited.wait()
                timeout_s = self.program.start_timeout_s
                raise self.failure(f"was not ready within {timeout_s:.0f} s")

    def start(self) -> None:
        """Spawns and waits until ready."""
        self.spawn()
        self.wait_ready()

    def run(self) -> None:
        """Runs a program that is meant to end.

        Raises:
            ServerFailed: its exit code is not 0, or `start_timeout_s` passed.
        """
        self.spawn()
        self.wait_success()

    def wait_success(self) -> None:
        """Waits for the end of a program that is meant to end; raises as `run` does."""
        if not self._exited.wait(self.program.start_timeout_s):
            self.stop()
            raise self.failure(f"did not finish within {self.program.start_timeout_s:.0f} s")
        self._sweep()
        if self.exit_code != 0:
            raise self.failure(f"ended with exit code {self.exit_code}")

    def ask_to_stop(self) -> None:
        """Sends the stop signal and returns at once, so that several can stop side by side."""
        self._stopping = True
        if self.is_running:
            self._started.wait()
            self._signal(self.program.stop_signal)

    def stop(self) -> None:
        """Ends the program and all that it started, by force if `stop_timeout_s` was not enough."""
        self.ask_to_stop()
        if not self._exited.wait(self.program.stop_timeout_s):
            self._signal(signal.SIGKILL)
            self._exited.wait()
        self._sweep()

    def _signal(self, number: signal.Signals) -> None:
        # Until `_live` has reaped it, the number cannot be another process's.
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _forget_empty_groups(self) -> None:
        """Before the kernel gives their numbers to others."""
        for group in list(self._groups):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                self._groups.remove(group)
                self._guard.forget(group)
            except PermissionError:
                continue

    def _sweep(self) -> None:
        """Kills what is left in the groups that this program led."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            self._guard.forget(group)
        self._groups.clear()

    def failure(self, reason: str) -> ServerFailed:
        """The error that says this about the server, with the last lines of this run's log."""
        return ServerFailed(self.name, reason, self.log_path, self._log_tail())

    def _log_tail(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])
