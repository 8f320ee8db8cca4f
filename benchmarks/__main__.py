"""Print what ingestion, annotation and results cost, beside floors and peers: `make bench`.

The figures are of one run on one machine; machines differ, ratios less so.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, get_args

import cyclopts
from rich.console import Console

from benchmarks import (
    annotation,
    chunk_counts,
    early_decisions,
    floors,
    label_studio,
    loaders,
    manifest,
    memory,
    open_tasks,
    ours,
    results,
    small_jobs,
    starts,
)
from benchmarks.annotator_runs import Load
from benchmarks.contender import Contender, compare, table_of
from benchmarks.environments import NotInstalled
from benchmarks.servers import Servers, data_folder, running

Name = Literal[
    "ours",
    "copy",
    "newlines",
    "executemany",
    "dlt-jsonl",
    "dlt-arrow",
    "label-studio",
    "memory",
    "chunks",
    "annotation",
    "label-studio-annotation",
    "open-tasks",
    "stop-early",
    "results",
    "label-studio-results",
    "starts",
    "small-jobs",
]
ALL: tuple[Name, ...] = get_args(Name)
_ANNOTATION = frozenset[Name]({"annotation", "label-studio-annotation"})
_RESULTS = frozenset[Name]({"results", "label-studio-results"})
_STACKS = frozenset[Name]({"open-tasks", "stop-early", "starts", "small-jobs"})
_INGESTION = frozenset(ALL) - _ANNOTATION - _RESULTS - _STACKS
# The settings of a contender do not fit into a narrower column.
_WIDTH_MIN = 150
_LOAD = Load()

app = cyclopts.App(name="benchmarks", help=__doc__, version_flags=[])


@app.default
def main(
    *,
    lines: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1000))] = (
        1_000_000
    ),
    rounds: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))] = 3,
    label_studio_lines: Annotated[
        int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=100, lte=250_000))
    ] = 20_000,
    jobs: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=10))] = 1000,
    idle_s: Annotated[
        float, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=60))
    ] = 600,
    load: Annotated[Load, cyclopts.Parameter(name="*")] = _LOAD,
    only: Annotated[list[Name] | None, cyclopts.Parameter(consume_multiple=True)] = None,
) -> None:
    """Measure, and print tables.

    Parameters
    ----------
    lines
        Lines of the manifest, one in a hundred of them bad.
    rounds
        Each thing is measured once in a round, one after the other; figures are medians, for annotation
        those of all rounds together.
    label_studio_lines
        Lines that Label Studio imports and exports; more would take it minutes a round.
    jobs
        Small jobs that are posted at once.
    idle_s
        Seconds of rest, after which the growth of Prefect's database is measured.
    load
        How annotation is measured.
    only
        What to measure, instead of everything.
    """
    chosen = frozenset(only or ALL)
    console = Console()
    console.width = max(console.width, _WIDTH_MIN)
    if chosen & _INGESTION:
        _measure_ingestion(chosen, lines, label_studio_lines, rounds, console)
    if chosen & _ANNOTATION:
        console.print(annotation.measure(chosen, load, rounds, console))
    if "open-tasks" in chosen:
        console.print(open_tasks.measure(load, console))
    if "stop-early" in chosen:
        console.print(early_decisions.measure(console))
    if "starts" in chosen:
        with data_folder() as folder, running(folder, console) as servers:
            console.print(starts.measure(servers, rounds, console))
    if "small-jobs" in chosen:
        with data_folder() as folder, running(folder, console) as servers:
            console.print(small_jobs.measure(servers, jobs, idle_s, console))
    if chosen & _RESULTS:
        peer = label_studio_lines if "label-studio-results" in chosen else 0
        for table in results.measure(lines, peer, rounds, console):
            console.print(table)


def _measure_ingestion(
    chosen: frozenset[Name], lines: int, label_studio_lines: int, rounds: int, console: Console
) -> None:
    with data_folder() as folder:
        with running(folder, console) as servers, contextlib.ExitStack() as stack:
            with console.status("Writing manifests"):
                whole = manifest.put(servers.store, lines)
            entrants = _Entrants(servers, whole, folder, console, stack)
            contenders = entrants.choose(chosen, label_studio_lines)
            if contenders:
                figures = compare(contenders, servers, rounds, console)
                title = (
                    f"Ingestion of {lines:,} lines ({whole.size / 1e6:.0f} MB), medians of "
                    f"{rounds} interleaved rounds, {os.cpu_count()} cores"
                )
                console.print(table_of(figures, title))
            stack.close()  # Label Studio must not slow down the next measurements
            if "memory" in chosen:
                console.print(memory.measure(servers, console))
        if "chunks" in chosen:
            console.print(chunk_counts.measure(folder, whole, rounds, console))


class _Entrants:
    """Make the contenders that were asked for; servers started for them end with `stack`."""

    def __init__(
        self,
        servers: Servers,
        whole: manifest.Manifest,
        folder: Path,
        console: Console,
        stack: contextlib.ExitStack,
    ) -> None:
        self._servers = servers
        self._whole = whole
        self._folder = folder
        self._console = console
        self._stack = stack

    def choose(self, chosen: frozenset[Name], label_studio_lines: int) -> list[Contender]:
        """Return them in the order of the table; report and leave out what cannot be started."""
        servers, whole = self._servers, self._whole
        makers: dict[Name, Callable[[], Contender]] = {
            "ours": lambda: ours.contender(servers, whole),
            "copy": lambda: floors.copy_contender(servers, whole),
            "newlines": lambda: floors.newlines_contender(servers, whole),
            "executemany": lambda: self._loader(loaders.plain_contender),
            "dlt-jsonl": lambda: self._loader(loaders.dlt_jsonl_contender),
            "dlt-arrow": lambda: self._loader(loaders.dlt_arrow_contender),
            "label-studio": lambda: self._label_studio(label_studio_lines),
        }
        contenders = []
        for name, make in makers.items():
            if name not in chosen:
                continue
            try:
                contenders.append(make())
            except (NotInstalled, label_studio.LabelStudioFailed) as error:
                self._console.print(f"{name} is left out: {error}", markup=False)
        return contenders

    def _loader(
        self, make: Callable[[Servers, manifest.Manifest, Console], Contender]
    ) -> Contender:
        good = manifest.put(self._servers.store, self._whole.lines, bad=False)
        return make(self._servers, good, self._console)

    def _label_studio(self, lines: int) -> Contender:
        good = manifest.put(self._servers.store, lines, bad=False)
        client = self._stack.enter_context(
            label_studio.running(self._servers, self._folder, self._console)
        )
        return label_studio.contender(self._servers, client, good, self._console)


if __name__ == "__main__":
    app()
