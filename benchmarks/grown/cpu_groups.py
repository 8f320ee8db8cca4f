"""Give each machine its share of the CPUs by control groups, and read what it has used.

The groups of version 1 (`cpu`, `cpuacct`) and of version 2 (`cpu.max`) do the same. Where the kernel
lets us have neither, machines share the CPUs as they come.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

ROOT = Path("/sys/fs/cgroup")
# Periods are short, so that a machine with a small share waits a few milliseconds at a time.
_PERIOD_US = 20_000
_QUOTA_US_MIN = 1_000  # the kernel takes no less
# All machines together are one group beside everything else that runs here, and a group weighs as much
# as one process unless it is told otherwise.
_SHARES = 64 * 1024
_WEIGHT = 64 * 100
_NS_PER_S = 1e9
_US_PER_S = 1e6


class CpuGroups(Protocol):
    """Groups of one drill, by the names of their machines."""

    note: str
    """What they are, as a sentence for the output."""

    def add(self, machine: str) -> list[Path]:
        """Make a group, without a limit; return the files that a process's pid is written to."""
        ...

    def limit(self, machine: str, cores: float | None) -> None:
        """Set how much of a core the machine may use; None is as much as there is."""
        ...

    def used_s(self, machine: str) -> float:
        """Return the processor time in seconds that the machine has used so far."""
        ...


class VersionOne:
    """Use two hierarchies, one for the limit and one for the account."""

    note = "CPU shares by cgroup v1 (cpu)."

    def __init__(self, token: str, root: Path = ROOT) -> None:
        self._cpu, self._account = root / "cpu" / token, root / "cpuacct" / token

    def add(self, machine: str) -> list[Path]:
        folders = [self._cpu / machine, self._account / machine]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        (self._cpu / "cpu.shares").write_text(str(_SHARES))
        (folders[0] / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        return [folder / "cgroup.procs" for folder in folders]

    def limit(self, machine: str, cores: float | None) -> None:
        quota = -1 if cores is None else _quota_us(cores)
        (self._cpu / machine / "cpu.cfs_quota_us").write_text(str(quota))

    def used_s(self, machine: str) -> float:
        return int((self._account / machine / "cpuacct.usage").read_text()) / _NS_PER_S


class VersionTwo:
    """Use one hierarchy for both."""

    note = "CPU shares by cgroup v2 (cpu.max)."

    def __init__(self, token: str, root: Path = ROOT) -> None:
        self._folder = root / token
        self._folder.mkdir(exist_ok=True)
        for folder in (root, self._folder):
            (folder / "cgroup.subtree_control").write_text("+cpu")
        (self._folder / "cpu.weight").write_text(str(_WEIGHT))

    def add(self, machine: str) -> list[Path]:
        folder = self._folder / machine
        folder.mkdir(exist_ok=True)
        return [folder / "cgroup.procs"]

    def limit(self, machine: str, cores: float | None) -> None:
        quota = "max" if cores is None else str(_quota_us(cores))
        (self._folder / machine / "cpu.max").write_text(f"{quota} {_PERIOD_US}")

    def used_s(self, machine: str) -> float:
        lines = (self._folder / machine / "cpu.stat").read_text().splitlines()
        fields = dict(line.split() for line in lines)
        return int(fields["usage_usec"]) / _US_PER_S


class Unlimited:
    """Let all machines share the CPUs as they come."""

    def __init__(self, reason: str) -> None:
        self.note = f"No CPU shares: {reason}; throughput by shares means nothing here."

    def add(self, machine: str) -> list[Path]:  # noqa: ARG002
        return []

    def limit(self, machine: str, cores: float | None) -> None:
        """Do nothing."""

    def used_s(self, machine: str) -> float:  # noqa: ARG002
        return float("nan")


def open_groups(token: str, root: Path = ROOT) -> CpuGroups:
    """Return the groups that the kernel lets us have."""
    reasons = []
    for version in (VersionOne, VersionTwo):
        if version is VersionOne and not (root / "cpu").is_dir():
            continue
        try:
            groups: CpuGroups = version(token, root)
            groups.add("probe")
            groups.limit("probe", 1.0)
            groups.used_s("probe")
            return groups
        except OSError as error:
            reasons.append(f"{error.filename}: {error.strerror}")
    return Unlimited("; ".join(reasons))


def remove_groups(token: str, root: Path = ROOT) -> None:
    """Remove all groups of a drill; those that still have processes stay."""
    for folder in _folders(token, root):
        with contextlib.suppress(OSError):
            folder.rmdir()


def find_groups(prefix: str, root: Path = ROOT) -> set[str]:
    """Return the names of drills that have groups."""
    parents = (root / "cpu", root / "cpuacct", root)
    return {each.name for parent in parents for each in parent.glob(f"{prefix}*")}


def _folders(token: str, root: Path) -> Iterator[Path]:
    for parent in (root / "cpu" / token, root / "cpuacct" / token, root / token):
        if parent.is_dir():
            yield from (each for each in parent.iterdir() if each.is_dir())
            yield parent


def _quota_us(cores: float) -> int:
    return max(round(cores * _PERIOD_US), _QUOTA_US_MIN)
