"""Measure truth inference over a finished job: the computation, its columns, the whole answer."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks import environments
from benchmarks.annotation_jobs import complete, make_job, settle_down
from benchmarks.crowds import Crowd, make_crowd
from benchmarks.disk import archive_all
from benchmarks.environments import PEERS, NotInstalled
from benchmarks.memory import forget_peak, peak_bytes
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks.domain.model import InferenceMethod
from blocks.inference.dawid_skene import ITERATIONS_MAX, TOLERANCE, Inference, infer
from blocks.store import customers, label_columns
from blocks.store.database import Database
from blocks.store.jobs import Job

_EACH = 3
_CROWDS = ((20, 2), (100, 2), (100, 10), (1000, 10))  # annotators, options
_STORED = (100, 2)
_GOAL = 1_000_000
_TIMEOUT_S = 900
_MIB = 1024 * 1024
_LABELS_MAX = 10**9
_TALLIES = """
insert into tallies (job_no, task_no, labelled_at, latest, threshold, places, outcome, stop_early, votes,
                     annotators)
select job_no, task_no, now(), 1, 3, 3, mode() within group (order by option), false, '{2,1}',
       array_agg(annotator_no)
from labels where job_no = %s group by job_no, task_no
"""


@dataclass
class _Run:
    """What was inferred, and the median seconds of processor time until it had converged."""

    inference: Inference
    seconds: float


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Iterator[Table]:
    """Yield a table of the computation, by crowd and method, and one of a job in the database."""
    yield _computation(sizes, console)
    with stacks.bare() as databases:
        yield _answers(databases, sizes, console)


def _computation(sizes: Sizes, console: Console) -> Table:
    tasks = sizes.inference_tasks
    table = Table(
        title=f"Truth inference over {tasks:,} tasks of {_EACH} labels until it has converged, "
        f"medians of {sizes.rounds} rounds",
        title_justify="left",
    )
    for column in (
        *("annotators, options, method", "patterns a task", "iterations", "s of a core"),
        *("labels/s a core", "goal", "÷ crowd-kit", "right", "majority right"),
    ):
        table.add_column(column, justify="left" if column.startswith("annotators") else "right")
    for annotators, options in _CROWDS:
        crowd = make_crowd(tasks=tasks, annotators=annotators, options=options, each=_EACH)
        majority = _majority(crowd)
        for method in InferenceMethod:
            with console.status(f"{annotators} annotators, {options} options: {method}"):
                run = _infer(crowd, method, sizes.rounds)
                peer = _crowd_kit_rate(annotators, options, method, sizes, console)
            found, rate = run.inference, len(crowd.labels) / run.seconds
            table.add_row(
                f"{annotators}, {options}, {method}",
                f"{len(found.patterns.sizes) / tasks:.2f}",
                f"{found.iterations}{'' if found.has_converged else ' (not converged)'}",
                f"{run.seconds:.2f}",
                f"{rate:,.0f}",
                f"≥ {_GOAL:,}",
                "" if peer is None else f"{rate / peer:.0f}",
                f"{crowd.right(found.tasks['option']):.2%}",
                f"{majority:.2%}",
            )
    return table


def _infer(crowd: Crowd, method: InferenceMethod, rounds: int) -> _Run:
    seconds, found = [], []
    for _ in range(rounds):
        begin_s = time.process_time()
        found = [infer(crowd.labels, method)]
        seconds.append(time.process_time() - begin_s)
    return _Run(found[0], statistics.median(seconds))


def _majority(crowd: Crowd) -> float:
    votes = crowd.labels.group_by("task_no", "option").len()
    best = votes.sort(["task_no", "len", "option"], descending=[False, True, False])
    return crowd.right(best.unique("task_no", keep="first", maintain_order=True)["option"])


def _crowd_kit_rate(
    annotators: int, options: int, method: InferenceMethod, sizes: Sizes, console: Console
) -> float | None:
    """Return crowd-kit's labels a second with our tolerance; None where it is not installed."""
    if sizes.crowd_kit_tasks is None:
        return None
    try:
        python = environments.interpreter("crowd-kit", console)
    except NotInstalled as error:
        console.print(f"crowd-kit is left out: {error}", markup=False)
        return None
    crowd = make_crowd(
        tasks=sizes.crowd_kit_tasks, annotators=annotators, options=options, each=_EACH
    )
    asked = {
        "method": method,
        "iterations": ITERATIONS_MAX,
        "tolerance": TOLERANCE,
        "labels": crowd.labels.rows(),
    }
    done = subprocess.run(
        [python, PEERS / "crowd_kit.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_S,
    )
    return len(crowd.labels) / float(json.loads(done.stdout)["seconds"])


def _answers(databases: Databases, sizes: Sizes, console: Console) -> Table:
    tasks = sizes.inference_tasks
    annotators, options = _STORED
    crowd = make_crowd(tasks=tasks, annotators=annotators, options=options, each=_EACH)
    table = Table(
        title=f"The same of a job in the database, {annotators} annotators, {options} options, "
        f"medians of {sizes.rounds} rounds",
        title_justify="left",
    )
    for column in ("what", "labels are in", "s", "labels/s", "inference ÷ it", "API's peak, MiB"):
        table.add_column(column, justify="left" if column in ("what", "labels are in") else "right")
    with console.status(f"Writing {tasks:,} labelled tasks"):
        job = make_job(databases, tasks, _EACH)
        _store(databases, job, crowd)
    inferred_s = _infer(crowd, InferenceMethod.DAWID_SKENE, sizes.rounds).seconds
    asked = {
        "read the columns": lambda: _read(databases, job),
        "GET …/quality": _get(databases, job, ""),
        "GET …/quality?method=dawid_skene": _get(databases, job, "?method=dawid_skene"),
        "GET …/quality/changes": _get(databases, job, "/changes"),
    }
    for place in ("tables", "the archive"):
        if place == "the archive":
            with console.status("Archiving"):
                archive_all(databases)
                settle_down(databases)
        for what, ask in asked.items():
            with console.status(f"{what}, labels in {place}"):
                seconds, peak = _time(databases, ask, sizes.rounds)
            labels = len(crowd.labels)
            is_read = what == "read the columns"
            table.add_row(
                what,
                place,
                f"{seconds:.2f}",
                f"{labels / seconds:,.0f}",
                f"{seconds / inferred_s:.2f}" if is_read else "",
                "" if is_read else f"{peak / _MIB:.0f}",
            )
    return table


def _time(databases: Databases, ask: Callable[[], None], rounds: int) -> tuple[float, int]:
    """Return the median of the seconds, and the API's peak of memory in bytes."""
    seconds = []
    forget_peak(databases.pid("API"))
    for _ in range(rounds):
        begin_s = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - begin_s)
    return statistics.median(seconds), peak_bytes(databases.pid("API"))


def _read(databases: Databases, job: Job) -> None:
    with (
        Database(databases.database_url, connections_max=1) as database,
        database.long_read() as tx,
    ):
        label_columns.read_ended(tx, job.job_no, labels_max=_LABELS_MAX)


def _get(databases: Databases, job: Job, rest: str) -> Callable[[], None]:
    with (
        Database(databases.database_url, connections_max=1) as database,
        database.transaction() as tx,
    ):
        key = customers.add_customer_key(tx, job.customer_id)
    url = f"{databases.stack.api_url}/v1/jobs/{job.job_id}/quality{rest}"

    def get() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        httpx.get(url, headers=headers, timeout=_TIMEOUT_S).raise_for_status()

    return get


def _store(databases: Databases, job: Job, crowd: Crowd) -> None:
    """Give the job the labels of a crowd, and complete it."""
    with databases.connect() as connection:
        rows = connection.execute(
            "insert into annotators (annotator_id, name) select 'ann_' || n, 'crowd ' || n "
            "from generate_series(1, %s) n returning annotator_no",
            [crowd.labels["annotator_no"].max()],
        ).fetchall()
        numbers = pl.Series([row[0] for row in rows], dtype=pl.UInt32)
        chunks = connection.execute(
            "select generate_series(task_no(chunk_no, 0), task_no(chunk_no, tasks - 1)) "
            "from chunks where job_no = %s order by 1",
            [job.job_no],
        ).fetchall()
        tasks = pl.Series([row[0] for row in chunks], dtype=pl.Int64)
        stored = crowd.labels.select(
            pl.lit(job.job_no),
            tasks.gather(crowd.labels["task_no"]),
            numbers.gather(crowd.labels["annotator_no"] - 1).alias("annotator_no"),
            "option",
        )
        statement = "copy labels (job_no, task_no, annotator_no, option) from stdin (format csv)"
        with connection.cursor().copy(statement) as copy:
            copy.write(stored.write_csv(include_header=False))
        connection.execute(_TALLIES, [job.job_no])
    complete(databases, job)
