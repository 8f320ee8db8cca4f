"""`refinery me …`: what annotators hold, have labelled and could label, with an annotator's key."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli.client import COMMON, Client, Common, path
from api.cli.fields import ranged
from api.cli.output import print_fields, print_json, print_table, print_text
from blocks.domain.model import ReviewReason

_PAGE = 100
_RENEWED_AT_ONCE_MAX = 500
_LEASE_S_MAX = 24 * 3600
_DATA_SHOWN = 200

_JobId = Annotated[str, Parameter(help="The id of a job that has tasks for you.")]

_TaskId = Annotated[str, Parameter(help="The id of a task that you have labelled.")]


def show(*, common: Common = COMMON) -> None:
    """Show what you hold, and how many labels of yours were taken, today and in all."""
    with common.annotator() as client:
        found = client.get(path("annotation", "me"))
    print_json(found) if common.as_json else print_fields(found)


def jobs(*, common: Common = COMMON) -> None:
    """List jobs that may have tasks for you just now."""
    with common.annotator() as client:
        found = client.get(path("annotation", "me", "jobs"), limit=_PAGE)
    if common.as_json:
        print_json(found)
        return
    print_table(
        ("job", "type", "question"),
        ((job["job_id"], job["task_type"], job["question"]) for job in found["jobs"]),
    )


def job(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Show what a job asks for, and its instructions."""
    with common.annotator() as client:
        found = client.get(path("annotation", "jobs", job_id))
    if common.as_json:
        print_json(found)
        return
    spec = found["label_spec"]
    print_fields({"question": spec["question"], "options": ", ".join(spec["options"])})
    if found["instructions"] is not None:
        print()
        print_text(found["instructions"])


def reviews(*, common: Common = COMMON) -> None:
    """Count the tasks that wait for reviewers, by job and reason; it takes a reviewer's key."""
    with common.annotator() as client:
        found = client.get(path("annotation", "reviews"), limit=_PAGE)
    if common.as_json:
        print_json(found)
        return
    print_table(
        ("job", *ReviewReason, "question"),
        (
            (job["job_id"], *map(job["waiting"].get, ReviewReason), job["question"])
            for job in found["jobs"]
        ),
    )


def leases(*, common: Common = COMMON) -> None:
    """List the tasks that you hold, and until when."""
    with common.annotator() as client:
        found = _held(client)
    if common.as_json:
        print_json({"tasks": found, "next_cursor": None})
        return
    print_table(
        ("task", "until", "data"),
        ((task["task_id"], _time(task["lease_expires_at"]), _data(task)) for task in found),
    )


def renew(
    task_ids: Annotated[
        tuple[str, ...], Parameter(help="Tasks to hold on to; all that you hold if none is named.")
    ] = (),
    /,
    *,
    lease_seconds: Annotated[
        int | None,
        ranged(
            f"For how long from now on, from 1 to {_LEASE_S_MAX}; as the service is set without it.",
            1,
            _LEASE_S_MAX,
        ),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Hold tasks for longer. What has run out meanwhile is not held any more."""
    given = {} if lease_seconds is None else {"lease_seconds": lease_seconds}
    results: list[dict[str, Any]] = []
    with common.annotator() as client:
        wanted = task_ids or [task["task_id"] for task in _held(client)]
        for start in range(0, len(wanted), _RENEWED_AT_ONCE_MAX):
            some = {"task_ids": wanted[start : start + _RENEWED_AT_ONCE_MAX]}
            answer = client.post(path("annotation", "renew"), some | given, again=True)
            results += answer["results"]
    if common.as_json:
        print_json({"results": results})
        return
    print_table(
        ("task", "outcome", "until"),
        (
            (each["task_id"], each["outcome"], _time(each.get("lease_expires_at", "")))
            for each in results
        ),
    )


def labels(
    *,
    limit: Annotated[int, ranged("How many labels at most, from 1 on.", 1)] = 20,
    common: Common = COMMON,
) -> None:
    """List your latest labels."""
    found: list[dict[str, Any]] = []
    cursor = None
    with common.annotator() as client:
        while len(found) < limit:
            most = min(_PAGE, limit - len(found))
            page = client.get(path("annotation", "me", "labels"), limit=most, cursor=cursor)
            found += page["labels"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if common.as_json:
        print_json({"labels": found, "next_cursor": cursor})
        return
    print_table(
        ("task", "at", "label"),
        ((each["task_id"], _time(each["created_at"]), each["label"]) for each in found),
    )


def label(task_id: _TaskId, *, common: Common = COMMON) -> None:
    """Show a label of yours that you may replace, and its task."""
    with common.annotator() as client:
        found = client.get(path("annotation", "me", "labels", task_id))
    if common.as_json:
        print_json(found)
        return
    spec = found["label_spec"]
    print_fields(
        {
            "question": spec["question"],
            "options": ", ".join(spec["options"]),
            "data": _data(found),
            "label": found["label"],
            "at": _time(found["created_at"]),
        }
    )


def add_commands(app: App) -> None:
    """Add `me …` to the command."""
    me = app.command(App(name="me", help=__doc__))
    for command in (show, jobs, job, reviews, leases, renew, labels, label):
        me.command(command)


def _held(client: Client) -> Sequence[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get(path("annotation", "leases"), limit=_PAGE, cursor=cursor)
        found += page["tasks"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def _data(task: Mapping[str, Any]) -> str:
    """Return the URL of a task, or the beginning of its text."""
    found: str = task.get("text") or task["data_url"]
    return found if len(found) <= _DATA_SHOWN else f"{found[:_DATA_SHOWN]}…"


def _time(at: str) -> str:
    return at[:19].replace("T", " ")
