"""Jobs, as their customer.

Exit codes: 0 it went well; 1 the job failed or was cancelled, or its delivery failed; 2 wrong usage;
3 the API cannot be reached; 4 it refused the request; 5 the key is wrong; 6 there is no such thing;
7 not in this state; 130 Ctrl-C.
"""

import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from api.cli.client import COMMON, Client, Common, path
from api.cli.disagreements import disagreements
from api.cli.exits import CommandFailed, Exit, UsageError
from api.cli.export import download, stream
from api.cli.fields import ranged
from api.cli.files import is_stand_in, read_object, replaced
from api.cli.guidance import GUIDANCE, Guidance
from api.cli.job_spec import (
    SPEC,
    BodyFile,
    Compression,
    CredentialsFile,
    Delivery,
    Format,
    Spec,
    delivery_of,
    request_of,
)
from api.cli.job_views import objects, preview, timeline
from api.cli.output import note, print_fields, print_json, print_table, print_text
from api.cli.quality import quality
from api.cli.watch import check_success, list_stage, pace_sentence, wait_sentence
from api.cli.watch import watch as watch_job
from blocks.domain.model import JobStatus

_PAGE = 100
_JobId = Annotated[str, Parameter(help="The id of the job.")]
_Output = Annotated[
    Path | None,
    Parameter(
        name=["--output", "-o"],
        help="A file instead of standard output. It is made or replaced when all of it has come.",
    ),
]


def submit(
    manifest_url: str | None = None,
    *,
    file: BodyFile = None,
    spec: Spec = SPEC,
    guidance: Guidance = GUIDANCE,
    preflight: Annotated[bool, Parameter(negative=(), help="Try everything out first.")] = False,
    idempotency_key: Annotated[
        str | None,
        Parameter(help="Again with the same key: the same job. Made where none is given."),
    ] = None,
    watch: Annotated[bool, Parameter(negative=(), help="Stay until the job has ended.")] = False,
    common: Common = COMMON,
) -> None:
    """Submit a job, and print its id.

    Parameters
    ----------
    manifest_url
        s3://bucket/key or gs://bucket/key.
    """
    body = request_of(manifest_url, file, spec, guidance)
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    params = {"preflight": "true"} if preflight else {}
    with common.client() as client:
        accepted = client.post(path("jobs"), body, again=True, headers=headers, params=params)
        if not watch:
            print_json(accepted) if common.as_json else print(accepted["job_id"])
            return
        note(accepted["job_id"])
        _show_end(client, accepted["job_id"], common)


def index(
    *,
    status: Annotated[
        str | None,
        Parameter(help="Jobs in this state alone.", choices=[each.value for each in JobStatus]),
    ] = None,
    search: Annotated[
        str | None, Parameter(help="Jobs with this text in their id, question or manifest URL.")
    ] = None,
    limit: Annotated[int, ranged("How many jobs at most, from 1 on.", 1)] = 20,
    all: Annotated[bool, Parameter(negative=(), help="Every page.")] = False,  # noqa: A002 - its name
    common: Common = COMMON,
) -> None:
    """List jobs, newest first, with the reason of each that failed."""
    found: list[dict[str, Any]] = []
    cursor = None
    with common.client() as client:
        while all or len(found) < limit:
            most = _PAGE if all else min(_PAGE, limit - len(found))
            asked = {"status": status, "search": search, "limit": most, "cursor": cursor}
            page = client.get(path("jobs"), **asked)
            found += page["jobs"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if common.as_json:
        print_json({"jobs": found, "next_cursor": cursor})
        return
    _print_jobs(found)


def show(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Show the state and progress of a job."""
    with common.client() as client:
        _print_job(client.get(path("jobs", job_id)), common)


def instructions(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Print what annotators of a job read before they label."""
    with common.client() as client:
        found = client.get(path("jobs", job_id, "instructions"))
    if common.as_json:
        print_json(found)
    elif found["text"] is None:
        note(f"{job_id} has no instructions")
    else:
        print_text(found["text"])


def watch(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Follow a job until it has ended; exits with 1 if that is no success."""
    with common.client() as client:
        _show_end(client, job_id, common)


def errors(
    job_id: _JobId,
    *,
    format: Annotated[  # noqa: A002 - its name
        Literal["jsonl", "manifest"],
        Parameter(
            help="jsonl: each line and its reason; manifest: the bad lines alone, to be mended."
        ),
    ] = "jsonl",
    output: _Output = None,
    common: Common = COMMON,
) -> None:
    """Print the lines without a result, and why: bad ones, and tasks that failed."""
    where = path("jobs", job_id, "errors")
    with (
        common.client() as client,
        replaced(output, f"{quote(job_id, safe='')}.errors") as file,
    ):
        stream(client, where, file, format=format)


def export(
    job_id: _JobId,
    *,
    output: _Output = None,
    force: Annotated[bool, Parameter(negative=(), help="Replace the file.")] = False,
    common: Common = COMMON,
) -> None:
    """Print the results, as JSON lines. With -o it goes on where it broke off, now or the next time."""
    results = path("jobs", job_id, "export")
    with common.client() as client:
        if output is None or is_stand_in(output):
            with replaced(output, "") as file:
                stream(client, results, file)
            return
        if output.exists() and not force:
            raise UsageError(f"{output} is there already; --force replaces it.")
        with replaced(output, quote(job_id, safe=""), resumable=True) as file:
            size = download(client, results, file)
    report = {"file": str(output), "bytes": size}
    print_json(report) if common.as_json else note(f"{output}: {size:,} bytes")


def cancel(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Stop a job; what has settled can be exported."""
    with common.client() as client:
        _print_job(client.post(path("jobs", job_id, "cancel")), common)


def deliver(
    job_id: _JobId,
    *,
    delivery: Delivery = None,
    format: Format = None,  # noqa: A002 - its name
    compression: Compression = None,
    credentials_file: CredentialsFile = None,
    common: Common = COMMON,
) -> None:
    """Try a delivery that failed again, elsewhere or with other credentials if they are given."""
    options = {"format": format, "compression": compression}
    body = {
        "delivery": delivery_of(delivery, options),
        "credentials": credentials_file and read_object(credentials_file),
    }
    given = {name: value for name, value in body.items() if value is not None}
    with common.client() as client:
        _print_job(client.post(path("jobs", job_id, "deliver"), given), common)


def delete_credentials(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Delete the stored credentials of a job, for good. One that is still being read fails."""
    with common.client() as client:
        client.request("DELETE", path("jobs", job_id, "credentials"))
    if not common.as_json:
        note(f"{job_id}: there are no credentials of it any more")


def delete(
    job_id: _JobId,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask.")] = False,
    common: Common = COMMON,
) -> None:
    """Delete a job that has ended, its labels and results, for good. A delivery stays in its bucket."""
    if not yes and sys.stdin.isatty():
        note(f"Delete {job_id} with all of its labels and results, for good? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandFailed("Nothing was deleted.", Exit.FAILED)
    with common.client() as client:
        client.request("DELETE", path("jobs", job_id))
    if not common.as_json:
        note(f"{job_id} is deleted")


def exclude(
    job_id: _JobId,
    annotator_id: Annotated[str, Parameter(help="The id of the annotator, ann_….")],
    *,
    common: Common = COMMON,
) -> None:
    """Hand an annotator nothing more of a job, and set their labels aside; votes are counted anew."""
    with common.client() as client:
        found = client.post(path("jobs", job_id, "annotators", annotator_id, "exclude"), {})
    print_json(found) if common.as_json else print_fields(found)


def history(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Show what has happened to a job, and who was excluded from it."""
    with common.client() as client:
        found = client.get(path("jobs", job_id, "history"))
    if common.as_json:
        print_json(found)
        return
    print_table(
        ("at", "event", "what"),
        (
            (
                line.pop("at")[:19].replace("T", " "),
                line.pop("event").replace("_", " "),
                ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in line.items()),
            )
            for line in found["history"]
        ),
    )


def add_commands(app: App) -> None:
    """Add `jobs …` to the command."""
    jobs = app.command(App(name="jobs", help=__doc__))
    jobs.command(index, name="list")
    for command in (
        submit, preview, show, timeline, objects, instructions, watch, errors, export, cancel, deliver,
        delete_credentials, delete, quality, disagreements, exclude, history,
    ):  # fmt: skip
        jobs.command(command)


def _progress(job: Mapping[str, Any]) -> float | None:
    """Return the share that is done, in percent; None while there is nothing to be done."""
    percent: float = job["progress_percent"]
    return percent if job["total_tasks"] else None


def _show_end(client: Client, job_id: str, common: Common) -> None:
    job = watch_job(client, job_id)
    _print_job(job, common)
    check_success(job)


def _print_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        ("job", "status", "tasks", "%", "created", "manifest"),
        (
            (
                job["job_id"], list_stage(job), job["total_tasks"], _progress(job),
                job["created_at"][:19].replace("T", " "), job["manifest"]["url"],
            )
            for job in jobs
        ),
    )  # fmt: skip


def _print_job(job: dict[str, Any], common: Common) -> None:
    if common.as_json:
        print_json(job)
        return
    shown = dict(job) | {"progress_percent": _progress(job)}
    spec = shown.pop("label_spec")
    shown |= {"question": spec["question"], "options": ", ".join(spec["options"])}
    shown["manifest"] = job["manifest"]["url"]
    if job["delivery"]:
        place = {name: value for name, value in job["delivery"].items() if value is not None}
        shown["delivery"] = ", ".join(f"{name} {value}" for name, value in place.items())
    if job["error"]:
        shown["error"] = job["error"]["message"]
    shown["waiting_for"] = wait_sentence(job)
    shown["pace"] = pace_sentence(job)
    print_fields(shown)
