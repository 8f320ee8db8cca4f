"""Wait for processes that need not be our children, and end them."""

import contextlib
import time
from collections.abc import Sequence

import psutil

ENDED_POLL_S = 0.02


def wait_ended(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until these have ended; return those that still run after `timeout_s`.

    A zombie has ended. In a container whose first process reaps none, it stays in the list of processes
    for good, and `psutil.wait_procs` alone would wait for it in vain.
    """
    deadline = time.monotonic() + timeout_s
    while running := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            break
        psutil.wait_procs(running, timeout=ENDED_POLL_S)
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_and_wait(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Kill the processes, and wait for up to `timeout_s` until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_ended(processes, timeout_s)
