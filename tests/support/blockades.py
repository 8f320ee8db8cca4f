"""A database that somebody locks, that hangs, or that is away."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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


@contextmanager
def closed_database(shop: Shop) -> Iterator[None]:
    """As when the server was killed: all connections end, and there are no new ones."""
    name = conninfo_to_dict(shop.url)["dbname"]
    allow = sql.SQL("alter database {} allow_connections {}")
    with psycopg.connect(make_conninfo(shop.url, dbname="postgres"), autocommit=True) as outside:
        outside.execute(allow.format(sql.Identifier(str(name)), sql.SQL("false")))
        outside.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
        )
        try:
            yield
        finally:
            outside.execute(allow.format(sql.Identifier(str(name)), sql.SQL("true")))
