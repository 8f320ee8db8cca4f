"""Measure backups and restores by the commands of docs/backup.md: how long, how large, what is lost."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import annotator_runs
from benchmarks.annotation_jobs import add_annotators, make_job, settle_all
from benchmarks.servers import Databases, data_folder
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from deployments.embedded.guard import Guard
from deployments.embedded.ports import free_port
from deployments.embedded.postgres import Postgres
from deployments.embedded.postgres_programs import programs_folder, unprivileged_user
from deployments.embedded.processes import ChildProcess

_SLOT = "refinery_backup"
_THRESHOLD = 3
_BATCH = 20
_RESTORED = "restored"
_DONE_SHARE = 2
"""Of so many tasks, one has its labels already."""
_LABELS = """
insert into labels (job_no, task_no, annotator_no, option)
select job_no, task_no(chunk_no, n), a, 1 from chunks cross join generate_series(0, tasks - 1) n
cross join generate_series(1, 3) a where job_no = %s
"""
_COUNTS = "select (select count(*) from labels), (select count(*) from pages)"
_LAG = "select extract(epoch from flush_lag) from pg_stat_replication where application_name = %s"


class ToolFailed(Exception):
    """A program of PostgreSQL's ended with an error; its last lines say which."""


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Return a table of seconds and bytes; annotators work while the backups are made.

    Raises:
        ToolFailed: a backup or a restore failed.
    """
    tasks = sizes.restored_tasks
    table = Table(
        title=f"Backup and restore of {tasks:,} tasks, half of them labelled {_THRESHOLD} times",
        title_justify="left",
    )
    table.add_column("what")
    for column in ("seconds", "MB"):
        table.add_column(column, justify="right")
    with stacks.bare() as databases, data_folder() as folder:
        with console.status(f"Making jobs of {tasks:,} tasks"):
            _fill(databases, tasks)
        table.add_row("the database", "", f"{_database_bytes(databases) / 1e6:,.0f}")
        _measure_dump(databases, folder, table, console)
        with console.status("Backing up every commit"):
            lost = _measure_wal(databases, folder, sizes, table)
    table.add_row("labels lost that the backup had received", f"{lost:,}", "")
    return table


def _fill(databases: Databases, tasks: int) -> None:
    done = make_job(databases, tasks // _DONE_SHARE, _THRESHOLD)
    make_job(databases, tasks - tasks // _DONE_SHARE, _THRESHOLD)
    with databases.connect() as connection:
        connection.execute(_LABELS, [done.job_no])
    settle_all(databases, done)


def _measure_dump(databases: Databases, folder: Path, table: Table, console: Console) -> None:
    dump, url = folder / "refinery.dump", databases.database_url_of(_RESTORED)
    with console.status("Dumping"):
        seconds = _run("pg_dump", "--format=custom", f"--file={dump}", databases.database_url)
    table.add_row("pg_dump", f"{seconds:.1f}", f"{dump.stat().st_size / 1e6:,.0f}")
    databases.make_database(_RESTORED)
    with console.status("Restoring the dump"):
        seconds = _run("pg_restore", "--exit-on-error", "--jobs=2", f"--dbname={url}", str(dump))
    table.add_row("pg_restore --jobs=2", f"{seconds:.1f}", "")
    with databases.connect() as connection:
        connection.execute(f"drop database {_RESTORED}".encode())


def _measure_wal(databases: Databases, folder: Path, sizes: Sizes, table: Table) -> int:
    """Add rows for a base backup, the WAL beside annotators, and the restore; return what was lost."""
    url, base, wal = databases.database_url, folder / "base", folder / "wal"
    wal.mkdir()
    keys = add_annotators(databases, sizes.annotators, "of the restore")
    slot = f"--slot={_SLOT}"
    _run("pg_receivewal", "--create-slot", slot, f"--dbname={url}")
    receive = ("--synchronous", slot, f"--directory={wal}", f"--dbname={url}")
    with _receiving(databases, receive) as receiver:
        ways = ("--checkpoint=fast", "--wal-method=none", f"--pgdata={base}")
        seconds = _run("pg_basebackup", *ways, f"--dbname={url}")
        table.add_row("pg_basebackup", f"{seconds:.1f}", f"{_bytes_of(base) / 1e6:,.0f}")
        with _lags(databases) as lags:
            run = annotator_runs.run(databases, keys, _BATCH, sizes)
        labelled = _count(url)
        _wait_received(databases)
        receiver.kill()
    rate = run.counts.labels / run.seconds
    worst = max(lags, default=0.0)
    table.add_row(f"the backup's lag at worst, {rate:,.0f} labels/s", f"{worst:.3f}", "")
    table.add_row("WAL of that time", f"{run.seconds:.1f}", f"{_bytes_of(wal) / 1e6:,.0f}")
    began_s = time.monotonic()
    with _restored(databases, folder, base, wal) as restored:
        table.add_row("restore until it can be used", f"{time.monotonic() - began_s:.1f}", "")
        found = _count(restored)
    assert found[1] == labelled[1]
    return labelled[0] - found[0]


@contextlib.contextmanager
def _receiving(
    databases: Databases, arguments: tuple[str, ...]
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [_tool("pg_receivewal"), *arguments],
        env={**os.environ, "PGAPPNAME": _SLOT},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        _drop_slot(databases)


def _drop_slot(databases: Databases) -> None:
    """Keep no WAL for the backup any more, once the server has noticed that it is gone."""
    query = (
        "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots "
        "where slot_name = %s and not active"
    )
    with databases.connect() as connection:
        while connection.execute(query, [_SLOT]).fetchone() != (1,):
            time.sleep(0.05)


@contextlib.contextmanager
def _lags(databases: Databases) -> Iterator[list[float]]:
    """Look again and again how many seconds the backup is behind the commits."""
    lags: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        with databases.connect() as connection:
            while not is_over.wait(0.05):
                lags.extend(float(lag) for (lag,) in connection.execute(_LAG, [_SLOT]) if lag)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lags
    finally:
        is_over.set()
        thread.join()


def _wait_received(databases: Databases) -> None:
    query = "select bool_or(flush_lsn >= %s) from pg_stat_replication where application_name = %s"
    with databases.connect() as connection:
        (written,) = connection.execute("select pg_current_wal_insert_lsn()").fetchone() or ()
        while connection.execute(query, [written, _SLOT]).fetchone() != (True,):
            connection.execute("select pg_switch_wal()")
            time.sleep(0.05)


@contextlib.contextmanager
def _restored(databases: Databases, folder: Path, base: Path, wal: Path) -> Iterator[str]:
    """Restore the backup into a server of its own, and yield its database's URL."""
    new = folder / "new"
    data = new / "postgres" / "data"
    data.parent.mkdir(parents=True, mode=0o711)
    shutil.copytree(base, data)
    shutil.copy(databases.stack.data_dir / "postgres.password", new)
    fetch = f"cp {wal}/%f %p || {{ cp {wal}/%f.partial %p && truncate --size=16M %p; }}"
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = '{fetch}'\nhot_standby = off\n")
    (data / "recovery.signal").touch()
    if user := unprivileged_user():
        for path in (folder, wal, *wal.rglob("*"), data.parent, *data.parent.rglob("*")):
            os.chown(path, user.uid, user.gid)
    server, guard = Postgres(new, free_port()), Guard()
    guard.start()
    child = ChildProcess(server.program(), new, guard)
    child.start()
    try:
        yield server.url()
    finally:
        child.stop()
        guard.stop()


def _run(tool: str, *arguments: str) -> float:
    """Return how many seconds a program of PostgreSQL's took."""
    began_s = time.monotonic()
    done = subprocess.run([_tool(tool), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolFailed(done.stderr[-2000:])
    return time.monotonic() - began_s


def _tool(name: str) -> str:
    return str(programs_folder() / name)


def _count(url: str) -> tuple[int, int]:
    """Count labels and pages of tasks."""
    with psycopg.connect(url) as connection:
        labels, pages = connection.execute(_COUNTS).fetchone() or (0, 0)
    return labels, pages


def _database_bytes(databases: Databases) -> int:
    with databases.connect() as connection:
        query = "select pg_database_size(current_database())"
        (size,) = connection.execute(query).fetchone() or (0,)
    return int(size)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
