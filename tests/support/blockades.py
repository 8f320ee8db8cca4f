"""A database that somebody locks, or that hangs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import psutil
import psycopg

from tests.support.store_shop import Shop


@contextmanager
def locked(shop: Shop, statement: str, job_id: str = "") -> Iterator[None]:
    """As when somebody has forgotten a transaction in psql."""
    with psycopg.connect(shop.url) as connection:
        connection.execute(cast(Any, statement.format(job_id=job_id)))
        yield
        connection.rollback()


@contextmanager
def stopped_postgresql(shop: Shop) -> Iterator[None]:
    with psycopg.connect(shop.url) as connection:
        postmaster = psutil.Process(connection.info.backend_pid).parent()
    assert postmaster is not None
    postmaster.suspend()
    servers = postmaster.children()
    try:
        for each in servers:
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        yield
    finally:
        for each in (*servers, postmaster):
            with suppress(psutil.NoSuchProcess):
                each.resume()
