"""`refinery jobs watch`: a job's progress until it has ended."""

from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.client import Client, path
from api.cli.exits import CommandFailed, Exit, Unreachable
from api.cli.output import note, notes

_WAIT_S = 30
_FAILURES_MAX = 60  # each takes ten seconds or more
_ENDED = {"completed", "failed", "cancelled"}
_UNDER_WAY = {"pending", "delivering"}
_NAMES = {
    "store": "the store",
    "delivery": "the delivery's store",
    "prefect": "Prefect",
    "turn": "its turn",
    "annotators": "annotators",
    "reviewers": "reviewers",
    "operator": "an operator",
}


def watch(client: Client, job_id: str) -> dict[str, Any]:
    """Wait for a job to end, and return it as it is then; a terminal shows a bar meanwhile.

    Raises:
        CommandFailed: the API refuses, or has been away for ten minutes.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )
    headers: dict[str, str] = {}
    params: dict[str, int] = {}
    failures = 0
    said = ""
    with Progress(*columns, console=notes(), disable=not notes().is_terminal) as progress:
        bar = progress.add_task(job_id, total=None, pace="")
        while True:
            try:
                response = client.request(
                    "GET", path("jobs", job_id), params=params, headers=headers
                )
            except Unreachable as error:
                failures += 1
                if not headers or failures == _FAILURES_MAX:
                    raise  # the API was never there, or has been away for long
                note(f"{error}; still watching", style="dim")
                continue
            failures = 0
            headers, params = {"If-None-Match": response.headers.get("ETag", "")}, {"wait": _WAIT_S}
            if not response.content:
                continue  # nothing has changed
            job: dict[str, Any] = client.decoded(response)
            progress.update(
                bar,
                description=f"{job_id} {stage(job)}",
                total=job["total_tasks"] or None,
                completed=job["tasks_done"] + job["tasks_failed"],
                pace=_short_pace(job),
            )
            # Tries change too often to print a line for each.
            waits = wait_sentence(job, with_tries=False)
            if waits and waits != said:
                note(waits, style="dim")
            said = waits
            if has_ended(job):
                return job


def stage(job: dict[str, Any]) -> str:
    """Return a job's status, and that of its delivery if there is one."""
    delivery = job["delivery"] and job["delivery"]["status"]
    return f"{job['status']}, {delivery}" if delivery else str(job["status"])


def waiting_stage(job: Mapping[str, Any]) -> str:
    """Return a job's status, and in a word what it waits for."""
    waiting = job.get("waiting_for")
    return f"{job['status']}, waits for {_NAMES[waiting['what']]}" if waiting else job["status"]


def list_stage(job: Mapping[str, Any]) -> str:
    """Return a job's status, and what it waits for or the code of why it failed."""
    delivery = job["delivery"] or {}
    if job["error"]:
        return f"{job['status']}: {job['error']['code']}"
    if delivery.get("status") == "failed":
        return f"{job['status']}, not delivered: {delivery['code']}"
    return waiting_stage(job)


def wait_sentence(job: dict[str, Any], *, with_tries: bool = True) -> str:
    """Return in words what a job waits for, since when, and what comes next; "" if for nothing."""
    waiting = job.get("waiting_for")
    if not waiting:
        return ""
    parts = [f"since {_moment(waiting['since'])}"]
    if with_tries and waiting["tries"]:
        parts.append(f"tried {waiting['tries']} times" if waiting["tries"] > 1 else "tried once")
    if with_tries and waiting["next_try_at"]:
        parts.append(f"next try {_moment(waiting['next_try_at'])}")
    if waiting["gives_up_at"]:
        parts.append(f"gives up {_moment(waiting['gives_up_at'])}")
    return f"{_NAMES[waiting['what']]}: {waiting['reason']} ({', '.join(parts)})"


def pace_sentence(job: Mapping[str, Any]) -> str:
    """Return in words how fast a job is labelled, and when it will be done; "" if it takes no labels."""
    pace = job.get("pace")
    if not pace:
        return ""
    per_hour, eta = pace["labels_per_hour"], pace["eta"]
    parts = ["" if per_hour is None else f"{per_hour:,.0f} labels/h"]
    parts.append(f"{pace['labels_left']:,} left")
    parts.append(f"until {_moment(eta)[:16]}Z" if eta else "")
    return ", ".join(filter(None, parts))


def _short_pace(job: Mapping[str, Any]) -> str:
    """Return when a job will be done, for the end of a line."""
    eta = (job.get("pace") or {}).get("eta")
    return f"until {_moment(eta)[5:16]}Z" if eta else ""


def _moment(time: str) -> str:
    return f"{time[:10]} {time[11:19]}Z"


def has_ended(job: dict[str, Any]) -> bool:
    """Return True if nothing more comes by itself."""
    delivery = job["delivery"] and job["delivery"]["status"]
    return job["status"] in _ENDED and delivery not in _UNDER_WAY


def check_success(job: dict[str, Any]) -> None:
    """Pass if a job has ended well.

    Raises:
        CommandFailed: it failed or was cancelled, or its delivery failed; it says why.
    """
    if job["status"] != "completed":
        why = f": {job['error']['message']}" if job["error"] else ""
        raise CommandFailed(f"{job['job_id']} has ended as {job['status']}{why}", Exit.FAILED)
    if job["delivery"] and job["delivery"]["status"] == "failed":
        message = f"{job['job_id']} could not be delivered: {job['delivery']['message']}"
        raise CommandFailed(message, Exit.FAILED)
