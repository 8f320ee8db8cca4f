"""Commands of the operator: the schema, customers, keys. They work on the database itself."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from api.cli.exits import CommandFailed, Exit
from api.cli.output import print_json, print_table
from blocks.domain.errors import RefineryError
from blocks.settings import Settings
from blocks.store import customers, job_credentials, migrations, webhook_secrets
from blocks.store.database import Database

app = App(
    name="refinery",
    help="Refinery Jobs: a self-hosted batch-labelling service.",
    version=lambda: metadata.version("refinery-jobs"),
)
db = app.command(App(name="db", help="The schema of the database."))
customers_app = app.command(App(name="customers", help="Who submits jobs."))
annotators = app.command(
    App(name="annotators", help="Who labels, and whose tasks they are handed.")
)
keys = app.command(App(name="keys", help="API keys, and the key that encrypts credentials."))

_CONNECTIONS = 1
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="As one JSON document.")]


class UsageError(RefineryError):
    """The command's options do not go together."""

    code = "usage"


@db.command(name="migrate")
def migrate() -> None:
    """Bring the schema up to date; safe to run at any time, by anybody at once."""
    applied = migrations.migrate(Settings.from_environment().database_url)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@customers_app.command(name="add")
def add_customer(name: str) -> None:
    """Make a customer, and print its id and first key. The key is not shown again.

    Parameters
    ----------
    name
        What to call the customer, for operators.
    """
    with open_database() as database, database.transaction() as tx:
        customer_id = customers.add_customer(tx, name)
        key = customers.add_customer_key(tx, customer_id)
    print(f"customer  {customer_id}\nkey       {key}\nkey_id    {customers.key_id(key)}")


@customers_app.command(name="list")
def list_customers(*, as_json: AsJson = False) -> None:
    """All customers, with how many good keys each has."""
    with open_database() as database, database.transaction() as tx:
        found = customers.list_customers(tx)
    print_rows(found, customers.Customer, as_json=as_json)


_Annotator = Annotated[str, Parameter(help="By id, or by name.")]
_Granted = Annotated[list[str] | None, Parameter(name="--customer", help="By id; once or more.")]


@annotators.command(name="list")
def list_annotators(*, as_json: AsJson = False) -> None:
    """All annotators: how many good keys each has, and whose tasks they are handed."""
    with open_database() as database, database.transaction() as tx:
        found = customers.list_annotators(tx)
    print_rows(found, customers.Annotator, as_json=as_json)


@annotators.command(name="grant")
def grant(
    annotator: _Annotator,
    *,
    customer: _Granted = None,
    all: Annotated[bool, Parameter(negative=(), help="Everybody's.")] = False,  # noqa: A002 - its name
) -> None:
    """Have an annotator handed the tasks of these customers too. Who was handed everybody's is
    handed those of these customers alone from then on."""
    if all == bool(customer):
        raise UsageError("Say whose tasks: --customer ID, once or more, or --all.")
    with open_database() as database, database.transaction() as tx:
        if all:
            customers.grant_all(tx, annotator)
        granted = customers.grant(tx, annotator, customer) if customer else ["all"]
    print(f"annotator  {annotator}\ncustomers  {' '.join(granted)}")


@annotators.command(name="withdraw")
def withdraw(annotator: _Annotator, *, customer: _Granted = None) -> None:
    """Hand an annotator no more tasks of these customers; those that they hold go to others."""
    if not customer:
        raise UsageError("Say whose tasks: --customer ID, once or more.")
    with open_database() as database, database.transaction() as tx:
        left, tasks_returned = customers.withdraw(tx, annotator, customer)
    print(f"annotator  {annotator}\ncustomers  {' '.join(left) or 'none'}")
    if tasks_returned:
        print(f"{tasks_returned} tasks went back to others")


@keys.command(name="add")
def add_key(
    *,
    customer: Annotated[
        list[str] | None,
        Parameter(
            help="For this customer, by id: submits jobs. With --annotator, once or more: whose tasks "
            "the annotator is handed, added to those before; everybody's, where nothing was ever said."
        ),
    ] = None,
    annotator: Annotated[
        str | None, Parameter(help="For the annotator of this name, made if there is none: labels.")
    ] = None,
) -> None:
    """Make a key, and print it with its id. The key is not shown again."""
    if annotator is None and len(customer or []) != 1:
        raise UsageError("Say who the key is for: either one --customer ID or --annotator NAME.")
    with open_database() as database, database.transaction() as tx:
        if annotator is None:
            (customer_id,) = customer or []
            key = customers.add_customer_key(tx, customer_id)
        else:
            annotator_id, key = customers.add_annotator_key(tx, annotator, customer or [])
            granted = customers.list_granted_customers(tx, annotator_id)
            print(f"annotator  {annotator_id}\ncustomers  {' '.join(granted or ['all'])}")
    print(f"key        {key}\nkey_id     {customers.key_id(key)}")


@keys.command(name="list")
def list_keys(*, as_json: AsJson = False) -> None:
    """All keys by their ids: whose they are, and when they were made and revoked."""
    with open_database() as database, database.transaction() as tx:
        found = customers.list_keys(tx)
    print_rows(found, customers.ListedKey, as_json=as_json)


@keys.command(name="revoke")
def revoke_key(
    key: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
) -> None:
    """Make a key invalid, at once and for good. Tasks that its annotator holds go to others.

    Parameters
    ----------
    key
        The key's id, `key_…`, as `keys add` and `keys list` print it. Without one, or with `-`, the key
        itself or its id is read from standard input, where no list of processes shows it.
    """
    named = sys.stdin.readline().strip() if key == "-" else key
    with open_database() as database, database.transaction() as tx:
        revoked = customers.revoke_key(tx, named)
    if revoked is None:
        raise CommandFailed("There is no such key, or it was revoked before.", Exit.NOT_FOUND)
    print(f"revoked {revoked.key_id}")
    if revoked.tasks_returned:
        print(f"{revoked.tasks_returned} tasks of its annotator went back to others")


@keys.command(name="rotate")
def rotate_keys() -> None:
    """Encrypt stored credentials and secrets again, with the current ASG_ENCRYPTION_KEY.

    The keys that it replaces have to be in ASG_ENCRYPTION_KEY_PREVIOUS.
    """
    vault = Settings.from_environment().vault()
    with open_database() as database:
        resealed = [
            _in_batches(database, partial(rotate, vault=vault))
            for rotate in (job_credentials.reseal, webhook_secrets.reseal)
        ]
    print(
        f"encrypted the credentials of {resealed[0]} jobs again\n"
        f"encrypted {resealed[1]} secrets of webhooks again"
    )


def print_rows(
    rows: Sequence[msgspec.Struct], row_type: type[msgspec.Struct], *, as_json: bool
) -> None:
    """Print structs of one type, a column for each of its fields."""
    if as_json:
        print_json(msgspec.to_builtins(rows))
    else:
        cells = [[_cell(getattr(row, f)) for f in row_type.__struct_fields__] for row in rows]
        print_table(row_type.__struct_fields__, cells)


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    return " ".join(value) if isinstance(value, list) else value


def _in_batches(database: Database, rotate: Callable[..., tuple[int, int | None]]) -> int:
    """How many there were; each batch in a transaction of its own."""
    resealed = 0
    after: int | None = 0
    while after is not None:
        with database.transaction() as tx:
            count, after = rotate(tx, after=after)
        resealed += count
    return resealed


def open_database() -> Database:
    """The database that the environment names."""
    return Database(Settings.from_environment().database_url, connections_max=_CONNECTIONS)
