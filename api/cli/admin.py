"""Commands of the operator: the schema, customers, keys. They work on the database itself."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from api.cli import output, sign_in_links, storage
from api.cli.database import open_database, operator
from api.cli.exits import CommandFailed, Exit, UsageError
from api.cli.output import print_json
from blocks.domain.names import check_name
from blocks.settings import Settings
from blocks.store import audit, customers, job_credentials, migrations, webhook_secrets
from blocks.store.audit import Action, Target, TargetKind
from blocks.store.database import Database, Transaction
from blocks.store.keys import KeyRole

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON document.")]


def migrate() -> None:
    """Bring the schema up to date; safe at any time, under load, and by anybody at once."""
    applied = migrations.migrate(
        Settings.from_environment().database_url, tell=partial(print, file=sys.stderr, flush=True)
    )
    if applied:
        with open_database() as database, database.transaction() as tx:
            audit.record(tx, operator(), Action.SCHEMA_MIGRATED, audit.DATABASE, applied=applied)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


def add_customer(name: str) -> None:
    """Make a customer, and print its id, its first key, and a link that signs a browser in once.

    Neither key nor link is shown again.

    Parameters
    ----------
    name
        What to call the customer, for operators.
    """
    _check_name(name)
    with open_database() as database, database.transaction() as tx:
        customer_id = customers.add_customer(tx, name)
        key = customers.add_customer_key(tx, customer_id)
        target = Target(TargetKind.CUSTOMER, customer_id, customer_id)
        audit.record(tx, operator(), Action.CUSTOMER_MADE, target, called=name)
        record_key(tx, key, KeyRole.CUSTOMER, customer_id)
        link = sign_in_links.new_link(tx, key)
    print(f"customer   {customer_id}")
    _print_key(key, link)


def list_customers(*, as_json: AsJson = False) -> None:
    """List all customers, with how many good keys each has."""
    with open_database() as database, database.transaction() as tx:
        found = customers.list_customers(tx)
    print_rows(found, customers.Customer, as_json=as_json)


_Annotator = Annotated[str, Parameter(help="By id, or by name.")]
_Granted = Annotated[list[str] | None, Parameter(name="--customer", help="By id; once or more.")]


def list_annotators(*, as_json: AsJson = False) -> None:
    """List all annotators: how many good keys each has, and whose tasks they are handed."""
    with open_database() as database, database.transaction() as tx:
        found = customers.list_annotators(tx)
    print_rows(found, customers.Annotator, as_json=as_json)


def grant(
    annotator: _Annotator,
    *,
    customer: _Granted = None,
    all: Annotated[bool, Parameter(negative=(), help="Hand them everybody's tasks.")] = False,  # noqa: A002 - its name
) -> None:
    """Hand an annotator the tasks of these customers too.

    An annotator who was handed everybody's tasks is handed those of these customers alone from then on.
    """
    if all == bool(customer):
        raise UsageError("Say whose tasks: --customer ID, once or more, or --all.")
    with open_database() as database, database.transaction() as tx:
        if all:
            customers.grant_all(tx, annotator)
        granted = customers.grant(tx, annotator, customer) if customer else ["all"]
        target = Target(TargetKind.ANNOTATOR, annotator)
        audit.record(tx, operator(), Action.ANNOTATOR_GRANTED, target, customers=granted[:50])
    print(f"annotator  {annotator}\ncustomers  {' '.join(granted)}")


def withdraw(annotator: _Annotator, *, customer: _Granted = None) -> None:
    """Hand an annotator no more tasks of these customers; the tasks that they hold go to others."""
    if not customer:
        raise UsageError("Say whose tasks: --customer ID, once or more.")
    with open_database() as database, database.transaction() as tx:
        left, tasks_returned = customers.withdraw(tx, annotator, customer)
        target = Target(TargetKind.ANNOTATOR, annotator)
        audit.record(tx, operator(), Action.ANNOTATOR_WITHDRAWN, target, customers=customer[:50])
    print(f"annotator  {annotator}\ncustomers  {' '.join(left) or 'none'}")
    if tasks_returned:
        print(f"{tasks_returned} tasks went back to others")


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
    reviewer: Annotated[
        str | None,
        Parameter(help="Like --annotator, and the key decides tasks that are under review too."),
    ] = None,
    admin: Annotated[
        str | None,
        Parameter(
            help="For the operator of this name: sees the jobs of all customers, and can stop, deliver "
            "and exclude, but submits nothing."
        ),
    ] = None,
) -> None:
    """Make a key; print it with its id, and a link that signs a browser in once.

    Neither key nor link is shown again; `keys link` makes another link.
    """
    names = [name for name in (annotator, reviewer, admin) if name is not None]
    if len(names) > 1 or (admin is not None and customer):
        raise UsageError("A key is for one of --annotator, --reviewer and --admin.")
    if not names and len(customer or []) != 1:
        raise UsageError(
            "Say who the key is for: one --customer ID, --annotator, --reviewer or --admin NAME."
        )
    for name in names:
        _check_name(name)
    with open_database() as database, database.transaction() as tx:
        if admin is not None:
            key, role, whose = customers.add_admin_key(tx, admin), KeyRole.ADMIN, None
        elif names:
            annotator_id, key = customers.add_annotator_key(
                tx, names[0], customer or [], is_reviewer=reviewer is not None
            )
            role, whose = KeyRole.REVIEWER if reviewer is not None else KeyRole.ANNOTATOR, None
            granted = customers.list_granted_customers(tx, annotator_id)
            print(f"annotator  {annotator_id}\ncustomers  {' '.join(granted or ['all'])}")
        else:
            (customer_id,) = customer or []
            key, role = customers.add_customer_key(tx, customer_id), KeyRole.CUSTOMER
            whose = customer_id
        record_key(tx, key, role, whose)
        link = sign_in_links.new_link(tx, key)
    _print_key(key, link)


def record_key(tx: Transaction, key: str, role: KeyRole, customer_id: str | None) -> None:
    """Record in the audit log that the operator at this command line has made a key."""
    target = audit.key(customers.key_id(key), customer_id)
    audit.record(tx, operator(), Action.KEY_MADE, target, role=role)


def _print_key(key: str, link: str) -> None:
    print(f"key        {key}\nkey_id     {customers.key_id(key)}\nsign_in    {link}")


def list_keys(*, as_json: AsJson = False) -> None:
    """List all keys by their ids: whose they are, and when they were made and revoked."""
    with open_database() as database, database.transaction() as tx:
        found = customers.list_keys(tx)
    print_rows(found, customers.ListedKey, as_json=as_json)


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
        # PostgreSQL takes no text with a NUL, which standard input may hold.
        revoked = customers.revoke_key(tx, named) if named.isprintable() else None
        if revoked:
            target = audit.key(revoked.key_id, revoked.customer_id)
            audit.record(tx, operator(), Action.KEY_REVOKED, target)
    if revoked is None:
        raise CommandFailed("There is no such key, or it was revoked before.", Exit.NOT_FOUND)
    print(f"revoked {revoked.key_id}")
    if revoked.tasks_returned:
        print(f"{revoked.tasks_returned} tasks of its annotator went back to others")


def rotate_keys() -> None:
    """Encrypt stored credentials and secrets again, with the current ASG_ENCRYPTION_KEY.

    The keys that it replaces have to be in ASG_ENCRYPTION_KEY_PREVIOUS.
    """
    vault = Settings.from_environment().vault()
    with open_database() as database:
        with database.transaction() as tx:
            audit.record(tx, operator(), Action.ENCRYPTION_KEY_CHANGED, audit.DATABASE)
        resealed = [
            _in_batches(database, partial(rotate, vault=vault))
            for rotate in (job_credentials.reseal, webhook_secrets.reseal)
        ]
    print(
        f"encrypted the credentials of {resealed[0]} jobs again\n"
        f"encrypted {resealed[1]} secrets of webhooks again"
    )


def _check_name(name: str) -> None:
    """Raise UsageError for a name that no list can show, UnicodeEncodeError for one that is no UTF-8."""
    name.encode()
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def add_commands(app: App) -> None:
    """Add the operator's commands on the database: `db …`, `purge`, `customers …`, `keys …`, …."""
    db = app.command(App(name="db", help="The schema of the database."))
    db.command(migrate)
    db.command(storage.size)
    app.command(storage.purge)
    who_submits = app.command(App(name="customers", help="Who submits jobs."))
    who_submits.command(add_customer, name="add")
    who_submits.command(list_customers, name="list")
    who_labels = app.command(
        App(name="annotators", help="Who labels, and whose tasks they are handed.")
    )
    who_labels.command(list_annotators, name="list")
    who_labels.command(grant)
    who_labels.command(withdraw)
    keys = app.command(App(name="keys", help="API keys, and the key that encrypts credentials."))
    keys.command(add_key, name="add")
    keys.command(sign_in_links.print_link, name="link")
    keys.command(list_keys, name="list")
    keys.command(revoke_key, name="revoke")
    keys.command(rotate_keys, name="rotate")


def print_rows(
    rows: Sequence[msgspec.Struct], row_type: type[msgspec.Struct], *, as_json: bool
) -> None:
    """Print structs of one type: each of their fields, or a JSON document."""
    if as_json:
        print_json(msgspec.to_builtins(rows))
    else:
        cells = [[_cell(getattr(row, f)) for f in row_type.__struct_fields__] for row in rows]
        output.print_rows(row_type.__struct_fields__, cells)


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    return " ".join(value) if isinstance(value, list) else value


def _in_batches(database: Database, rotate: Callable[..., tuple[int, int | None]]) -> int:
    """Seal everything again, each batch in a transaction of its own; return how many there were."""
    resealed = 0
    after: int | None = 0
    while after is not None:
        with database.transaction() as tx:
            count, after = rotate(tx, after=after)
        resealed += count
    return resealed
