"""`refinery tasks …`: tasks without a manifest, for customers."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from api.cli.client import COMMON, Common, path
from api.cli.consensus import CONSENSUS, Consensus
from api.cli.fields import field_option
from api.cli.files import read_objects
from api.cli.guidance import GUIDANCE, Guidance
from api.cli.output import print_answer, print_fields, print_json
from blocks.bodies.jobs import JobBody

_TaskId = Annotated[str, Parameter(help="The id of the task.")]
_CallbackUrl = Annotated[
    str | None, Parameter(help="Where to tell that a task is settled: an https URL.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked, and of how many."""

    question: Annotated[str, Parameter(help="What annotators are asked.")]
    option: Annotated[
        tuple[str, ...], Parameter(help="What they choose from, once for each: 2 to 100.")
    ]
    text: Annotated[
        str | None, Parameter(help="What to read, instead of a URL; not for image_classification.")
    ] = None
    threshold: Annotated[
        int | None,
        field_option(JobBody, "consensus_threshold", "Labels before agreement is looked at."),
    ] = None
    skips_max: Annotated[
        int | None,
        field_option(JobBody, "skips_max", "Skips of one reason with which the task fails."),
    ] = None


def submit(
    data_url: Annotated[
        str | None, Parameter(help="What to look at: an absolute http, https, s3 or gs URL.")
    ] = None,
    *,
    type: Annotated[  # noqa: A002 - its name
        str, field_option(JobBody, "task_type", "What annotators are asked to do.", name="--type")
    ] = "image_classification",
    asked: Asked,
    guidance: Guidance = GUIDANCE,
    consensus: Consensus = CONSENSUS,
    callback_url: _CallbackUrl = None,
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
        "text": asked.text,
        "label_spec": {"question": asked.question, "options": list(asked.option)}
        | guidance.details(asked.option),
        "consensus_threshold": asked.threshold,
        "skips_max": asked.skips_max,
        "callback_url": callback_url,
        "idempotency_key": idempotency_key or str(uuid.uuid4()),
    }
    given = {name: value for name, value in body.items() if value is not None}
    with common.client() as client:
        answer = client.post(path("tasks"), given | consensus.body() | guidance.body(), again=True)
    print_json(answer) if common.as_json else print(answer["task_id"])


def batch(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    callback_url: _CallbackUrl = None,
    common: Common = COMMON,
) -> None:
    """Submit up to 1,000 tasks at once, and print their ids.

    Parameters
    ----------
    file
        Tasks as JSON lines, each as in the API; `-` reads them from standard input.
    """
    body: dict[str, Any] = {"tasks": read_objects(file)}
    with common.client() as client:
        answer = client.post(
            path("tasks", "batch"), body | ({"callback_url": callback_url} if callback_url else {})
        )
    print_json(answer) if common.as_json else print("\n".join(answer["task_ids"]))


def show(task_id: _TaskId, *, common: Common = COMMON) -> None:
    """Show what has become of a task."""
    _print(path("tasks", task_id), common)


def result(task_id: _TaskId, *, common: Common = COMMON) -> None:
    """Show the result of a task, or that it is still being labelled."""
    _print(path("tasks", task_id, "result"), common)


def add_commands(app: App) -> None:
    """Add `tasks …` to the command."""
    tasks = app.command(App(name="tasks", help="Tasks without a manifest, for customers."))
    for command in (submit, batch, show, result):
        tasks.command(command)


def _print(where: str, common: Common) -> None:
    with common.client() as client:
        answer = client.request("GET", where)
        client.decoded(answer)
    if common.as_json:
        print_answer(answer.content)
    else:
        print_fields(msgspec.json.decode(answer.content, type=dict[str, msgspec.Raw]))
