"""Measure annotation beside transactions that hold a snapshot: an idle one, and dumps in a loop.

As long as somebody holds a snapshot, PostgreSQL keeps every version of every row that was there when it
was taken or came later, and whoever looks for a row walks over its dead versions. This is what brings
queues in PostgreSQL down.
"""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import annotator_runs
from benchmarks.annotation_jobs import add_annotators, make_job
from benchmarks.annotator_runs import Run
from benchmarks.latencies import Latency
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from deployments.embedded.environment import plain_environment
from deployments.embedded.postgres_programs import programs_folder

_THRESHOLD = 3
# More than are labelled: a claim that comes back empty fails the benchmark.
_SPARE_SHARE = 0.2
_TABLES = ("lanes", "leases", "vacancies", "tallies", "labels", "chunks")
_BLOAT = """
select name, pg_relation_size(name::regclass), pg_indexes_size(name::regclass),
       tuple_count, dead_tuple_count
from unnest(%s::text[]) name, pgstattuple(name::regclass)
"""
_MB = 1e6
_CLAIMS_GOAL = 1.5
_THROUGHPUT_GOAL = 0.9


class DumpFailed(Exception):
    """pg_dump ended with an error; its last lines say which."""


@dataclass(frozen=True)
class _Bloat:
    """Describe a table after a measurement, while the snapshot is still held; sizes are in bytes."""

    heap: int
    indexes: int
    live_rows: int
    dead_rows: int


@dataclass(frozen=True)
class _Measured:
    name: str
    run: Run
    bloat: dict[str, _Bloat]

    @property
    def labels_per_s(self) -> float:
        return self.run.counts.labels / self.run.seconds


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Iterator[Table]:
    """Yield a table of latencies and one of dead rows, of a stack of its own for each neighbour.

    Raises:
        AnnotatorsFailed: a request failed, a claim was empty, or a label was refused.
        DumpFailed: a dump failed.
    """
    neighbours: dict[str, Callable[[Databases], contextlib.AbstractContextManager[None]]] = {
        "nobody": lambda _: contextlib.nullcontext(),
        "a transaction idle": _hold_snapshot,
        "a transaction idle, dumps in a loop": _hold_snapshot_and_dump,
    }
    measured = [_measure(name, hold, stacks, sizes, console) for name, hold in neighbours.items()]
    yield _latencies(measured, sizes)
    yield _bloat(measured)


def _measure(
    name: str,
    hold: Callable[[Databases], contextlib.AbstractContextManager[None]],
    stacks: Stacks,
    sizes: Sizes,
    console: Console,
) -> _Measured:
    with stacks.bare() as databases:
        seconds = sizes.held_seconds + sizes.warm_seconds
        labels = sizes.labels_per_second * seconds
        with console.status("Making a job"):
            labels_each = min(_THRESHOLD, sizes.steady_annotators)
            tasks = round(labels / labels_each * (1 + _SPARE_SHARE))
            make_job(databases, tasks + sizes.steady_batch, _THRESHOLD)
        keys = add_annotators(databases, sizes.steady_annotators)
        with console.status(f"Annotating beside {name}"), hold(databases):
            run = annotator_runs.run(
                *(databases, keys, sizes.steady_batch, sizes),
                seconds=sizes.held_seconds,
                labels_per_s=sizes.labels_per_second,
            )
            bloat = _read_bloat(databases)
    measured = _Measured(name, run, bloat)
    console.print(
        f"[dim]beside {name}: {measured.labels_per_s:,.0f} labels/s, claims "
        f"{Latency.of(run.counts.claims_s)} ms[/]"
    )
    return measured


@contextlib.contextmanager
def _hold_snapshot(databases: Databases) -> Iterator[None]:
    """Hold a snapshot in a transaction that does nothing else, as a forgotten session does."""
    with psycopg.connect(databases.database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select count(*) from jobs")
        yield
        connection.rollback()


@contextlib.contextmanager
def _hold_snapshot_and_dump(databases: Databases) -> Iterator[None]:
    """Hold a snapshot, and dump the database again and again, as a backup does, to nowhere."""
    pg_dump = programs_folder() / "pg_dump"
    command = [str(pg_dump), "--format=custom", databases.database_url]
    is_over = threading.Event()
    failures: list[str] = []

    def dump() -> None:
        while not is_over.is_set() and not failures:
            process = subprocess.Popen(
                command,
                env=plain_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            while process.poll() is None:
                if is_over.wait(0.1):
                    process.kill()
            _, errors = process.communicate()
            if process.returncode and not is_over.is_set():
                failures.append(errors[-2000:])

    thread = threading.Thread(target=dump)
    with _hold_snapshot(databases):
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
    if failures:
        raise DumpFailed(failures[0])


def _read_bloat(databases: Databases) -> dict[str, _Bloat]:
    """Count the rows of the tables that annotation writes by reading all of their pages."""
    with databases.connect() as connection:
        connection.execute("create extension if not exists pgstattuple")
        rows = connection.execute(_BLOAT, [list(_TABLES)]).fetchall()
    return {name: _Bloat(*numbers) for name, *numbers in rows}


def _latencies(measured: Sequence[_Measured], sizes: Sizes) -> Table:
    table = Table(
        title=(
            f"{sizes.labels_per_second:,.0f} labels/s by {sizes.steady_annotators} annotators in "
            f"batches of {sizes.steady_batch}, {sizes.held_seconds:g} s beside each neighbour"
        ),
        title_justify="left",
    )
    table.add_column("beside")
    for column in (
        *("labels/s", "÷ nobody", "claim p50 / p95 / p99, ms", "p95 ÷ nobody"),
        *("in the last tenth", "p95 ÷ nobody", "labels p50 / p95 / p99, ms"),
        *("CPU s: API / PG", "goal"),
    ):
        table.add_column(column, justify="right")
    alone = measured[0]
    for each in measured:
        claims, late = (Latency.of(found) for found in _claims(each))
        claims_alone, late_alone = (Latency.of(found) for found in _claims(alone))
        table.add_row(
            each.name,
            f"{each.labels_per_s:,.0f}",
            f"{each.labels_per_s / alone.labels_per_s:.2f}",
            str(claims),
            f"{claims.p95_ms / claims_alone.p95_ms:.2f}",
            str(late),
            f"{late.p95_ms / late_alone.p95_ms:.2f}",
            str(Latency.of(each.run.counts.labels_s)),
            f"{each.run.api_cpu_s:.0f} / {each.run.postgres_cpu_s:.0f}",
            f"labels/s ≥ {_THROUGHPUT_GOAL:g}, p95 ≤ {_CLAIMS_GOAL:g}" if each is not alone else "",
        )
    return table


def _claims(measured: _Measured) -> tuple[list[float], list[float]]:
    """Return the latencies of all claims, and of those of the last tenth of the time."""
    counts = measured.run.counts
    return counts.claims_s, counts.late_claims_s or counts.claims_s


def _bloat(measured: Sequence[_Measured]) -> Table:
    table = Table(title="Tables at the end, the snapshot still being held", title_justify="left")
    table.add_column("beside")
    table.add_column("table")
    for column in ("live rows", "dead rows", "heap, MB", "indexes, MB"):
        table.add_column(column, justify="right")
    for each in measured:
        for name, bloat in each.bloat.items():
            table.add_row(
                each.name,
                name,
                f"{bloat.live_rows:,}",
                f"{bloat.dead_rows:,}",
                f"{bloat.heap / _MB:.2f}",
                f"{bloat.indexes / _MB:.2f}",
            )
        table.add_section()
    return table
