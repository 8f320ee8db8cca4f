"""Every benchmark runs to its end at the least sizes, on one stack; its figures are not looked at."""

import itertools
import re
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks import suite
from benchmarks.sizes import SMOKE
from benchmarks.stacks import SharedStack

# What each yields: rows of each table, in order.
ROWS: dict[tuple[suite.Name, ...], list[int]] = {
    ("ours", "copy", "newlines"): [4],
    ("large",): [3],
    ("memory",): [len(SMOKE.memory_lines)],
    ("chunks",): [len(SMOKE.chunk_counts)],
    ("annotation",): [2 * len(SMOKE.batches)],
    ("weighted-annotation",): [2 * len(SMOKE.batches)],
    ("label-page",): [2],
    ("open-tasks",): [3],
    ("stop-early",): [3],
    ("held-snapshot",): [3, 18],
    ("starts",): [3],
    ("small-jobs",): [4],
    ("results",): [6, 1],
    ("inference",): [8, 8],
    ("quality",): [80, 6, 12],
    ("restore",): [8],
    ("years",): [5, 13],
}
# Its rows depend on which tables have grown.
DISK: tuple[suite.Name, ...] = ("disk",)


@pytest.fixture(scope="module")
def console() -> Console:
    return Console(width=200)


@pytest.fixture(scope="module")
def stack(console: Console) -> Iterator[SharedStack]:
    with SharedStack(console) as found:
        yield found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", ROWS, ids=",".join)
def test_a_benchmark_prints_its_rows(
    names: tuple[suite.Name, ...], stack: SharedStack, console: Console
) -> None:
    tables = list(suite.measure(names, stack, SMOKE, console))
    assert [table.row_count for table in tables] == ROWS[names]
    assert all(_shows_a_figure(row) for table in tables for row in _rows(table))


def test_bytes_on_disk_are_summed(stack: SharedStack, console: Console) -> None:
    (table,) = suite.measure(DISK, stack, SMOKE, console)
    rows = [row for row in _rows(table) if row[1] == "all of them"]
    ingested, completed, archived = (float(row[2]) for row in rows)
    assert 0 < ingested < archived < completed


def test_every_benchmark_is_run_here() -> None:
    assert {*itertools.chain.from_iterable(ROWS), *DISK} == set(suite.ALONE)


def _rows(table: Table) -> Iterator[tuple[str, ...]]:
    return zip(*(map(str, column.cells) for column in table.columns), strict=True)


def _shows_a_figure(row: tuple[str, ...]) -> bool:
    """Return whether a cell behind the name is a number."""
    return any(re.match(r"[\d,]+(\.\d+)?\b", cell) for cell in row[1:])
