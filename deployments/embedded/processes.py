"""Run a server as a child process: log its output, ask whether it is ready, stop it for certain."""

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

from deployments.embedded.exec_child import KEEP
from deployments.embedded.guard import Guard
from deployments.embedded.process_log import ProcessLog
from deployments.errors import ServerFailed

EXEC_CHILD = Path(__file__).with_name("exec_child.py")

READY_POLL_S = 0.1
ALIVE_POLL_S = 1.0
PRIVATE_UMASK = 0o077


@dataclass(frozen=True)
class User:
    """Name the user that a server runs as."""

    name: str
    uid: int
    gid: int


def _nothing() -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Program:
    """Tell how to start a server, how to ask whether it is ready, and how to stop it.

    Secrets belong in `environment` or in files, never in `arguments`, which every user of the
    machine can read.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    is_ready: Callable[[], bool] = _never
    is_alive: Callable[[], bool] | None = None
    """Return whether it answers at all, if only that it cannot work yet. A server that does is left
    alone; one that does not is killed after `start_timeout_s`, or after a minute once it was ready."""
    prepare: Callable[[], None] = _nothing
    """It runs before every start, restarts included."""
    port: int | None = None
    """The port of 127.0.0.1 that it listens on: while another program does, its answers do not count."""
    user: User | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0
    stop_stage: int = 0
    """Lower stages stop first; a server that others need stops after them."""


class ChildProcess:
    """Run a program time after time, each time in a process group of its own."""

    def __init__(
        self,
        program: Program,
        log_folder: Path,
        guard: Guard,
    ) -> None:
        self.program = program
        self.log = ProcessLog(log_folder / f"{program.name.lower().replace(' ', '-')}.log")
        self.pid = 0
        self.create_time = 0.0
        self.exit_code: int | None = None
        self._guard = guard
        self._started = threading.Event()
        self._exited = threading.Event()
        self._exited.set()
        # A group can outlive its leader: the flow runs of a killed Prefect worker go on.
        self._groups: set[int] = set()
        # The error that the last question ended with, as the end of a sentence.
        self._mistake = ""

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def is_running(self) -> bool:
        return not self._exited.is_set()

    def spawn(self) -> None:
        """Start the program, and return without waiting until it is ready.

        Raises:
            OSError: the interpreter or the folder is missing.
        """
        # An error of ours may have ended the watch over a process that runs on.
        self.kill()
        self.program.prepare()
        self._forget_empty_groups()
        self._started.clear()
        failure: list[OSError] = []
        # The parent-death signal comes when the *thread* that started the child ends. This thread lives
        # as long as the child, whichever thread called us.
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
            self._started.set()
            return
        self.exit_code = None
        self._exited.clear()
        self.pid = process.pid
        # It is read before the process is reaped, so it is known even if the program ended at once.
        self.create_time = _create_time(process.pid)
        self._groups.add(process.pid)
        self._guard.watch(process.pid)
        self._started.set()
        self.exit_code = process.wait()
        self._exited.set()

    def _popen(self) -> subprocess.Popen[bytes]:
        user = self.program.user
        uid, gid = (user.uid, user.gid) if user else (KEEP, KEEP)
        shim = [sys.executable, "-I", "-S", str(EXEC_CHILD), str(os.getpid()), str(uid), str(gid)]
        log = self.log.open()
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

    def wait_ready(self) -> None:
        """Return when the server is ready, however long that takes as long as it answers.

        Raises:
            ServerFailed: it ended first, or gave no answer for `start_timeout_s` and was killed.
        """
        timeout_s = self.program.start_timeout_s
        heard_s = polled_s = time.monotonic()
        while True:
            # The time is read before the questions: whatever holds them up (a busy machine, Ctrl-Z on
            # ourselves) is no silence of the server. It is killed for a question that it was asked after
            # the time-out and did not answer, and for no other.
            asked_s = time.monotonic()
            if self._is_ready():
                return
            if asked_s - polled_s >= ALIVE_POLL_S:
                polled_s = asked_s
                if self.program.is_alive and self.is_alive():
                    heard_s = time.monotonic()
                elif asked_s - heard_s >= timeout_s:
                    self.kill()
                    raise self.failure(f"was not ready within {timeout_s:.0f} s{self._mistake}")
            if self._exited.wait(READY_POLL_S):
                raise self.failure(f"ended with exit code {self.exit_code} before it was ready")

    def _is_ready(self) -> bool:
        return self._answers_yes(self.program.is_ready) and self._listens()

    def is_alive(self) -> bool:
        """Return whether the program answers, as far as that can be asked."""
        is_alive = self.program.is_alive
        return is_alive is None or (self._answers_yes(is_alive) and self._listens())

    def _answers_yes(self, question: Callable[[], bool]) -> bool:
        """Ask. An error is no answer, and the reason of a later failure names it.

        Raised, it would end the watch over a program that runs, and a second one would be started.
        """
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001 - whatever it is, the program may answer next time
            self._mistake = f" ({type(error).__name__}: {error})"
            return False
        self._mistake = ""
        return answer

    def _listens(self) -> bool:
        if self.program.port is None:
            return True
        try:
            connections = psutil.Process(self.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == self.program.port
            for each in connections
        )

    def wait_exit(self, timeout_s: float | None = None) -> bool:
        """Wait for up to `timeout_s` seconds; return whether the process has ended."""
        return self._exited.wait(timeout_s)

    @property
    def is_stopped(self) -> bool:
        """Return whether the process was stopped by a signal (SIGSTOP), and not continued."""
        try:
            status: str = psutil.Process(self.pid).status()
        except psutil.Error:
            return False
        return status == psutil.STATUS_STOPPED

    def kill(self) -> None:
        """End the process itself by force; its descendants run on."""
        self._signal(signal.SIGKILL)
        self._exited.wait()

    def start(self) -> None:
        """Spawn the program, and wait until it is ready; raises as `spawn` and `wait_ready` do."""
        self.spawn()
        self.wait_ready()

    def run(self) -> None:
        """Run a program that ends by itself.

        Raises:
            ServerFailed: its exit code is not 0, or `start_timeout_s` passed.
        """
        self.spawn()
        self.wait_success()

    def wait_success(self) -> None:
        """Wait for the end of a program that ends by itself; raises as `run` does."""
        if not self._exited.wait(self.program.start_timeout_s):
            self.stop()
            raise self.failure(f"did not finish within {self.program.start_timeout_s:.0f} s")
        self._sweep()
        if self.exit_code != 0:
            raise self.failure(f"ended with exit code {self.exit_code}")

    def ask_to_stop(self) -> None:
        """Send the stop signal and return at once, so that several can stop side by side."""
        if self.is_running:
            self._started.wait()
            self._signal(self.program.stop_signal)

    def stop(self) -> None:
        """End the program and all its descendants, by force after `stop_timeout_s`."""
        self.ask_to_stop()
        if not self._exited.wait(self.program.stop_timeout_s):
            self.kill()
        self._sweep()

    def _signal(self, number: signal.Signals) -> None:
        # Until `_live` has reaped the process, no other one can have its pid.
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _forget_empty_groups(self) -> None:
        """Forget groups without a process, before the kernel gives their numbers to others."""
        for group in list(self._groups):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                self._groups.remove(group)
                self._guard.forget(group)
            except PermissionError:
                continue

    def _sweep(self) -> None:
        """Kill the processes that are left in the groups that this program led."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            self._guard.forget(group)
        self._groups.clear()

    def failure(self, reason: str) -> ServerFailed:
        """Return an error with this reason, and the last lines of this run's log."""
        return ServerFailed(self.name, reason, self.log.path, self.log.tail())


def _create_time(pid: int) -> float:
    """Return seconds since the epoch; 0, which no process has, if that cannot be read."""
    try:
        return psutil.Process(pid).create_time()
    except (psutil.Error, OSError):
        return 0.0
