"""Measure floors of ingestion: the server's own COPY of the same rows, and reading the object."""

import time

from psycopg import sql

from benchmarks import ours, row_tasks
from benchmarks.contender import Contender
from benchmarks.manifest import Manifest
from benchmarks.servers import Servers

_RANGE_BYTES = 8 * 1024 * 1024


class FloorFailed(Exception):
    """A floor found other lines than the manifest has."""


def copy_contender(servers: Servers, manifest: Manifest) -> Contender:
    """Return a COPY of a job's tasks, a row each, from a file on the server's disk."""
    servers.clear()
    ours.ingest(servers, manifest)
    with servers.connect() as connection:
        row = connection.execute("select max(job_no) from jobs").fetchone()
        assert row is not None  # an aggregate returns one row
    row_tasks.make(servers, int(str(row[0])))
    with servers.connect() as connection:
        row = connection.execute("show data_directory").fetchone()
        assert row is not None  # SHOW returns one row
        path = sql.Literal(f"{row[0]}/floor.bin")
        connection.execute(sql.SQL("copy task_rows to {} (format binary)").format(path))

    def measure() -> dict[str, float]:
        with servers.connect() as connection:
            connection.execute("create table floor (like task_rows including all)")
            begin = time.perf_counter()
            copied = connection.execute(sql.SQL("copy floor from {} (format binary)").format(path))
            seconds = time.perf_counter() - begin
        if copied.rowcount != manifest.good_lines:
            raise FloorFailed(f"{copied.rowcount} rows of {manifest.good_lines}")
        return {"floor: COPY of the same rows by the server": seconds}

    settings = "a row a task, binary file on the server's disk, primary key, one session"
    return Contender("copy", settings, manifest.good_lines, measure, goal=0.5)


def newlines_contender(servers: Servers, manifest: Manifest) -> Contender:
    """Return a reader that counts the lines of the object, without a look into them."""

    def measure() -> dict[str, float]:
        bucket = servers.store.open()
        begin = time.perf_counter()
        lines = 0
        for start in range(0, manifest.size, _RANGE_BYTES):
            end = min(start + _RANGE_BYTES, manifest.size)
            lines += bucket.cat_file(manifest.path, start=start, end=end).count(b"\n")
        seconds = time.perf_counter() - begin
        if lines != manifest.lines:
            raise FloorFailed(f"{lines} lines of {manifest.lines}")
        return {"floor: read the object, count newlines": seconds}

    settings = "s3fs, one reader, ranges of 8 MiB"
    return Contender("newlines", settings, manifest.lines, measure)
