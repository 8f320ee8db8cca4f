"""What operators look at and do over all customers; wants an operator's key."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli import bulk
from api.cli.client import COMMON, Client, Common, path
from api.cli.customer_limits import limits
from api.cli.fields import ranged
from api.cli.job_choice import FILTERS, Filters, Job
from api.cli.output import note, print_json, print_rows
from api.cli.times import AGO, read_time
from api.cli.watch import list_stage
from blocks.store.audit import Action
from blocks.store.loads import WorkStatus

_PAGE = 100
Limit = Annotated[int, ranged("How many at most, from 1 to 1,000,000.", 1, 1_000_000)]
OfCustomer = Annotated[
    str | None, Parameter(name="--customer", help="Of this customer alone, by id.")
]


def audit(
    *,
    customer: OfCustomer = None,
    action: Annotated[
        str | None,
        Parameter(help="Acts of this kind alone.", choices=[each.value for each in Action]),
    ] = None,
    actor: Annotated[
        str | None, Parameter(help="Acts with this key alone, by id, or at a command_line.")
    ] = None,
    target: Annotated[
        str | None, Parameter(help="Acts on this alone: the id of a job, a key and so on.")
    ] = None,
    since: Annotated[str | None, Parameter(help=f"Acts from this time on: {AGO}.")] = None,
    until: Annotated[str | None, Parameter(help=f"Acts before this time: {AGO}.")] = None,
    limit: Limit = 100,
    common: Common = COMMON,
) -> None:
    """Show who has changed what, the latest acts first.

    With a customer's key, what was done to their own things.
    """
    asked = {
        "customer": customer,
        "action": action,
        "actor": actor,
        "target": target,
        "since": read_time(since),
        "until": read_time(until),
    }
    with common.client() as client:
        page = read_pages(client, path("audit"), "lines", limit, asked)
    if common.as_json:
        print_json(page)
        return
    print_rows(
        ("target", "at", "who", "did", "customer", "details"),
        [_row(each) for each in page["lines"]],
    )
    note_more(page)


def jobs(*, filters: Filters = FILTERS, limit: Limit = 20, common: Common = COMMON) -> None:
    """List the jobs of all customers that the filters leave, newest first, and what they wait for."""
    with common.client() as client:
        found = list(islice(filters.find(client), limit + 1))
    shown = found[:limit]
    if common.as_json:
        print_json({"jobs": shown})
        return
    print_rows(("job", "status", "%", "submitted", "customer", "waits for"), _job_rows(shown))
    if len(found) > limit:
        note("There are more: --limit.")


def _job_rows(found: Sequence[Job]) -> list[tuple[Any, ...]]:
    return [
        (
            job["job_id"], list_stage(job), job["progress_percent"],
            job["created_at"][:16].replace("T", " "), job["customer_id"],
            job["waiting_for"]["reason"] if job["waiting_for"] else None,
        )
        for job in found
    ]  # fmt: skip


def customers(*, limit: Limit = 20, common: Common = COMMON) -> None:
    """List customers with what they have under way; nothing is counted further than up to 1,000."""
    _show(common, "customers", limit, {}, columns=_CUSTOMER_COLUMNS, row=_customer_row)


def streams(*, customer: OfCustomer = None, limit: Limit = 20, common: Common = COMMON) -> None:
    """List the streams of recurring ETL of all customers, by their latest 200 manifests."""
    _show(
        common, "streams", limit, {"customer": customer}, columns=_STREAM_COLUMNS, row=_stream_row
    )


def runs(
    *,
    status: Annotated[
        str | None,
        Parameter(help="Work in this state alone.", choices=[each.value for each in WorkStatus]),
    ] = None,
    customer: OfCustomer = None,
    limit: Limit = 20,
    common: Common = COMMON,
) -> None:
    """List the work that Prefect has still to do, that which came first first."""
    _show(
        common,
        "runs",
        limit,
        {"status": status, "customer": customer},
        columns=_RUN_COLUMNS,
        row=_run_row,
    )


_Row = Mapping[str, Any]
_CUSTOMER_COLUMNS = (
    "customer", "name", "paused", "jobs", "runs", "waiting", "first for s", "open tasks",
)  # fmt: skip
_STREAM_COLUMNS = ("stream", "customer", "latest", "open", "failed")
_RUN_COLUMNS = ("job", "status", "what", "customer", "since", "runs", "failed tries", "why")


def _show(
    common: Common,
    name: str,
    limit: int,
    asked: Mapping[str, Any],
    *,
    columns: tuple[str, ...],
    row: Callable[[_Row], tuple[Any, ...]],
) -> None:
    with common.client() as client:
        page = read_pages(client, path("operations", name), name, limit, asked)
    if common.as_json:
        print_json(page)
        return
    print_rows(columns, [row(each) for each in page[name]])
    note_more(page)


def _customer_row(each: _Row) -> tuple[Any, ...]:
    jobs = ", ".join(f"{count} {status}" for status, count in each["jobs"].items() if count)
    return (
        each["customer_id"], each["name"], (each["paused_at"] or "")[:16].replace("T", " "), jobs,
        each["runs_under_way"], each["runs_waiting"], each["oldest_s"], each["open_tasks"],
    )  # fmt: skip


def _stream_row(each: _Row) -> tuple[Any, ...]:
    latest = (each["latest_at"] or "")[:16].replace("T", " ")
    return each["stream"], each["customer_id"], latest, each["open"], each["failed"]


def _run_row(each: _Row) -> tuple[Any, ...]:
    since = (each["launched_at"] or each["waiting_since"])[:16].replace("T", " ")
    return (
        each["job_id"], each["status"].replace("_", " "), each["kind"].replace("_", " "),
        each["customer_id"], since, each["launches"], each["tries"], each["reason"],
    )  # fmt: skip


def _row(line: Mapping[str, Any]) -> tuple[Any, ...]:
    actor = line["actor"]
    who = " ".join(filter(None, (actor["role"], actor["name"], actor["key_id"])))
    details = ", ".join(f"{name} {_shown(value)}" for name, value in line["details"].items())
    return (
        line["target"]["id"], line["at"][:19].replace("T", " "), who,
        line["action"].replace("_", " "), line["customer_id"], details,
    )  # fmt: skip


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def read_pages(
    client: Client, where: str, name: str, limit: int, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return up to `limit` things of a list as one page of it; `name` is what the list is called."""
    found: list[Any] = []
    cursor = None
    while len(found) < limit:
        most = min(_PAGE, limit - len(found))
        page = client.get(where, **asked, limit=most, cursor=cursor)
        found += page[name]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return {name: found, "next_cursor": cursor}


def note_more(page: Mapping[str, Any]) -> None:
    """Say that there are more than the page has, if so."""
    if page["next_cursor"] is not None:
        note("There are more: --limit.")


def add_commands(app: App) -> None:
    """Add `ops …` to the command."""
    ops = app.command(App(name="ops", help=__doc__))
    for command in (
        audit, jobs, customers, streams, runs,
        bulk.cancel, bulk.retry, bulk.deliver, bulk.pause, bulk.resume, bulk.priority,
        limits,
    ):  # fmt: skip
        ops.command(command)
