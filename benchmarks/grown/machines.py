"""Make machines out of network namespaces, with links that can be cut, and crash them."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.grown.cpu_groups import CpuGroups

NETWORK = "10.203.0.0/24"  # the FRONT_SUBNET of compose.yaml
OPERATOR_ADDRESS = "10.203.0.1"
_ADDRESS = "10.203.0.{}"
_FIRST_HOST = 10
_BRIDGE = "refinery0"
_NAMESPACES = Path("/run/netns")
_HOSTS = Path("/etc/hosts")
_EXIT_S_MAX = 20.0
_POLL_S = 0.05
# Join the groups of the machine first: the rest of the command is in them then, and all that it starts.
_JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'


class MachineFailed(Exception):
    """A program of a machine ended by itself, or was not ready in time; the end of its log says why."""


class Process:
    """Watch a program that runs on a machine, in a session of its own."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self._child = child
        self._log = log

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program, and not to what it has started."""
        self._child.send_signal(number)

    def stop(self) -> float:
        """Ask it to end, kill it if it does not, and return how many seconds that took."""
        begin_s = time.monotonic()
        self._child.terminate()
        try:
            self._child.wait(_EXIT_S_MAX)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        return time.monotonic() - begin_s

    def wait(self, timeout_s: float) -> None:
        """Return when it has ended well.

        Raises:
            MachineFailed: it ended with an error, or not in time.
        """
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            raise MachineFailed(f"{self._log.stem} ended with {code}:\n{self.said()}")

    def said(self) -> str:
        """Return the end of what it has printed."""
        return self._log.read_text(errors="replace")[-3000:]


class Machine:
    """Run programs in a network namespace with one link, and within a share of the CPUs."""

    def __init__(self, name: str, number: int, groups: CpuGroups, folder: Path) -> None:
        self.name = name
        self.address = _ADDRESS.format(_FIRST_HOST + number)
        self.folder = folder / name
        self.folder.mkdir(mode=0o711)
        self._namespace = f"refinery-{name}"
        self._link = f"m{number}"
        self._groups = groups
        self._joined = groups.add(name)
        _ip(
            f"netns add {self._namespace}",
            f"link add {self._link} type veth peer name eth0 netns {self._namespace}",
            f"link set {self._link} master {_BRIDGE} up",
            f"-n {self._namespace} address add {self.address}/24 dev eth0",
            f"-n {self._namespace} link set eth0 up",
            f"-n {self._namespace} link set lo up",
        )

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: str = "",
        user: int | None = None,
    ) -> Process:
        """Start a program; it prints into a log in the machine's folder."""
        change_user = (
            ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        )
        enter = ["nsenter", f"--net={_NAMESPACES / self._namespace}"]
        join = ["sh", "-c", _JOIN, "join", *map(str, self._joined), "--"]
        log = self.folder / f"{name or self.name}.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                [*join, *enter, *change_user, *command],
                cwd=self.folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Process(child, log)

    def limit(self, cores: float | None) -> None:
        """Set how much of a core all programs of the machine together may use."""
        self._groups.limit(self.name, cores)

    @property
    def used_s(self) -> float:
        """Return the processor time that it has used so far."""
        return self._groups.used_s(self.name)

    def cut(self) -> None:
        """Pull the cable: nothing comes in or goes out, and nobody is told."""
        _ip(f"link set {self._link} down")

    def mend(self) -> None:
        """Put the cable back."""
        _ip(f"link set {self._link} up")

    def freeze(self) -> None:
        """Stop all its programs where they are, so that the machine takes no work."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all its programs go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def crash(self) -> None:
        """Switch the machine off: its link is gone before its programs could close a connection."""
        self.cut()
        deadline = time.monotonic() + _EXIT_S_MAX
        while pids := self.pids():
            if time.monotonic() > deadline:
                raise MachineFailed(f"{self.name} still runs {pids}.")
            self._send(signal.SIGKILL)
            time.sleep(_POLL_S)

    def pids(self) -> list[int]:
        """Return the pids of all its processes that have not ended."""
        found = subprocess.run(
            ["ip", "netns", "pids", self._namespace], capture_output=True, text=True, check=True
        )
        return [pid for pid in map(int, found.stdout.split()) if not _is_zombie(pid)]


class Network:
    """Connect machines by a bridge, on which this process is too, as the operator's machine.

    Names of machines mean their addresses for every process of the drill, and for nobody else.
    """

    def __init__(self, folder: Path, groups: CpuGroups) -> None:
        self._folder = folder
        self._groups = groups
        self.machines: dict[str, Machine] = {}
        self._hosts = folder / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost\n{OPERATOR_ADDRESS} operator\n")
        self._hosts.chmod(0o644)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
        subprocess.run(["mount", "--bind", str(self._hosts), str(_HOSTS)], check=True)
        _NAMESPACES.mkdir()
        _ip(
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"address add {OPERATOR_ADDRESS}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
        )

    def add(self, name: str) -> Machine:
        """Make a machine, and make its name known."""
        machine = Machine(name, len(self.machines), self._groups, self._folder)
        self.machines[name] = machine
        self.name(name, name)
        return machine

    def name(self, host: str, machine: str) -> None:
        """Have a host name mean a machine."""
        with self._hosts.open("a") as hosts:
            hosts.write(f"{self.machines[machine].address} {host}\n")

    def used_s(self) -> dict[str, float]:
        """Return the processor time in seconds that each machine has used so far."""
        return {name: machine.used_s for name, machine in self.machines.items()}


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def _is_zombie(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"
