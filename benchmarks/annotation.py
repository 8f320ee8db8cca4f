"""Measure annotation over HTTP, beside the same statements in PostgreSQL, and Label Studio's API."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks import (
    annotation_floor,
    annotator_runs,
    label_studio,
    label_studio_annotations,
)
from benchmarks.annotation_jobs import add_annotators, make_job
from benchmarks.annotators import ACCURACY
from benchmarks.environments import NotInstalled
from benchmarks.latencies import Latency
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks

THRESHOLD = 3
# More tasks than are labelled in a measurement: a claim that comes back empty fails the benchmark.
_JOB_TASKS_PER_S = 40_000
_LABEL_STUDIO_TASKS = 2_000
_MAJORITY: dict[str, Any] = {}
# The same number of places from the beginning, so that claims do the same.
_WEIGHTED = {"target_confidence": 9500, "labels_max": 6, "gold_every": 10}


@dataclass
class _Figures:
    """Collect the figures of one entrant over all rounds; latencies are in seconds.

    The processor time is that of the API, of PostgreSQL and of the annotators' own process. Unknown
    figures stay empty.
    """

    name: str
    kind: Literal["ours", "floor", "other"]
    batch: int = 1
    claims: int = 0
    seconds: float = 0.0
    labels: int = 0
    settled: int = 0
    claims_s: list[float] = field(default_factory=list)
    labels_s: list[float] = field(default_factory=list)
    cpu_s: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def labels_per_s(self) -> float:
        return self.labels / self.seconds


@dataclass(frozen=True)
class _Entrant:
    """Pair an entrant's figures with `measure`, which measures once and adds to them."""

    figures: _Figures
    measure: Callable[[_Figures, Stacks, Sizes, Console], None]


def measure(chosen: Collection[str], stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Measure every entrant once in each round, on servers of its own without others' rows.

    Raises:
        AnnotatorsFailed: a request failed, a claim was empty, or a label was refused.
    """
    entrants = _entrants(chosen, sizes)
    for number in range(1, sizes.rounds + 1):
        for entrant in entrants:
            figures = entrant.figures
            try:
                entrant.measure(figures, stacks, sizes, console)
            except (NotInstalled, label_studio.LabelStudioFailed) as error:
                console.print(f"{figures.name} is left out: {error}", markup=False)
            else:
                so_far = f"{figures.labels_per_s:,.0f} labels/s in all rounds so far"
                console.print(f"[dim]round {number}: {figures.name}, {so_far}[/]")
    title = (
        f"Annotation: {sizes.annotators} annotators in closed loops, {sizes.seconds:g} s in each of "
        f"{sizes.rounds} interleaved rounds, threshold {THRESHOLD}, {ACCURACY:.0%} of the labels right, "
        f"{os.cpu_count()} cores"
    )
    return _table_of([each.figures for each in entrants if each.figures.labels], title)


def _entrants(chosen: Collection[str], sizes: Sizes) -> list[_Entrant]:
    """Return the entrants in the order of the table."""
    entrants = []
    if "weighted-annotation" in chosen:
        batches = sizes.batches
        entrants += [
            _ours(batch, weighted=weighted) for batch in batches for weighted in (False, True)
        ]
    if "annotation" in chosen:
        entrants += [make(batch) for batch in sizes.batches for make in (_ours, _floor)]
    if "label-studio-annotation" in chosen:
        entrants.append(
            _Entrant(_Figures("Label Studio: one POST a label", "other"), _label_studio)
        )
    return entrants


def _ours(batch: int, *, weighted: bool = False) -> _Entrant:
    rule = _WEIGHTED if weighted else _MAJORITY

    def measure(figures: _Figures, stacks: Stacks, sizes: Sizes, console: Console) -> None:
        with _job(stacks, sizes, console, rule) as (databases, keys):
            run = annotator_runs.run(databases, keys, batch, sizes)
        figures.seconds += run.seconds
        figures.claims += len(run.counts.claims_s)
        figures.labels += run.counts.labels
        figures.settled += run.counts.settled
        figures.claims_s += run.counts.claims_s
        figures.labels_s += run.counts.labels_s
        api_s, postgres_s, client_s = figures.cpu_s
        figures.cpu_s = (
            api_s + run.api_cpu_s,
            postgres_s + run.postgres_cpu_s,
            client_s + run.counts.cpu_s,
        )

    name = f"ours{', weighted, with gold' if weighted else ''}: batches of {batch}"
    return _Entrant(_Figures(name, "ours", batch), measure)


def _floor(batch: int) -> _Entrant:
    def measure(figures: _Figures, stacks: Stacks, sizes: Sizes, console: Console) -> None:
        with _job(stacks, sizes, console) as (databases, _):
            seconds, claims, labels, settled, cpu_s = annotation_floor.run(databases, batch, sizes)
        figures.seconds += seconds
        figures.claims += claims
        figures.labels += labels
        figures.settled += settled
        figures.cpu_s = (0.0, figures.cpu_s[1] + cpu_s, 0.0)

    return _Entrant(_Figures(f"floor: pgbench, batches of {batch}", "floor", batch), measure)


@contextlib.contextmanager
def _job(
    stacks: Stacks, sizes: Sizes, console: Console, rule: Mapping[str, Any] = _MAJORITY
) -> Iterator[tuple[Databases, list[str]]]:
    """Run a stack with a job that is large enough, and yield it with the annotators' keys."""
    tasks = round(_JOB_TASKS_PER_S * (sizes.seconds + sizes.warm_seconds))
    with stacks.bare() as databases:
        with console.status(f"Making a job of {tasks:,} tasks"):
            make_job(databases, tasks, THRESHOLD, **rule)
        keys = add_annotators(databases, sizes.annotators)
        with console.status("Annotating"):
            yield databases, keys


def _label_studio(figures: _Figures, stacks: Stacks, sizes: Sizes, console: Console) -> None:
    """Measure Label Studio; raises NotInstalled or LabelStudioFailed if it cannot be run."""
    with (
        stacks.bare() as databases,
        label_studio.running(databases, databases.stack.data_dir, console) as client,
        console.status("Annotating in Label Studio"),
    ):
        latencies_s = label_studio_annotations.run(client, sizes, _LABEL_STUDIO_TASKS, THRESHOLD)
    figures.seconds += sizes.seconds
    figures.labels += len(latencies_s)
    figures.labels_s += latencies_s


def _table_of(rows: Sequence[_Figures], title: str) -> Table:
    """Return a table; latencies are of requests, and a claim and its labels are one request each."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in (
        *("labels/s", "÷ floor", "÷ Label Studio", "claims/s", "settled/s"),
        *("claim p50 / p95 / p99, ms", "labels p50 / p95 / p99, ms"),
        "CPU ms a request: API / PG / client",
    ):
        table.add_column(column, justify="right")
    others = [row for row in rows if row.kind == "other"]
    for row in rows:
        floors = [each for each in rows if each.kind == "floor" and each.batch == row.batch]
        requests = 2 * row.claims
        table.add_row(
            row.name,
            f"{row.labels_per_s:,.0f}",
            _share(row, floors),
            _share(row, others),
            f"{row.claims / row.seconds:,.0f}" if requests else "",
            f"{row.settled / row.seconds:,.0f}" if requests else "",
            str(Latency.of(row.claims_s)) if row.claims_s else "",
            str(Latency.of(row.labels_s)) if row.labels_s else "",
            " / ".join(f"{1000 * each_s / requests:.2f}" for each_s in row.cpu_s)
            if requests
            else "",
        )
    return table


def _share(row: _Figures, of: Sequence[_Figures]) -> str:
    return f"{row.labels_per_s / of[0].labels_per_s:.2f}" if row.kind == "ours" and of else ""
