"""Measure floors of ingestion: the server's own COPY of the same rows, and reading the object."""

import time
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.contender import Contender
from benchmarks.manifest import LINES_PER_BAD_LINE, Manifest
from benchmarks.servers import Servers

_RANGE_BYTES = 8 * 1024 * 1024
# A row a line with a key, as any loader would write it.
_COLUMNS = """
job_no bigint not null, byte_offset bigint not null, chunk_no integer not null,
line_in_chunk integer not null, data_url text not null, metadata text,
primary key (job_no, byte_offset)
"""
# The text of `manifest.good_line`.
_ROWS = """
select 1::bigint, n::bigint * 140, n / 100000, n % 100000 + 1,
       'https://images.example.com/batch-7/' || lpad(n::text, 8, '0') || '.jpg',
       '{{"sku": "A-' || lpad(n::text, 8, '0') || '", "shelf": ' || n % 40
       || ', "size": {{"w": 640, "h": ' || n % 480 || '}}}}'
from generate_series(0, {lines} - 1) n where n % {step} <> 0
"""


class FloorFailed(Exception):
    """A floor found other lines than the manifest has."""


def copy_contender(servers: Servers, manifest: Manifest) -> Contender:
    """Return a COPY of a row for each good line, from a file on the server's disk."""
    with servers.connect() as connection:
        path = _write_rows(connection, manifest.lines)

    def measure() -> dict[str, float]:
        with servers.connect() as connection:
            connection.execute(f"create table floor ({_COLUMNS})")
            begin = time.perf_counter()
            copied = connection.execute(sql.SQL("copy floor from {} (format binary)").format(path))
            seconds = time.perf_counter() - begin
        if copied.rowcount != manifest.good_lines:
            raise FloorFailed(f"{copied.rowcount} rows of {manifest.good_lines}")
        return {"floor: COPY of the same rows by the server": seconds}

    settings = (
        "binary file on the server's disk, a row a line with a key of two columns, one session"
    )
    return Contender("copy", settings, manifest.good_lines, measure, goal=0.55)


def _write_rows(connection: psycopg.Connection[tuple[Any, ...]], lines: int) -> sql.Literal:
    """Write the rows of a manifest's good lines into a file on the server's disk; return its path."""
    row = connection.execute("show data_directory").fetchone()
    assert row is not None  # SHOW returns one row
    path = sql.Literal(f"{row[0]}/floor.bin")
    rows = sql.SQL(_ROWS).format(lines=lines, step=LINES_PER_BAD_LINE)
    connection.execute(sql.SQL("copy ({}) to {} (format binary)").format(rows, path))
    return path


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
