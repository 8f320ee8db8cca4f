"""Run a drill in namespaces of its own, which end with it in whatever way it ends."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.grown.cpu_groups import find_groups, remove_groups
from deployments.embedded.exec_child import KEEP
from deployments.embedded.processes import EXEC_CHILD

PREFIX = "refinery-grown-"
_PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "mount")
# The kernel ends every process of a PID namespace with its first one, and removes the network and the
# mounts with the last. A shell is that first process: it collects orphans, and signals of a terminal do
# not end it.
_UNSHARE = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"),
    *("sh", "-c", '"$@"; exit $?', "refinery"),
)
_FOLDER_MODE = 0o711  # PostgreSQL and Caddy run as other users


def obstacle() -> str | None:
    """Return why there can be no machines here, as a sentence; None if there can."""
    if not sys.platform.startswith("linux"):
        return "make grown needs Linux: its machines are network namespaces."
    if os.geteuid() != 0:
        return "make grown needs root: its machines are network namespaces."
    if missing := [name for name in _PROGRAMS if not shutil.which(name)]:
        return f"make grown needs {', '.join(missing)} (Debian: apt install iproute2 util-linux)."
    probe = (
        "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add probe "
        "&& ip link add probe type bridge"
    )
    tried = subprocess.run(
        [*_UNSHARE, "sh", "-c", probe], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"The kernel lets nobody make network namespaces here: {tried.stderr.strip()}"
    return None


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program in namespaces of its own, which die with this process, and return its exit code."""
    shim = [sys.executable, "-I", "-S", str(EXEC_CHILD), str(os.getpid()), str(KEEP), str(KEEP)]
    with subprocess.Popen([*shim, *_UNSHARE, *command], env=dict(environment)) as child:
        # Ctrl-C is for the program, which cleans up.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Make a folder, and remove it afterwards, with its CPU groups and what killed drills left."""
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(_FOLDER_MODE)
    with _locked(folder):
        try:
            yield folder
        finally:
            remove_groups(folder.name)
            shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(folder):
            remove_groups(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
    # A group that had a process which nobody had collected yet could not be removed with its folder.
    for name in find_groups(PREFIX):
        if not Path(tempfile.gettempdir(), name).exists():
            remove_groups(name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock that ends with the process.

    Raises:
        BlockingIOError: a drill that runs has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
