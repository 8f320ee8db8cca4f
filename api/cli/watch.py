"""`refinery jobs watch`: a job's progress until it has ended."""

from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.client import Client, path
from api.cli.exits import CommandFailed, Exit, Unreachable
from api.cli.output import notes

_WAIT_S = 30
_FAILURES_MAX = 60  # of ten seconds and more
_ENDED = {"completed", "failed", "cancelled"}
_UNDER_WAY = {"pending", "delivering"}
_NAMES = {
    "store": "the store",
    "delivery": "the delivery's store",
    "prefect": "Prefect",
    "turn": "its turn",
    "annotators": "annotators",
}


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
    said = ""
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
            # Without the counter, which moves too often for a line each.
            waits = wait_sentence(job, with_tries=False)
            if waits and waits != said:
                notes.print(f"[dim]{escape(waits)}[/]", soft_wrap=False)
            said = waits
            if has_ended(job):
                return job


def stage(job: dict[str, Any]) -> str:
    """Its status, and that of its delivery while that is what goes on."""
    delivery = job["delivery"] and job["delivery"]["status"]
    return f"{job['status']}, {delivery}" if delivery else str(job["status"])


def waiting_stage(job: dict[str, Any]) -> str:
    """Return its status, and in a word what it waits for."""
    waiting = job.get("waiting_for")
    return f"{job['status']}, waits for {_NAMES[waiting['what']]}" if waiting else job["status"]


def wait_sentence(job: dict[str, Any], *, with_tries: bool = True) -> str:
    """Return in words what a job waits for, since when, and what comes next; "" if it is nothing."""
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


def _moment(time: str) -> str:
    return f"{time[:10]} {time[11:19]}Z"


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
