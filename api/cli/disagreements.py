"""`refinery jobs disagreements`: tasks whose labels are not all alike."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from api.cli.client import COMMON, Common, path
from api.cli.fields import ranged
from api.cli.output import note, print_answer, print_fields
from blocks.domain.model import TaskStatus

_PAGE = 100


class _Page(msgspec.Struct):
    disagreements: list[msgspec.Raw]
    next_cursor: str | None


def disagreements(
    job_id: Annotated[str, Parameter(help="The id of the job.")],
    *,
    status: Annotated[
        str | None,
        Parameter(
            help="Tasks of this status alone.",
            choices=[each.value for each in TaskStatus if each is not TaskStatus.PENDING],
        ),
    ] = None,
    option: Annotated[
        str | None, Parameter(help="Tasks alone that somebody gave this label.")
    ] = None,
    annotator: Annotated[
        str | None, Parameter(help="Tasks alone that this annotator labelled, by their id.")
    ] = None,
    limit: Annotated[int, ranged("How many tasks at most, from 1 on.", 1)] = 20,
    common: Common = COMMON,
) -> None:
    """List tasks whose labels are not all alike, and who said what, in the order of the manifest."""
    found: list[msgspec.Raw] = []
    cursor: str | None = None
    chosen = {"status": status, "option": option, "annotator": annotator}
    with common.client() as client:
        while len(found) < limit:
            params = chosen | {"limit": min(_PAGE, limit - len(found)), "cursor": cursor}
            given = {name: value for name, value in params.items() if value is not None}
            answer = client.request("GET", path("jobs", job_id, "disagreements"), params=given)
            client.decoded(answer)
            page = msgspec.json.decode(answer.content, type=_Page)
            found += page.disagreements
            cursor = page.next_cursor
            if cursor is None:
                break
    if common.as_json:
        print_answer(msgspec.json.encode(_Page(found, cursor)))
    else:
        _print(found, has_more=cursor is not None)


def _print(found: Sequence[msgspec.Raw], *, has_more: bool) -> None:
    for number, raw in enumerate(found):
        if number:
            print()
        print_fields(_fields(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])))
    if has_more:
        note("There are more: --limit.")
    elif not found:
        note("There are none.")


def _fields(raw: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return what people read of a task: its votes by option, with the names of those who chose it."""
    task = {name: msgspec.json.decode(value) for name, value in raw.items()}
    confidence = task["confidence"]
    said = {
        option: ", ".join(
            each["name"] or each["annotator_id"]
            for each in task["labels"]
            if each["label"] == option
        )
        for option, votes in task["votes"].items()
        if votes
    }
    end = (
        f"{task['consensus_label']} ({confidence:.0%})"
        if confidence is not None
        else task["reason"]
    )
    return {
        "task_id": task["task_id"],
        "line": task["line"],
        "data": task.get("text") or task["data_url"],
        "metadata": raw["metadata"],
        "status": f"{task['status']}: {end}" if end else task["status"],
        **{f"said {option}": names for option, names in said.items()},
    }
