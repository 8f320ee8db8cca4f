"""`refinery tasks …`: tasks without a manifest, for customers."""

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli.admin import app
from api.cli.client import COMMON, Common, path
from api.cli.exits import CommandFailed, Exit
from api.cli.job_options import Options, Threshold
from api.cli.output import print_fields, print_json

tasks = app.command(App(name="tasks", help="Tasks without a manifest, for customers."))


@tasks.command
def submit(
    data_url: str,
    *,
    type: Annotated[str, Parameter(name="--type")] = "image_classification",  # noqa: A002 - its name
    question: str,
    option: Options,
    threshold: Threshold = None,
    callback_url: str | None = None,
    idempotency_key: Annotated[
        str | None,
        Parameter(help="Again with the same key: the same task. Made where none is given."),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Submit one task, and print its id."""
    body: dict[str, Any] = {
        "type": type,
        "data_url": data_url,
        "label_spec": {"question": question, "options": list(option)},
        "consensus_threshold": threshold,
        "callback_url": callback_url,
        "idempotency_key": idempotency_key or str(uuid.uuid4()),
    }
    given = {name: value for name, value in body.items() if value is not None}
    with common.client() as client:
        answer = client.post(path("tasks"), given, again=True)
    print_json(answer) if common.as_json else print(answer["task_id"])


@tasks.command
def batch(file: Path, *, callback_url: str | None = None, common: Common = COMMON) -> None:
    """Submit up to 1,000 tasks at once, and print their ids.

    Parameters
    ----------
    file
        Tasks as JSON lines, each as in the API.
    """
    try:
        found = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file}: {error}", Exit.USAGE) from error
    body = {"tasks": found} | ({"callback_url": callback_url} if callback_url else {})
    with common.client() as client:
        answer = client.post(path("tasks", "batch"), body)
    print_json(answer) if common.as_json else print("\n".join(answer["task_ids"]))


@tasks.command
def show(task_id: str, *, common: Common = COMMON) -> None:
    """What has become of a task."""
    _print(path("tasks", task_id), common)


@tasks.command
def result(task_id: str, *, common: Common = COMMON) -> None:
    """The result of a task, or that it is still being labelled."""
    _print(path("tasks", task_id, "result"), common)


def _print(where: str, common: Common) -> None:
    with common.client() as client:
        found = client.get(where)
    print_json(found) if common.as_json else print_fields(found)
