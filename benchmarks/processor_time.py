"""Read how much processor time the servers have taken."""

import contextlib

import psutil

from benchmarks.servers import Databases


def api_s(databases: Databases) -> float:
    """Return the seconds of processor time that the API's process has taken since its start."""
    return _own_s(psutil.Process(databases.pid("API")))


def postgres_s(databases: Databases) -> float:
    """Return those of PostgreSQL, with its processes that have ended."""
    postmaster = psutil.Process(databases.pid("PostgreSQL"))
    ended = postmaster.cpu_times()
    total_s = _own_s(postmaster) + ended.children_user + ended.children_system
    for child in postmaster.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total_s += _own_s(child)
    return total_s


def _own_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
