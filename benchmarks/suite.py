"""List what can be measured, by name, and measure it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table

from benchmarks import (
    annotation,
    chunk_counts,
    disk,
    early_decisions,
    environments,
    floors,
    held_snapshot,
    inference,
    label_page,
    label_studio,
    loaders,
    manifest,
    memory,
    open_tasks,
    ours,
    quality,
    restore,
    results,
    small_jobs,
    starts,
    years,
)
from benchmarks.contender import Contender, compare, table_of
from benchmarks.environments import NotInstalled
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks

Name = Literal[
    "ours",
    "copy",
    "newlines",
    "executemany",
    "dlt-jsonl",
    "dlt-arrow",
    "label-studio",
    "large",
    "memory",
    "chunks",
    "disk",
    "annotation",
    "label-page",
    "weighted-annotation",
    "label-studio-annotation",
    "open-tasks",
    "stop-early",
    "held-snapshot",
    "starts",
    "small-jobs",
    "results",
    "label-studio-results",
    "inference",
    "quality",
    "restore",
    "years",
]
ALL: tuple[Name, ...] = get_args(Name)
# They need an environment of this name, which is made from a package index.
_ENVIRONMENTS: dict[Name, str] = {
    "executemany": "plain",
    "dlt-jsonl": "dlt",
    "dlt-arrow": "dlt",
    "label-studio": "label-studio",
    "label-studio-annotation": "label-studio",
    "label-studio-results": "label-studio",
}
# Those that need nothing that has to be fetched.
ALONE = tuple(name for name in ALL if name not in _ENVIRONMENTS)
_CONTENDERS: tuple[Name, ...] = (
    *("ours", "copy", "newlines", "executemany", "dlt-jsonl", "dlt-arrow", "label-studio"),
)


def installed() -> tuple[Name, ...]:
    """Return the names of all that can be measured without fetching anything."""
    return tuple(
        name
        for name in ALL
        if name not in _ENVIRONMENTS or environments.is_installed(_ENVIRONMENTS[name])
    )


def measure(
    chosen: Collection[Name], stacks: Stacks, sizes: Sizes, console: Console
) -> Iterator[Table]:
    """Measure everything that was chosen, and yield its tables; report what had to be left out."""
    for names, measure_them in _GROUPS.items():
        if chosen_here := [name for name in names if name in chosen]:
            yield from measure_them(chosen_here, stacks, sizes, console)


def _ingestion(
    chosen: Collection[Name], stacks: Stacks, sizes: Sizes, console: Console
) -> Iterator[Table]:
    with stacks.whole() as servers, contextlib.ExitStack() as stack:
        with console.status("Writing manifests"):
            whole = manifest.put(servers.store, sizes.lines)
        entrants = _Entrants(servers, whole, sizes.label_studio_lines, console, stack)
        figures = compare(entrants.choose(chosen), servers, sizes.rounds, console)
    title = (
        f"Ingestion of {sizes.lines:,} lines ({whole.size / 1e6:.0f} MB), medians of "
        f"{sizes.rounds} interleaved rounds, {os.cpu_count()} cores"
    )
    yield table_of(figures, title)


def _large(_: Collection[Name], stacks: Stacks, sizes: Sizes, console: Console) -> Iterator[Table]:
    large = dataclasses.replace(sizes, lines=sizes.large_lines, rounds=1)
    return _ingestion(("ours", "copy"), stacks, large, console)


class _Entrants:
    """Make the contenders that were asked for; servers started for them end with `stack`."""

    def __init__(
        self,
        servers: Servers,
        whole: manifest.Manifest,
        label_studio_lines: int,
        console: Console,
        stack: contextlib.ExitStack,
    ) -> None:
        self._servers = servers
        self._whole = whole
        self._label_studio_lines = label_studio_lines
        self._console = console
        self._stack = stack

    def choose(self, chosen: Collection[Name]) -> list[Contender]:
        """Return them in the order of the table; report and leave out what cannot be started."""
        servers, whole = self._servers, self._whole
        makers: dict[Name, Callable[[], Contender]] = {
            "ours": lambda: ours.contender(servers, whole),
            "copy": lambda: floors.copy_contender(servers, whole),
            "newlines": lambda: floors.newlines_contender(servers, whole),
            "executemany": lambda: self._loader(loaders.plain_contender),
            "dlt-jsonl": lambda: self._loader(loaders.dlt_jsonl_contender),
            "dlt-arrow": lambda: self._loader(loaders.dlt_arrow_contender),
            "label-studio": self._label_studio,
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

    def _label_studio(self) -> Contender:
        good = manifest.put(self._servers.store, self._label_studio_lines, bad=False)
        client = self._stack.enter_context(
            label_studio.running(self._servers, self._servers.stack.data_dir, self._console)
        )
        return label_studio.contender(self._servers, client, good, self._console)


def _annotation(
    chosen: Collection[Name], stacks: Stacks, sizes: Sizes, console: Console
) -> Iterator[Table]:
    yield annotation.measure(chosen, stacks, sizes, console)


def _alone(
    measure_it: Callable[[Stacks, Sizes, Console], Table | Iterable[Table]],
) -> "_Measure":
    """Take a measurement that has one name only."""

    def measure_them(
        _: Collection[Name], stacks: Stacks, sizes: Sizes, console: Console
    ) -> Iterator[Table]:
        found = measure_it(stacks, sizes, console)
        yield from [found] if isinstance(found, Table) else found

    return measure_them


_Measure = Callable[[Collection[Name], Stacks, Sizes, Console], Iterator[Table]]
# Names that are measured together, in the order of their tables.
_GROUPS: dict[tuple[Name, ...], _Measure] = {
    _CONTENDERS: _ingestion,
    ("large",): _large,
    ("memory",): _alone(memory.measure),
    ("chunks",): _alone(chunk_counts.measure),
    ("disk",): _alone(disk.measure),
    ("annotation", "weighted-annotation", "label-studio-annotation"): _annotation,
    ("label-page",): _alone(label_page.measure),
    ("open-tasks",): _alone(open_tasks.measure),
    ("stop-early",): _alone(early_decisions.measure),
    ("held-snapshot",): _alone(held_snapshot.measure),
    ("starts",): _alone(starts.measure),
    ("small-jobs",): _alone(small_jobs.measure),
    ("results", "label-studio-results"): results.measure,
    ("inference",): _alone(inference.measure),
    ("quality",): _alone(quality.measure),
    ("restore",): _alone(restore.measure),
    ("years",): _alone(years.measure),
}
