"""Commands of the operator for recurring ETL: which manifests have no result, and to try them again."""

import sys
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from api.cli.admin import AsJson, print_rows
from api.cli.database import open_database, operator
from api.cli.exits import CommandFailed, Exit
from api.cli.fields import ranged
from api.cli.ops import Limit
from api.cli.output import note, print_json, print_text
from blocks.settings import Settings
from blocks.store import audit, streams
from blocks.store.audit import Action, Target, TargetKind
from blocks.store.database import Database
from blocks.store.streams import Manifest, Outcome, Stream, StreamCounts, StreamManifest

_ROWS_MAX = 1000
_PAGE = 100

_Customer = Annotated[str, Parameter(help="The customer's id.")]
_OneCustomer = Annotated[str | None, Parameter(help="Of this customer alone, by id.")]
_Name = Annotated[str, Parameter(help="The name of the stream.")]
_Limit = Annotated[int, ranged("Rows at most, from 1 on, the newest first.", 1)]
_Manifest = Annotated[str, Parameter(help="The URL of the manifest.")]


def list_streams(
    customer: _OneCustomer = None, *, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """List streams, by customer and name, with how many of their manifests came to what."""
    found: list[StreamCounts] = []
    with open_database() as database:
        while len(found) <= limit:
            after = (found[-1].customer_id, found[-1].stream) if found else ("", "")
            with database.transaction() as tx:
                page = streams.list_streams(tx, customer, after=after, limit=_PAGE)
            found += page
            if len(page) < _PAGE:
                break
    print_rows(found[:limit], StreamCounts, as_json=as_json)
    if len(found) > limit:
        note("There are more: --limit.")


def show_stream(
    customer: _Customer, stream: _Name, *, limit: _Limit = 100, as_json: AsJson = False
) -> None:
    """List the manifests of a stream, and what became of each."""
    _print(_manifests(customer, stream, limit=limit), as_json=as_json)


def list_failed(
    customer: _OneCustomer = None,
    stream: Annotated[str | None, Parameter(help="Of this stream of the customer alone.")] = None,
    *,
    limit: _Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List manifests without a result, of all streams or of some: failed, or not delivered."""
    _print(_manifests(customer, stream, outcomes=[Outcome.FAILED], limit=limit), as_json=as_json)


def resubmit(
    customer: _Customer,
    stream: _Name,
    *,
    manifest: Annotated[
        str | None, Parameter(help="Only the one of this URL, even if it was cancelled.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try every manifest of a stream again that has no result.

    A delivery that was refused is begun again, so that no label is asked for twice. A job that failed is
    made anew, as it was, from the version of the manifest that it was for.
    """
    again: list[StreamManifest] = []
    with open_database() as database:
        _check_known(database, customer, stream)
        while found := _failed(database, customer, stream, manifest):
            begun = [row for row in found if _resubmit(database, row)]
            again += begun
            if len(begun) < len(found) or len(found) < _ROWS_MAX:
                break
    if as_json:
        print_json([{"manifest_url": row.manifest_url, "version": row.version} for row in again])
        return
    for row in again:
        print_text(f"resubmitted {row.manifest_url}")
    print(f"{len(again)} of {customer} {stream}", file=sys.stderr)


def ignore(customer: _Customer, stream: _Name, *, manifest: _Manifest) -> None:
    """Count a manifest without a result as failed no longer. A new version of it counts again."""
    with open_database() as database, database.transaction() as tx:
        count = streams.ignore(tx, Stream(customer, stream), manifest)
        if count:
            target = Target(TargetKind.STREAM, stream, customer)
            audit.record(tx, operator(), Action.MANIFEST_IGNORED, target, versions=count)
    if not count:
        raise CommandFailed(
            f"{customer} {stream} has no manifest {manifest!r} that counts.", Exit.NOT_FOUND
        )
    print_text(f"ignored {manifest}")


def add_commands(app: App) -> None:
    """Add `streams …` to the command."""
    group = app.command(App(name="streams", help="Recurring ETL: what became of its manifests."))
    group.command(list_streams, name="list")
    group.command(show_stream, name="show")
    group.command(list_failed, name="failed")
    group.command(resubmit)
    group.command(ignore)


def _check_known(database: Database, customer: str, stream: str) -> None:
    with database.transaction() as tx:
        if not streams.list_streams(tx, customer, stream):
            raise CommandFailed(f"{customer} has no stream {stream!r}.", Exit.NOT_FOUND)


def _manifests(
    customer: str | None,
    stream: str | None,
    *,
    outcomes: Sequence[Outcome] | None = None,
    limit: int,
) -> list[StreamManifest]:
    with open_database() as database, database.transaction() as tx:
        return streams.list_manifests(tx, customer, stream, outcomes=outcomes, limit=limit)


def _failed(
    database: Database, customer: str, stream: str, manifest: str | None
) -> list[StreamManifest]:
    by_name = [Outcome.CANCELLED, Outcome.IGNORED] if manifest else []
    with database.transaction() as tx:
        return streams.list_manifests(
            tx,
            customer,
            stream,
            manifest_url=manifest,
            outcomes=[Outcome.FAILED, *by_name],
            limit=_ROWS_MAX,
        )


def _resubmit(database: Database, row: StreamManifest) -> bool:
    stream = Stream(row.customer_id, row.stream)
    manifest = Manifest(row.manifest_url, row.version)
    vault = Settings.from_environment().vault()
    with database.transaction() as tx:
        job_id = streams.resubmit(tx, stream, manifest, vault)
        if job_id is not None:
            target = Target(TargetKind.STREAM, row.stream, row.customer_id)
            audit.record(tx, operator(), Action.MANIFEST_RESUBMITTED, target, job_id=job_id)
        return job_id is not None


def _print(rows: Sequence[msgspec.Struct], *, as_json: bool) -> None:
    print_rows(rows, StreamManifest, as_json=as_json)
