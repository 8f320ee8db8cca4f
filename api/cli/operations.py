"""`refinery operations`: how the service goes, with an operator's key."""

from collections.abc import Mapping
from typing import Any

from cyclopts import App

from api.cli.client import COMMON, Common, path
from api.cli.output import note, print_json, print_table


def operations(*, common: Common = COMMON) -> None:
    """Show what waits, whose work Prefect has in hand, what is in trouble, and what was mended lately.

    Wants an operator's key, which `keys add --admin` makes, as REFINERY_API_KEY.
    """
    with common.client() as client:
        found = client.get(path("operations"))
    if common.as_json:
        print_json(found)
        return
    names = {each["customer_id"]: each["name"] for each in found["customers"]}
    tables = {
        "queue": _queues(found),
        "customer": _shares(found),
        "job": _work(found),
        "Prefect was not told of": _outbox(found),
        "endpoint": _endpoints(found, names),
        "reconcile": _reconciled(found),
    }
    for number, (first, (columns, rows)) in enumerate(
        (name, table) for name, table in tables.items() if table[1]
    ):
        if number:
            print()
        print_table((first, *columns), rows)
    if found["reconciled"] is None:
        note("Prefect does not answer.")


_Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def _queues(found: Mapping[str, Any]) -> _Table:
    return ("waiting", "the first for s"), [
        (each["name"], each["depth"], each["oldest_s"]) for each in found["queues"]
    ]


def _shares(found: Mapping[str, Any]) -> _Table:
    return ("name", "under way", "waiting", "the first for s"), [
        (
            each["customer_id"], each["name"], each["under_way"], each["waiting"], each["oldest_s"],
        )
        for each in found["customers"]
    ]  # fmt: skip


def _work(found: Mapping[str, Any]) -> _Table:
    return ("what", "since", "flow run", "runs", "failed tries", "why"), [
        (
            each["job_id"], each["kind"].replace("_", " "), _time(each["launched_at"]),
            each["flow_run_id"], each["launches"], each["tries"], each["reason"],
        )
        for each in found["runs"]
    ]  # fmt: skip


def _outbox(found: Mapping[str, Any]) -> _Table:
    return ("what", "since", "failed tries", "why"), [
        (
            each["job_id"], each["event"] or each["kind"].replace("_", " "),
            _time(each["created_at"]), each["tries"], each["last_error"],
        )
        for each in found["outbox"]
    ]  # fmt: skip


def _endpoints(found: Mapping[str, Any], names: Mapping[str, str]) -> _Table:
    return ("customer", "failures", "next try", "address"), [
        (
            each["webhook_id"], names.get(each["customer_id"], each["customer_id"]),
            each["failures"], _time(each["resumes_at"]), each["callback_url"],
        )
        for each in found["failing_endpoints"]
    ]  # fmt: skip


def _reconciled(found: Mapping[str, Any]) -> _Table:
    return ("state", "what it did", "flow run"), [
        (_time(each["ended_at"]), each["state"], each["message"], each["flow_run_id"])
        for each in found["reconciled"] or []
    ]


def _time(at: str | None) -> str:
    return at[:19].replace("T", " ") if at else ""


def add_commands(app: App) -> None:
    """Add `operations` to the command."""
    app.command(operations)
