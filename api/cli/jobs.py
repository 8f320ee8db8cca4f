"""Jobs, as their customer.

Exit codes: 0 it went well; 1 the job failed or was cancelled, or its delivery failed; 2 wrong usage;
3 the API cannot be reached; 4 it refused the request; 5 the key is wrong; 6 there is no such thing;
7 not in this state; 130 Ctrl-C.
"""

import json
import sys
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from api.cli.admin import app
from api.cli.client import COMMON, AtLeastOne, Client, Common, path
from api.cli.exits import CommandFailed, Exit
from api.cli.export import export as export_to
from api.cli.export import stream
from api.cli.job_options import FailureThreshold, Options, Priority, Threshold
from api.cli.output import notes, print_fields, print_json, print_table
from api.cli.watch import check_success, wait_sentence, waiting_stage
from api.cli.watch import watch as watch_job
from blocks.domain.model import Compression, ResultFormat
from blocks.domain.object_urls import StoreType

jobs = app.command(App(name="jobs", help=__doc__))

_PAGE = 100
_CredentialsFile = Annotated[
    Path | None,
    Parameter(help="Credentials as JSON, as in the API; `-` reads them from standard input."),
]
_Delivery = Annotated[
    str | None, Parameter(help="Where the results go: s3://bucket/prefix or gs://bucket/prefix.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is asked, and how it is decided."""

    question: str | None = None
    option: Options = ()
    threshold: Threshold = None
    task_type: str | None = None
    priority: Priority = None
    stop_early: Annotated[bool | None, Parameter(negative=())] = None
    failure_threshold_percent: FailureThreshold = None
    callback_url: str | None = None
    metadata: Annotated[dict[str, str] | None, Parameter(help="--metadata.order 17")] = None
    delivery: _Delivery = None
    format: ResultFormat | None = None
    compression: Compression | None = None
    kms_key_id: str | None = None
    acl: str | None = None
    credentials_file: _CredentialsFile = None

    def body(self) -> dict[str, Any]:
        """The fields of the API that were given."""
        found = {
            "consensus_threshold": self.threshold,
            "task_type": self.task_type,
            "priority": self.priority,
            "stop_early": self.stop_early,
            "failure_threshold_percent": self.failure_threshold_percent,
            "callback_url": self.callback_url,
            "metadata": self.metadata,
            "delivery": _delivery(self.delivery, vars(self)),
            "credentials": _credentials(self.credentials_file),
        }
        if self.question is not None or self.option:
            found["label_spec"] = {"question": self.question or "", "options": list(self.option)}
        return {name: value for name, value in found.items() if value is not None}


_SPEC = Spec()


@jobs.command
def submit(
    manifest_url: str | None = None,
    *,
    file: Annotated[Path | None, Parameter(help="The body of the request, as JSON.")] = None,
    spec: Spec = _SPEC,
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
    body = _read_json(file) if file else {}
    body |= spec.body() | ({"manifest_url": manifest_url} if manifest_url else {})
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    params = {"preflight": "true"} if preflight else {}
    with common.client() as client:
        accepted = client.post(path("jobs"), body, again=True, headers=headers, params=params)
        if not watch:
            print_json(accepted) if common.as_json else print(accepted["job_id"])
            return
        notes.print(accepted["job_id"])
        _show_end(client, accepted["job_id"], common)


@jobs.command(name="list")
def index(
    *,
    status: str | None = None,
    limit: AtLeastOne = 20,
    all: Annotated[bool, Parameter(negative=(), help="Every page.")] = False,  # noqa: A002 - its name
    common: Common = COMMON,
) -> None:
    """Jobs, newest first."""
    found: list[dict[str, Any]] = []
    cursor = None
    with common.client() as client:
        while all or len(found) < limit:
            most = _PAGE if all else min(_PAGE, limit - len(found))
            page = client.get(path("jobs"), status=status, limit=most, cursor=cursor)
            found += page["jobs"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if common.as_json:
        print_json({"jobs": found, "next_cursor": cursor})
        return
    print_table(
        ("job", "status", "tasks", "%", "created", "manifest"),
        (
            (
                job["job_id"], waiting_stage(job), job["total_tasks"], job["progress_percent"],
                job["created_at"][:19], job["manifest"]["url"],
            )
            for job in found
        ),
    )  # fmt: skip


@jobs.command
def show(job_id: str, *, common: Common = COMMON) -> None:
    """State and progress of a job."""
    with common.client() as client:
        _print_job(client.get(path("jobs", job_id)), common)


@jobs.command
def watch(job_id: str, *, common: Common = COMMON) -> None:
    """Follow a job until it has ended; exits with 1 if that is no success."""
    with common.client() as client:
        _show_end(client, job_id, common)


@jobs.command
def errors(
    job_id: str,
    *,
    format: Annotated[  # noqa: A002 - its name
        Literal["jsonl", "manifest"], Parameter(help="manifest: the bad lines alone, to be mended.")
    ] = "jsonl",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    common: Common = COMMON,
) -> None:
    """The lines without a result, and why: bad ones, and tasks that failed."""
    with common.client() as client, output.open("wb") if output else nullcontext() as file:
        stream(client, path("jobs", job_id, "errors"), file, format=format)


@jobs.command
def export(
    job_id: str,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    force: Annotated[bool, Parameter(negative=(), help="Replace the file.")] = False,
    common: Common = COMMON,
) -> None:
    """The results, as JSON lines. With -o it goes on where it broke off, now or when called again."""
    results = path("jobs", job_id, "export")
    with common.client() as client:
        if output is None:
            stream(client, results)
            return
        if output.exists() and not force:
            raise CommandFailed(f"{output} is there already; --force replaces it.", Exit.USAGE)
        size = export_to(client, results, output, output.with_name(f"{output.name}.{job_id}.part"))
    report = {"file": str(output), "bytes": size}
    print_json(report) if common.as_json else notes.print(f"{output}: {size:,} bytes")


@jobs.command
def cancel(job_id: str, *, common: Common = COMMON) -> None:
    """Stop a job; what has settled can be exported."""
    with common.client() as client:
        _print_job(client.post(path("jobs", job_id, "cancel")), common)


@jobs.command
def deliver(
    job_id: str,
    *,
    delivery: _Delivery = None,
    format: ResultFormat | None = None,  # noqa: A002 - its name
    compression: Compression | None = None,
    credentials_file: _CredentialsFile = None,
    common: Common = COMMON,
) -> None:
    """Try a delivery that failed again, elsewhere or with other credentials if they are given."""
    options = {"format": format, "compression": compression}
    body = {
        "delivery": _delivery(delivery, options),
        "credentials": _credentials(credentials_file),
    }
    given = {name: value for name, value in body.items() if value is not None}
    with common.client() as client:
        _print_job(client.post(path("jobs", job_id, "deliver"), given), common)


@jobs.command
def delete_credentials(job_id: str, *, common: Common = COMMON) -> None:
    """Delete the stored credentials of a job, for good. One that is still being read fails."""
    with common.client() as client:
        client.request("DELETE", path("jobs", job_id, "credentials"))
    if not common.as_json:
        notes.print(f"{job_id}: there are no credentials of it any more")


@jobs.command
def quality(job_id: str, *, common: Common = COMMON) -> None:
    """Agreement: by confidence, option and annotator."""
    with common.client() as client:
        found = client.get(path("jobs", job_id, "quality"))
    print_json(found) if common.as_json else print_fields(found)


def _show_end(client: Client, job_id: str, common: Common) -> None:
    job = watch_job(client, job_id)
    _print_job(job, common)
    check_success(job)


def _print_job(job: dict[str, Any], common: Common) -> None:
    if common.as_json:
        print_json(job)
        return
    shown = dict(job)
    spec = shown.pop("label_spec")
    shown |= {"question": spec["question"], "options": ", ".join(spec["options"])}
    shown["manifest"] = job["manifest"]["url"]
    if job["delivery"]:
        place = {name: value for name, value in job["delivery"].items() if value is not None}
        shown["delivery"] = ", ".join(f"{name} {value}" for name, value in place.items())
    if job["error"]:
        shown["error"] = job["error"]["message"]
    shown["waiting_for"] = wait_sentence(job)
    print_fields(shown)


def _delivery(uri: str | None, options: Mapping[str, Any]) -> dict[str, Any] | None:
    if uri is None:
        return None
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    store = StoreType.of_scheme(scheme)
    if store is None or not bucket:
        raise CommandFailed(f"{uri!r} is not s3://bucket/prefix or gs://bucket/prefix.", Exit.USAGE)
    names = ("format", "compression", "kms_key_id", "acl")
    given = {name: options.get(name) for name in names if options.get(name) is not None}
    return {"type": store, "bucket": bucket, "prefix": prefix} | given


def _credentials(file: Path | None) -> dict[str, Any] | None:
    return None if file is None else _read_json(file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file}: {error}", Exit.USAGE) from error
    if not isinstance(found, dict):
        raise CommandFailed(f"{file}: This must be a JSON object.", Exit.USAGE)
    return found
