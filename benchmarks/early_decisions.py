"""Count the labels that a job takes with `stop_early`, and without it."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.annotation_jobs import OPTIONS, add_annotators, label_all, make_job
from benchmarks.annotators import ACCURACY, true_option
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks

_THRESHOLDS = (3, 5, 7)


@dataclass(frozen=True)
class _Job:
    """Count the labels of one job's tasks, and the tasks that settled rightly."""

    labels: int
    right: int


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Label a job for each threshold, with and without, until nothing is left; return a table."""
    tasks = sizes.early_tasks
    table = Table(
        title=(
            f"Labels a task, {tasks:,} tasks of {len(OPTIONS)} options, "
            f"annotators right in {ACCURACY:.0%}"
        ),
        title_justify="left",
    )
    for column in ("threshold", "labels", "with stop_early", "saved", "right", "with stop_early"):
        table.add_column(column, justify="right")
    with stacks.bare() as databases:
        for threshold in _THRESHOLDS:
            with console.status(f"Labelling with a threshold of {threshold}"):
                whole = _label(databases, tasks, threshold, stop_early=False)
                early = _label(databases, tasks, threshold, stop_early=True)
            table.add_row(
                str(threshold),
                f"{whole.labels / tasks:.2f}",
                f"{early.labels / tasks:.2f}",
                f"{1 - early.labels / whole.labels:.1%}",
                f"{whole.right / tasks:.2%}",
                f"{early.right / tasks:.2%}",
            )
    return table


def _label(databases: Databases, tasks: int, threshold: int, *, stop_early: bool) -> _Job:
    make_job(databases, tasks, threshold, stop_early=stop_early)
    # With two options and an odd threshold, nobody needs to break a tie.
    label_all(databases, add_annotators(databases, threshold))
    with databases.connect() as connection:
        rows = connection.execute("""
            select task_id(j.job_id, j.task_key, t.task_no), j.options[t.outcome],
                   cardinality(t.annotators)
            from tallies t join jobs j using (job_no)
            where j.job_no = (select max(job_no) from jobs) and t.outcome > 0
        """).fetchall()
    if len(rows) != tasks:
        raise AssertionError(f"{len(rows)} of {tasks} tasks have settled.")
    right = sum(label == true_option(task_id, OPTIONS) for task_id, label, _ in rows)
    return _Job(sum(labels for *_, labels in rows), right)
