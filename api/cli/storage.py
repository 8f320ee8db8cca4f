"""Commands of the operator: what takes the disk, and to delete jobs that ended long ago."""

import re
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter

from api.cli.database import open_database, operator
from api.cli.exits import UsageError
from api.cli.output import note, print_json, print_table
from blocks.store import customers, deleted_jobs, sizes
from blocks.store.customers import UnknownCustomer
from blocks.store.database import Database
from blocks.store.sizes import GroupSize

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_STEPS_MAX = 100
_WRITERS_WAIT_S = 0.2

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON document.")]


def size(*, as_json: AsJson = False) -> None:
    """Show what takes the disk: groups of tables, with rows (an estimate) and bytes.

    The last column is the bytes by the lines of all jobs that are kept.
    """
    with open_database() as database, database.long_read() as tx:
        found = sizes.measure(tx)
        lines = sizes.count_lines(tx)
    found.sort(key=lambda each: -each.bytes)
    total = _total(found)
    if as_json:
        print_json({"lines": lines, "groups": msgspec.to_builtins([*found, total])})
        return
    rows = (
        (
            each.name,
            f"{each.rows:,}",
            _shown(each.table_bytes),
            _shown(each.index_bytes),
            f"{each.bytes / lines:,.0f}" if lines else "",
        )
        for each in [*found, total]
    )
    print_table(("what", "rows", "tables", "indexes", "bytes a line"), rows)
    note(f"{lines:,} lines of jobs are kept.")


def _total(found: Sequence[GroupSize]) -> GroupSize:
    return GroupSize(
        "all",
        sum(each.rows for each in found),
        sum(each.table_bytes for each in found),
        sum(each.index_bytes for each in found),
    )


def purge(
    *,
    older_than: Annotated[str, Parameter(help="Days since their end, such as 90d.")],
    customer: Annotated[str | None, Parameter(help="Of this customer alone, by id.")] = None,
    dry_run: Annotated[bool, Parameter(negative=(), help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete all jobs that ended long ago, for good; jobs that are being delivered stay.

    It can be interrupted and run again; the API's housekeeping finishes what it has begun.
    """
    found = _DAYS.fullmatch(older_than)
    if found is None:
        raise UsageError("--older-than takes a number of days, such as 90d.")
    days = int(found[1])
    with open_database() as database:
        if customer is not None:
            _check_customer(database, customer)
        with database.long_read() as tx:
            old = deleted_jobs.measure_old(tx, days=days, customer_id=customer)
        if not as_json:
            what = "would be deleted" if dry_run else "to be deleted"
            note(
                f"{what}: {old.jobs:,} jobs, {old.lines:,} lines, {_shown(old.bytes)} of manifests"
            )
        deleted = 0 if dry_run else _delete_all(database, days, customer)
    if as_json:
        print_json(msgspec.to_builtins(old) | {"deleted": deleted})
    elif not dry_run:
        note(f"deleted {deleted:,} jobs")


def _delete_all(database: Database, days: int, customer_id: str | None) -> int:
    from blocks import housekeeping

    deleted = 0
    while some := housekeeping.delete_old(database, operator(), days=days, customer_id=customer_id):
        deleted += some
        _remove_all(database)
    _remove_all(database)  # an earlier purge may have been interrupted
    return deleted


def _remove_all(database: Database) -> None:
    """Remove what is left of deleted jobs; wait while somebody may still write rows of them."""
    from blocks import housekeeping

    is_told = False
    while True:
        steps = housekeeping.remove_deleted(database, steps_max=_STEPS_MAX)
        with database.transaction() as tx:
            if not deleted_jobs.count_left(tx):
                return
        if not steps:
            if not is_told:
                note("waiting for transactions that may still write rows of deleted jobs")
                is_told = True
            time.sleep(_WRITERS_WAIT_S)


def _check_customer(database: Database, customer_id: str) -> None:
    with database.transaction() as tx:
        if all(each.customer_id != customer_id for each in customers.list_customers(tx)):
            raise UnknownCustomer(f"There is no customer {customer_id!r}.")


def _shown(number: int) -> str:
    """Return a number of bytes as people read it."""
    for unit, size_bytes in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size_bytes:
            return f"{number / size_bytes:,.1f} {unit}"
    return f"{number} B"
