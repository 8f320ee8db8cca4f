"""`refinery jobs watch`: a job's progress until it has ended."""

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.client import Client, path
from api.cli.exits import CommandFailed, Exit, Unreachable
from api.cli.output import notes

_WAIT_S = 30
_FAILURES_MAX = 60  # of ten seconds and more
_ENDED = {"completed", "failed", "cancelled"}
_UNDER_WAY = {"pending", "delivering"}


def watch(client: Client, job_id: str) -> dict[str, Any]:
    """The job as it is in the end; a bar on standard error while it is not, if that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    headers: dict[str, str] = {}
    params: dict[str, int] = {}
    failures = 0
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as progress:
        bar = progress.add_task(job_id, total=None)
        while True:
            try:
                response = client.request(
                    "GET", path("jobs", job_id), params=params, headers=headers
                )
            except Unreachable as error:
                failures += 1
                if not headers or failures == _FAILURES_MAX:
                    raise  # it was never there, or has been away for long
                notes.print(f"[dim]{error}; still watching[/]")
                continue
            failures = 0
            headers, params = {"If-None-Match": response.headers["ETag"]}, {"wait": _WAIT_S}
            if not response.content:
                continue  # nothing has changed
            job: dict[str, Any] = response.json()
            progress.update(
                bar,
                description=f"{job_id} {stage(job)}",
                total=job["total_tasks"] or None,
                completed=job["tasks_done"] + job["tasks_failed"],
            )
            if has_ended(job):
                return job


def stage(job: dict[str, Any]) -> str:
    """Its status, and that of its delivery while that is what goes on."""
    delivery = job["delivery"] and job["delivery"]["status"]
    return f"{job['status']}, {delivery}" if delivery else str(job["status"])


def has_ended(job: dict[str, Any]) -> bool:
    """Whether nothing more comes by itself."""
    delivery = job["delivery"] and job["delivery"]["status"]
    return job["status"] in _ENDED and delivery not in _UNDER_WAY


def check_success(job: dict[str, Any]) -> None:
    """Pass if a job that has ended came to what was wanted of it.

    Raises:
        CommandFailed: it failed or was cancelled, or its delivery failed.
    """
    if job["status"] != "completed":
        why = f": {job['error']['message']}" if job["error"] else ""
        raise CommandFailed(f"{job['job_id']} has ended as {job['status']}{why}", Exit.JOB_FAILED)
    if job["delivery"] and job["delivery"]["status"] == "failed":
        message = f"{job['job_id']} could not be delivered: {job['delivery']['message']}"
        raise CommandFailed(message, Exit.JOB_FAILED)
