"""Run Refinery on several machines, which are network namespaces of this one: `make grown`."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal, get_args

import cyclopts
import httpx
from rich.console import Console

from benchmarks.grown import faults, isolation, throughput
from benchmarks.grown import smoke as least
from benchmarks.grown.machines import MachineFailed
from benchmarks.grown.sizes import GrownSizes

_Part = Literal["throughput", "faults"]
_PARTS: tuple[_Part, ...] = get_args(_Part)
_INSIDE = "REFINERY_GROWN_PART"
_WIDTH_MIN = 170
_SIZES = GrownSizes()

app = cyclopts.App(name="benchmarks.grown", help=__doc__, version_flags=[])


@app.default
def main(
    *,
    only: Annotated[list[_Part] | None, cyclopts.Parameter(consume_multiple=True)] = None,
    smoke: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    sizes: Annotated[GrownSizes, cyclopts.Parameter(name="*")] = _SIZES,
) -> None:
    """Measure throughput, inject faults, and print tables. Fail if a fault was not survived.

    Parameters
    ----------
    only
        What to do, instead of everything.
    smoke
        Run one job of ten lines on as few machines as it takes, and nothing else.
    sizes
        How large the machines are, and what they have to do.
    """
    if part := os.environ.get(_INSIDE):
        sys.exit(_run(part, sizes))
    if why := isolation.obstacle():
        sys.exit(why)
    command = [sys.executable, "-m", "benchmarks.grown", *sys.argv[1:]]
    parts = ["smoke"] if smoke else [part for part in _PARTS if part in (only or _PARTS)]
    # Each has machines of its own.
    sys.exit(max(isolation.run(command, os.environ | {_INSIDE: part}) for part in parts))


def _run(part: str, sizes: GrownSizes) -> int:
    console = Console()
    console.width = max(console.width, _WIDTH_MIN)
    with isolation.work_folder() as folder:
        try:
            code = _PART[part](folder, sizes, console)
        except KeyboardInterrupt:
            return 130
        except (MachineFailed, throughput.ThroughputFailed, httpx.HTTPError) as error:
            console.print(str(error), style="red", markup=False)
            code = 1
        if code:
            console.print(f"The logs of all machines are in {_keep_logs(folder)}.")
        return code


def _keep_logs(folder: Path) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="grown-logs-"))
    for log in folder.glob("*/*.log"):
        shutil.copy(log, kept)
    return kept


def _throughput(folder: Path, sizes: GrownSizes, console: Console) -> int:
    for table in throughput.measure(folder, sizes, console):
        console.print(table)
    return 0


def _faults(folder: Path, sizes: GrownSizes, console: Console) -> int:
    rows = list(faults.inject(folder, sizes, console))
    console.print(faults.table_of(rows))
    return 1 if any(row.complaints for row in rows) else 0


def _smoke(folder: Path, _: GrownSizes, console: Console) -> int:
    least.run(folder, console)
    return 0


_PART = {"throughput": _throughput, "faults": _faults, "smoke": _smoke}

if __name__ == "__main__":
    app()
