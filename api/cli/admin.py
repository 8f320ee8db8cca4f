"""Commands of the operator: the schema, customers, keys. They work on the database itself."""

from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Annotated

from cyclopts import App, Parameter

from blocks.errors import RefineryError
from blocks.settings import Settings
from blocks.store import customers, jobs, migrations, webhooks
from blocks.store.database import Database

app = App(
    name="refinery",
    help="Refinery Jobs: a self-hosted batch-labelling service.",
    version=lambda: metadata.version("refinery-jobs"),
)
db = app.command(App(name="db", help="The schema of the database."))
customers_app = app.command(App(name="customers", help="Who submits jobs."))
keys = app.command(App(name="keys", help="API keys, and the key that encrypts credentials."))

_CONNECTIONS = 1


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
    with _database() as database, database.transaction() as tx:
        customer_id = customers.add_customer(tx, name)
        key = customers.add_customer_key(tx, customer_id)
    print(f"customer  {customer_id}\nkey       {key}")


@keys.command(name="add")
def add_key(
    *,
    customer: Annotated[
        str | None, Parameter(help="For this customer, by id: submits jobs.")
    ] = None,
    annotator: Annotated[
        str | None, Parameter(help="For the annotator of this name, made if there is none: labels.")
    ] = None,
) -> None:
    """Make a key, and print it. It is not shown again."""
    if (customer is None) == (annotator is None):
        raise UsageError("Say who the key is for: either --customer ID or --annotator NAME.")
    with _database() as database, database.transaction() as tx:
        if customer is not None:
            print(f"key        {customers.add_customer_key(tx, customer)}")
        if annotator is not None:
            annotator_id, key = customers.add_annotator_key(tx, annotator)
            print(f"annotator  {annotator_id}\nkey        {key}")


@keys.command(name="revoke")
def revoke_key(key: str) -> None:
    """Make a key invalid, at once and for good.

    Parameters
    ----------
    key
        The key itself; only its hash is stored.
    """
    with _database() as database, database.transaction() as tx:
        revoked = customers.revoke_key(tx, key)
    print("revoked" if revoked else "there is no such key, or it was revoked before")


@keys.command(name="rotate")
def rotate_keys() -> None:
    """Encrypt stored credentials and secrets again, with the current ASG_ENCRYPTION_KEY.

    The keys that it replaces have to be in ASG_ENCRYPTION_KEY_PREVIOUS.
    """
    vault = Settings.from_environment().vault()
    with _database() as database:
        resealed = [
            _in_batches(database, partial(rotate, vault=vault))
            for rotate in (jobs.rotate_credentials, webhooks.rotate_key)
        ]
    print(
        f"encrypted the credentials of {resealed[0]} jobs again\n"
        f"encrypted {resealed[1]} secrets of webhooks again"
    )


def _in_batches(database: Database, rotate: Callable[..., tuple[int, int | None]]) -> int:
    """How many there were; each batch in a transaction of its own."""
    resealed = 0
    after: int | None = 0
    while after is not None:
        with database.transaction() as tx:
            count, after = rotate(tx, after=after)
        resealed += count
    return resealed


def _database() -> Database:
    return Database(Settings.from_environment().database_url, connections_max=_CONNECTIONS)
