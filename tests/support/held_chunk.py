"""Holds a manifest's reading in its middle, however fast the machine is."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from deployments.embedded.stack import Stack

_CHUNK_NO = 10
"""Of 21, in the smallest manifest that is read with it."""


@contextmanager
def held_chunk(stack: Stack, job_id: str) -> Iterator[None]:
    """The job's manifest is not read to its end: a twin that is just adding a chunk is waited for."""
    with psycopg.connect(stack.database_url) as connection:
        connection.execute(
            "insert into chunks (job_no, chunk_no, lines, tasks, bad_lines) "
            "select job_no, %s, 0, 0, 0 from jobs where job_id = %s",
            [_CHUNK_NO, job_id],
        )
        yield
        connection.rollback()
