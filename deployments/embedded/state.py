"""Record who runs from a data directory: by a lock, and by a file of the processes."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from deployments.embedded.private_files import FILE_MODE, write_private
from deployments.embedded.processes import ChildProcess
from deployments.embedded.wait_for_exit import kill_and_wait, wait_ended
from deployments.errors import AlreadyRunning

PID_WIDTH = 20
# The kernel counts in ticks of 10 ms, to which psutil adds the time of boot.
CREATE_TIME_TOLERANCE_S = 1.0
LEFTOVER_STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0


class DataDirectoryLock:
    """Lock a data directory for a supervisor; the kernel releases the lock when that ends, however."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            AlreadyRunning: another supervisor holds it.
        """
        path = self._data_dir / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = int(os.pread(descriptor, PID_WIDTH, 0) or b"0")
            os.close(descriptor)
            urls = State(self._data_dir).read().get("urls", {})
            raise AlreadyRunning(self._data_dir, holder, urls) from None
        # The pid is padded to one width, and the file never truncated, so a reader never finds it empty.
        os.pwrite(descriptor, f"{os.getpid():<{PID_WIDTH}}".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class State:
    """Keep what runs in `<data_dir>/state.json`: the lock's holder writes it, all others read it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "state.json"

    def write(self, urls: Mapping[str, str], children: Iterable[ChildProcess]) -> None:
        processes = [
            {
                "name": child.name,
                "pid": child.pid,
                "create_time": child.create_time,
                "stop_signal": int(child.program.stop_signal),
            }
            for child in children
            if child.is_running
        ]
        state = {"pid": os.getpid(), "urls": dict(urls), "processes": processes}
        write_private(self._path, json.dumps(state, indent=1))

    def read(self) -> dict[str, Any]:
        """Return the last state; an empty one if there is none."""
        try:
            state: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return state

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def stop_leftovers(self) -> list[str]:
        """End the processes that a killed supervisor left running, and return their names.

        Call it with the lock held: then the writer of the state is gone.
        """
        entries = self.read().get("processes", [])
        found = [(entry, process) for entry in entries if (process := _process(entry))]
        leftovers = [process for _, process in found]
        for entry, process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(entry["stop_signal"])
        kill_and_wait(wait_ended(leftovers, LEFTOVER_STOP_TIMEOUT_S), KILL_TIMEOUT_S)
        self.clear()
        return [entry["name"] for entry, _ in found]


def _process(entry: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process of an entry, if it runs and its pid is not another process's by now."""
    try:
        process = psutil.Process(entry["pid"])
        created = process.create_time()
        ended = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    same = abs(created - float(entry["create_time"])) < CREATE_TIME_TOLERANCE_S
    return process if same and not ended else None
