"""`refinery jobs quality`: agreement, and what labels say of the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from api.cli.client import COMMON, Common, path
from api.cli.exits import UsageError
from api.cli.export import stream
from api.cli.files import replaced
from api.cli.output import print_fields, print_json, print_table
from blocks.domain.model import InferenceMethod


def quality(
    job_id: Annotated[str, Parameter(help="The id of the job.")],
    *,
    method: Annotated[
        str | None,
        Parameter(
            help="Infer true labels, and how often each annotator is right, as well.",
            choices=[each.value for each in InferenceMethod],
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="With --method: write each label that it would change to this file, as JSON lines, and "
            "print nothing.",
        ),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Show agreement: by confidence, option and annotator."""
    report = path("jobs", job_id, "quality")
    if output is not None:
        if method is None:
            raise UsageError("--output is for the labels that a --method would change.")
        with (
            common.client() as client,
            replaced(output, f"{quote(job_id, safe='')}.changes") as file,
        ):
            stream(client, f"{report}/changes", file, method=method)
        return
    with common.client() as client:
        found = client.get(report, method=method)
    if common.as_json:
        print_json(found)
        return
    inference = found.pop("inference", None)
    print_fields(found)
    if inference is not None:
        _print_inference(inference)


def _print_inference(inference: dict[str, Any]) -> None:
    annotators, changes = inference.pop("annotators"), inference.pop("changes")
    print()
    print_fields(inference)
    _print_rows(("annotator_id", "labels", "accuracy", "confusion"), annotators)
    _print_rows(("task_id", "label", "inferred", "posterior"), changes)


def _print_rows(fields: tuple[str, ...], rows: list[Mapping[str, Any]]) -> None:
    if rows:
        print()
        print_table(fields, ([row[field] for field in fields] for row in rows))
