"""Measure peak memory by the size of the manifest."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table

from benchmarks import manifest, ours
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks

_POLL_S = 0.05
_MIB = 1024 * 1024
_KIB = 1024


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Ingest a manifest of each size once, and return a table of the peaks."""
    table = Table(title="Peak memory (VmHWM) while a manifest is ingested", title_justify="left")
    for column in ("lines", "MB", "s", "lines/s", "flow, MiB", "its processes", "worker", "API"):
        table.add_column(column, justify="right")
    with stacks.whole() as servers:
        for lines in sizes.memory_lines:
            servers.clear()
            with console.status(f"Memory: {lines:,} lines"):
                each = manifest.put(servers.store, lines)
                with Watch(servers) as watch:
                    seconds = ours.ingest(servers, each).whole_s
            table.add_row(
                f"{lines:,}",
                f"{each.size / 1e6:.1f}",
                f"{seconds:.1f}",
                f"{lines / seconds:,.0f}",
                f"{watch.flow_bytes / _MIB:.0f}",
                str(watch.flow_processes),
                f"{watch.worker_bytes / _MIB:.0f}",
                f"{watch.api_bytes / _MIB:.0f}",
            )
    return table


class Watch:
    """Poll the processes of a stack; the attributes have their values when the block has ended.

    `flow_bytes` is that of the largest flow run: the sum of the peaks of its processes that lived at
    once, so no less than the true peak.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._worker_pid = servers.pid("Prefect worker")
        self._api_pid = servers.pid("API")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self.flow_bytes = 0
        self.flow_processes = 0
        self.worker_bytes = 0
        self.api_bytes = 0

    def __enter__(self) -> Self:
        for pid in (self._worker_pid, self._api_pid):
            forget_peak(pid)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self.worker_bytes = peak_bytes(self._worker_pid)
        self.api_bytes = peak_bytes(self._api_pid)

    def _poll(self) -> None:
        while not self._is_over.wait(_POLL_S):
            for processes in self._servers.flow_runs():
                peaks = [peak for process in processes if (peak := peak_bytes(process.pid))]
                self.flow_bytes = max(self.flow_bytes, sum(peaks))
                self.flow_processes = max(self.flow_processes, len(peaks))


def peak_bytes(pid: int) -> int:
    """Return the most bytes that a process ever held resident; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return 0


def forget_peak(pid: int) -> None:
    """Reset a server's peak; a kernel that forbids that leaves the peak of its life."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
