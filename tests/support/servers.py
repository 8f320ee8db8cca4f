"""A PostgreSQL server that clones a database for each test."""

import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg import sql

from blocks.store.migrations import migrate
from deployments.embedded.postgres import Postgres

KEY = secrets.token_hex(32)


class DatabaseServer:
    """A PostgreSQL server with a migrated template to clone.

    The next clone is made, and the last one dropped, while a test runs.
    """

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self._behind = ThreadPoolExecutor(1)
        self._drops: list[Future[None]] = []
        self._execute("create database {}", "template_test")
        migrate(postgres.url("template_test"))
        self._next = self._behind.submit(self._clone)

    def clone(self) -> str:
        """The URL of a new database with the schema in it."""
        ready, self._next = self._next, self._behind.submit(self._clone)
        return ready.result()

    def make_empty(self) -> str:
        """The URL of a new database with nothing in it."""
        name = f"test_{secrets.token_hex(6)}"
        self._execute("create database {}", name)
        return self.postgres.url(name)

    def drop(self, url: str) -> None:
        name = url.rpartition("/")[2]
        self._drops.append(
            self._behind.submit(self._execute, "drop database {} with (force)", name)
        )

    def close(self) -> None:
        self._behind.shutdown()
        for each in self._drops:
            each.result()

    def _clone(self) -> str:
        name = f"test_{secrets.token_hex(6)}"
        self._execute("create database {} template template_test strategy file_copy", name)
        return self.postgres.url(name)

    def _execute(self, statement: Any, name: str) -> None:
        with psycopg.connect(self.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
