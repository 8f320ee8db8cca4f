"""`refinery ops limits`: the limits of one customer, at run time."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from api.cli.client import COMMON, Common, path
from api.cli.exits import UsageError
from api.cli.fields import ranged
from api.cli.output import print_json, print_rows
from blocks.domain.limits import CUSTOMER_LIMIT_MAX, CUSTOMER_RUNS_MAX

_Name = Literal[
    "runs", "jobs", "open_tasks", "stored_bytes", "webhooks", "keys",
    "requests_per_minute", "body_bytes_per_minute",
]  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class Limits:
    """Limits that are to be changed: those that are given."""

    runs: Annotated[
        int | None,
        Parameter(name="--runs"),
        ranged("Runs of Prefect under way at once, from 1 to 1000.", 1, CUSTOMER_RUNS_MAX),
    ] = None
    jobs: Annotated[
        int | None,
        Parameter(name="--jobs"),
        ranged("Jobs under way at once, from 0 on; 0 is no limit.", 0, CUSTOMER_LIMIT_MAX),
    ] = None
    open_tasks: Annotated[
        int | None,
        Parameter(name="--open-tasks"),
        ranged("Tasks that wait for labels at once, from 0 on.", 0, CUSTOMER_LIMIT_MAX),
    ] = None
    stored_bytes: Annotated[
        int | None,
        Parameter(name="--stored-bytes"),
        ranged("Bytes of manifests and tasks, from 0 on.", 0, CUSTOMER_LIMIT_MAX),
    ] = None
    webhooks: Annotated[
        int | None,
        Parameter(name="--webhooks"),
        ranged("Endpoints that are registered, from 0 on.", 0, CUSTOMER_LIMIT_MAX),
    ] = None
    keys: Annotated[
        int | None,
        Parameter(name="--keys"),
        ranged("Keys that are good or new, from 0 on.", 0, CUSTOMER_LIMIT_MAX),
    ] = None
    requests_per_minute: Annotated[
        int | None,
        Parameter(name="--requests-per-minute"),
        ranged("Requests, at each API process, from 0 on.", 0, CUSTOMER_LIMIT_MAX),
    ] = None
    body_bytes_per_minute: Annotated[
        int | None,
        Parameter(name="--body-bytes-per-minute"),
        ranged("Bytes of bodies, to each API process, from 0 on.", 0, CUSTOMER_LIMIT_MAX),
    ] = None


_NONE = Limits()


def limits(
    customer: Annotated[str, Parameter(help="The customer, by id.")],
    /,
    *,
    new: Limits = _NONE,
    default: Annotated[
        list[_Name] | None,
        Parameter(negative=(), help="Have a limit be that of the settings again; may be repeated."),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Show the limits of a customer that are their own, or change some; no process is started again."""
    changes: dict[str, int | None] = {k: v for k, v in asdict(new).items() if v is not None}
    for name in default or ():
        if name in changes:
            raise UsageError(f"--default {name} and a limit of its own do not go together.")
        changes[name] = None
    where = path("operations", "customers", customer)
    with common.client() as client:
        found = client.patch(where, changes) if changes else client.get(where)
    if common.as_json:
        print_json(found)
        return
    print_rows(("limit", "of their own"), [*_rows(found["limits"])])


def _rows(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (name, value if value is not None else "as the settings say")
        for name, value in found.items()
    ]
