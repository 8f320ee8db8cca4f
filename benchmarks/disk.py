"""Measure the bytes on disk of a job's tasks: ingested, labelled and completed, archived."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.annotation_jobs import add_annotators, label_all, make_job, settle_down
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks.store import archive
from blocks.store.database import Database

_LABELS = 3
_GOAL = 60
# Bytes of a table with its indexes and long values; indexes count on their own as well.
_SIZES = """
select relname, pg_total_relation_size(oid), pg_indexes_size(oid)
from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
"""


class NotCompleted(Exception):
    """Tasks of the job are left without a result."""


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Return a table of bytes a task, by table of the database, after a VACUUM.

    Raises:
        NotCompleted: the annotators could not label everything.
    """
    tasks = sizes.disk_lines
    table = Table(
        title=f"Bytes on disk a task, of {tasks:,} lines of 140 bytes, after VACUUM",
        title_justify="left",
    )
    table.add_column("when")
    table.add_column("table")
    for column in ("bytes a task", "of these indexes", "goal"):
        table.add_column(column, justify="right")
    with stacks.bare() as databases:
        before = _read_sizes(databases)
        with console.status(f"Making a job of {tasks:,} tasks"):
            job = make_job(databases, tasks, _LABELS)
        _add_rows(table, "ingested", _growth(databases, before), tasks)
        with console.status(f"Labelling {tasks:,} tasks {_LABELS} times"):
            label_all(databases, add_annotators(databases, _LABELS))
        with databases.connect() as connection:
            row = connection.execute(
                "select status from jobs where job_no = %s", [job.job_no]
            ).fetchone()
        if row != ("completed",):
            raise NotCompleted(f"The job is {row}.")
        settle_down(databases)
        what = f"labelled {_LABELS} times, completed"
        _add_rows(table, what, _growth(databases, before), tasks)
        with console.status("Archiving their labels"):
            archive_all(databases)
        settle_down(databases)
        _add_rows(table, "archived", _growth(databases, before), tasks, f"≤ {_GOAL}")
    return table


def archive_all(databases: Databases) -> None:
    """Do at once what the caretaker does an hour after a job's end."""
    with Database(databases.database_url, connections_max=1) as database:
        archived = 1
        while archived:
            with database.transaction() as tx:
                archived = archive.archive_some(tx, after_s=0)


def _add_rows(
    table: Table, what: str, grown: Mapping[str, tuple[int, int]], tasks: int, goal: str = ""
) -> None:
    """Add a row for each table that has grown by a tenth of a byte a task, and one for all."""
    for name, (whole, indexes) in sorted(grown.items(), key=lambda item: -item[1][0]):
        if whole / tasks >= 0.1:
            table.add_row(what, name, f"{whole / tasks:.1f}", f"{indexes / tasks:.1f}")
    whole, indexes = (sum(column) for column in zip(*grown.values(), strict=True))
    table.add_row(what, "all of them", f"{whole / tasks:.1f}", f"{indexes / tasks:.1f}", goal)
    table.add_section()


def _growth(
    databases: Databases, before: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    after = _read_sizes(databases)
    return {
        name: (whole - before[name][0], indexes - before[name][1])
        for name, (whole, indexes) in after.items()
    }


def _read_sizes(databases: Databases) -> dict[str, tuple[int, int]]:
    """Return the bytes of each table, and those of its indexes."""
    with databases.connect() as connection:
        return {name: (whole, indexes) for name, whole, indexes in connection.execute(_SIZES)}
