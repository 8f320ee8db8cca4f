"""Which code works with which schema. Every connection is asked once, before its first transaction.

Code works with a schema that has all migrations that the code knows, and perhaps newer ones, as long as
each of those names the code as old enough (`oldest_code`, see `schema_files`).
"""

from importlib import metadata

import psycopg

from blocks.store.queries import load
from blocks.store.transactions import Transaction
from blocks.store.unavailable import DatabaseUnavailable

_SQL = load("schema_versions")

CODE_LOCK = 731_056_321
"""The first half of the advisory locks that connections hold; the second is the number of their code."""


class WrongSchema(DatabaseUnavailable):
    """The schema is not one that this version works with."""

    code = "wrong_schema"
    status = "wrong_schema"


class SchemaMissing(WrongSchema):
    """The database does not have the schema of this version: nobody has migrated it."""

    code = "schema_missing"


class SchemaNewer(WrongSchema):
    """A newer version has migrated the database, and left this one behind."""

    code = "schema_newer"


def version() -> str:
    """Return the version of Refinery Jobs that is installed."""
    return metadata.version("refinery-jobs")


def verify(connection: Transaction, number: int) -> None:
    """Pass if code of a number works with the schema, and mark the connection as one of such code.

    The connection is in no transaction.

    Raises:
        SchemaMissing, SchemaNewer: it does not.
    """
    values = {"class": CODE_LOCK, "number": number}
    try:
        (found,) = connection.execute(_SQL["hold"], values)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        found = {"newest": None, "oldest_code": 0, "version": None}
    judge(number, found["newest"] or "", found["oldest_code"], found["version"])


def judge(number: int, newest: str, oldest_code: int, by: str | None) -> None:
    """Pass if code of a number works with a schema whose newest migration has this name.

    `oldest_code` is that of the schema, and `by` the version that has migrated it last.

    Raises:
        SchemaMissing, SchemaNewer: it does not.
    """
    if int(newest[:4] or 0) < number:
        raise SchemaMissing(
            f"The database has not the schema of this version ({version()}): "
            f"{f'its newest migration is {newest}' if newest else 'it has none'}. "
            "`refinery db migrate` makes it."
        )
    if oldest_code > number:
        raise SchemaNewer(
            f"Version {by} has migrated the database to {newest}, which works with code that knows "
            f"migration {oldest_code} or later. This is {version()}, which knows {number}: upgrade it."
        )
