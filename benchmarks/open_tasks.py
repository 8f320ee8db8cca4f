"""Measure a claim by the number of tasks that are pending or open in a job."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import annotator_runs
from benchmarks.annotation_jobs import add_annotators, make_job, settle_down
from benchmarks.annotator_runs import Run
from benchmarks.latencies import Latency
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from benchmarks.wire import Connection

# One task a claim, so that nothing hides the cost of finding it.
_BATCH = 1
_THRESHOLD = 2
# Tasks to claim beside those that nobody may have.
_SPARE_TASKS_PER_S = 5_000
_HOLD_BATCH = 500
_HOLD_LEASE_S = 24 * 3600
# A claim costs more, the more its own annotator holds; hardly any annotator holds so many.
_HELD_BY_ONE_MAX = 50_000
_GOAL = 1.3


class NotOpened(Exception):
    """A claim of pending tasks came back empty."""


@dataclass(frozen=True)
class _State:
    """Describe tasks that are held by `holders` annotators each, out of `_THRESHOLD`."""

    name: str
    holders: int


_STATES = (
    _State("pending: handed to nobody", 0),
    _State("open: handed to one, wanting another", 1),
    _State("open: handed to as many as wanted", 2),
)


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Measure each state and size on a stack of its own; ratios divide p95 by the smallest size's.

    Raises:
        AnnotatorsFailed: a request failed, a claim was empty, or a label was refused.
    """
    table = Table(
        title=(
            f"Claims of one task by the number of tasks in the job, {sizes.annotators} annotators, "
            f"{sizes.seconds:g} s each"
        ),
        title_justify="left",
    )
    table.add_column("tasks that are")
    for column in ("number", "claims/s", "claim p50 / p95 / p99, ms", "p95 ÷ smallest", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    for state in _STATES:
        smallest_ms: float | None = None
        for size in sorted({sizes.few_open_tasks, sizes.open_tasks}):
            run = _run(stacks, sizes, state, size, console)
            claim = Latency.of(run.counts.claims_s)
            ratio = f"{claim.p95_ms / smallest_ms:.2f}" if smallest_ms else ""
            smallest_ms = smallest_ms or claim.p95_ms
            rate = len(run.counts.claims_s) / run.seconds
            goal = f"≤ {_GOAL:g}" if ratio else ""
            table.add_row(state.name, f"{size:,}", f"{rate:,.0f}", str(claim), ratio, goal)
    return table


def _run(stacks: Stacks, sizes: Sizes, state: _State, size: int, console: Console) -> Run:
    spare_tasks = round(_SPARE_TASKS_PER_S * (sizes.seconds + sizes.warm_seconds))
    with stacks.bare() as databases:
        with console.status(f"Making {size:,} tasks: {state.name}"):
            _fill(databases, state, size, spare_tasks)
        with console.status(f"Claiming among {size:,} tasks: {state.name}"):
            keys = add_annotators(databases, sizes.annotators)
            run = annotator_runs.run(databases, keys, _BATCH, sizes)
    console.print(f"[dim]{size:,} tasks {state.name}: {Latency.of(run.counts.claims_s)} ms[/]")
    return run


def _fill(databases: Databases, state: _State, size: int, spare_tasks: int) -> None:
    make_job(databases, size + (spare_tasks if state.holders else 0), _THRESHOLD)
    total = size * state.holders
    # The next holders take tasks that want one holder more before those that want two.
    by_one = min(size, _HELD_BY_ONE_MAX) if state.holders == _THRESHOLD else size
    holds = [min(by_one, total - held) for held in range(0, total, by_one)]
    for key, tasks in zip(add_annotators(databases, len(holds), "holder"), holds, strict=True):
        _hold(databases, key, tasks)
    if state.holders:
        settle_down(databases)


class _Tasks(msgspec.Struct, frozen=True):
    tasks: list[msgspec.Raw]


def _hold(databases: Databases, key: str, tasks: int) -> None:
    """Claim that many tasks for longer than the measurement takes, and leave them."""
    api = urlsplit(databases.stack.api_url)
    with Connection(str(api.hostname), int(api.port or 0), key) as connection:
        while tasks:
            body = {"limit": min(tasks, _HOLD_BATCH), "lease_seconds": _HOLD_LEASE_S}
            content = connection.post("/v1/annotation/claim", msgspec.json.encode(body))
            claimed = len(msgspec.json.decode(content, type=_Tasks).tasks)
            if not claimed:
                raise NotOpened(f"{tasks} tasks could not be claimed.")
            tasks -= claimed
