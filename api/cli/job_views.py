"""`refinery jobs preview`, `timeline` and `objects`: before a job, while it goes on, and after it."""

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from api.cli.client import COMMON, Common, path
from api.cli.fields import ranged
from api.cli.guidance import GUIDANCE, Guidance
from api.cli.job_spec import SPEC, BodyFile, Spec, request_of
from api.cli.output import note, print_answer, print_fields, print_json, print_table

_PAGE = 1000
_JobId = Annotated[str, Parameter(help="The id of the job.")]
_Object = dict[str, msgspec.Raw]


class _Preview(msgspec.Struct):
    tasks: list[_Object]
    bad_lines: list[dict[str, Any]]


def preview(
    manifest_url: str | None = None,
    *,
    file: BodyFile = None,
    spec: Spec = SPEC,
    guidance: Guidance = GUIDANCE,
    common: Common = COMMON,
) -> None:
    """Try a job out without submitting it, and print the first ten lines of its manifest.

    Takes what `jobs submit` takes. What does not work, such as a bucket, is named by its field.

    Parameters
    ----------
    manifest_url
        s3://bucket/key or gs://bucket/key.
    """
    body = msgspec.json.encode(request_of(manifest_url, file, spec, guidance))
    headers = {"Content-Type": "application/json"}
    with common.client() as client:
        answer = client.request(
            "POST", path("jobs", "preview"), again=True, content=body, headers=headers
        )
        client.decoded(answer)
    if common.as_json:
        print_answer(answer.content)
        return
    found = msgspec.json.decode(answer.content, type=_Preview)
    for number, task in enumerate(found.tasks):
        if number:
            print()
        print_fields(task)
    if found.bad_lines:
        if found.tasks:
            print()
        print_table(
            ("bad line", "code", "message", "as it stands there"),
            ((bad["line"], bad["code"], bad["message"], bad["raw"]) for bad in found.bad_lines),
        )
    if not found.tasks and not found.bad_lines:
        note("There are no lines to show: the manifest is empty, or begins with a very long line.")


def timeline(job_id: _JobId, *, common: Common = COMMON) -> None:
    """Show when the lines of a job were read and its labels came, in steps of time."""
    with common.client() as client:
        found = client.get(path("jobs", job_id, "timeline"))
    if common.as_json:
        print_json(found)
        return
    for what in ("lines", "labels"):
        series = found[what]
        print_table(
            (f"{what}, by {series['step_s']} s from", "how many"),
            ((point["at"][:19].replace("T", " "), point["count"]) for point in series["points"]),
        )
        print()
    print_table(("bad lines", "how many"), found["bad_lines"].items())


def objects(
    job_id: _JobId,
    *,
    limit: Annotated[int, ranged("How many objects at most, from 1 on.", 1)] = 100,
    common: Common = COMMON,
) -> None:
    """List the objects of a delivery, with their sizes and checksums, as manifest.json has them."""
    found: list[dict[str, Any]] = []
    cursor = None
    with common.client() as client:
        while len(found) < limit:
            most = min(_PAGE, limit - len(found))
            where = path("jobs", job_id, "delivery", "objects")
            page = client.get(where, limit=most, cursor=cursor)
            found += page["objects"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if common.as_json:
        print_json({"objects": found, "next_cursor": cursor})
        return
    print_table(
        ("object", "rows", "bytes", "sha256"),
        ((each["key"], each["rows"], each["bytes"], each["sha256"]) for each in found),
    )
    if cursor is not None:
        note("There are more: --limit.")
