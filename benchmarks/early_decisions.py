"""Count the labels that a job takes with `stop_early`, and without it."""

import random
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import bare_stack
from benchmarks.annotation_jobs import OPTIONS, add_annotators, make_job
from benchmarks.annotators import ACCURACY, answer, true_option
from benchmarks.servers import Databases
from benchmarks.wire import Connection

_TASKS = 10_000
_CLAIM_TASKS = 500
_THRESHOLDS = (3, 5, 7)


@dataclass(frozen=True)
class _Job:
    """Count the labels of one job's tasks, and the tasks that settled rightly."""

    labels: int
    right: int


def measure(console: Console) -> Table:
    """Label a job for each threshold, with and without, until nothing is left; return a table."""
    table = Table(
        title=(
            f"Labels a task, {_TASKS:,} tasks of {len(OPTIONS)} options, "
            f"annotators right in {ACCURACY:.0%}"
        ),
        title_justify="left",
    )
    for column in ("threshold", "labels", "with stop_early", "saved", "right", "with stop_early"):
        table.add_column(column, justify="right")
    with bare_stack.running(console) as databases:
        for threshold in _THRESHOLDS:
            with console.status(f"Labelling with a threshold of {threshold}"):
                whole = _label(databases, threshold, stop_early=False)
                early = _label(databases, threshold, stop_early=True)
            table.add_row(
                str(threshold),
                f"{whole.labels / _TASKS:.2f}",
                f"{early.labels / _TASKS:.2f}",
                f"{1 - early.labels / whole.labels:.1%}",
                f"{whole.right / _TASKS:.2%}",
                f"{early.right / _TASKS:.2%}",
            )
    return table


def _label(databases: Databases, threshold: int, *, stop_early: bool) -> _Job:
    make_job(databases, _TASKS, threshold, stop_early=stop_early)
    # With two options and an odd threshold, nobody needs to break a tie.
    for key in add_annotators(databases, threshold):
        _work(databases.stack.api_url, key)
    with databases.connect() as connection:
        rows = connection.execute("""
            select task_id(j.job_id, t.task_no), j.options[t.outcome], cardinality(t.annotators)
            from tallies t join jobs j using (job_no)
            where j.job_no = (select max(job_no) from jobs) and t.outcome > 0
        """).fetchall()
    if len(rows) != _TASKS:
        raise AssertionError(f"{len(rows)} of {_TASKS} tasks have settled.")
    right = sum(label == true_option(task_id, OPTIONS) for task_id, label, _ in rows)
    return _Job(sum(labels for *_, labels in rows), right)


def _work(api_url: str, key: str) -> None:
    """Claim and answer until there is nothing left for this annotator."""
    api, generator = urlsplit(api_url), random.Random(key)
    with Connection(str(api.hostname), int(api.port or 0), key) as connection:
        claim = msgspec.json.encode({"limit": _CLAIM_TASKS})
        while tasks := msgspec.json.decode(connection.post("/v1/annotation/claim", claim))["tasks"]:
            ids = [task["task_id"] for task in tasks]
            labels = [{"task_id": id_, "label": answer(id_, OPTIONS, generator)} for id_ in ids]
            connection.post("/v1/annotation/labels", msgspec.json.encode({"labels": labels}))
