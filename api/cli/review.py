"""`refinery review`: decide tasks under review in a terminal, one after the other."""

import textwrap
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli.annotate import AtOnce, Instructions, Said, Sitting, describe, list_choices
from api.cli.client import COMMON, Client, Common, path
from api.cli.output import note, printable
from blocks.domain.model import ReviewReason

_COLUMNS = 78
_RELEASED_MAX = 500
_QUEUE = {"queue": "review"}
_DECISIONS: Mapping[str, Said] = {
    "b": {"send_back": True},
    "x": {"fail": "no_consensus"},
    "?": {"fail": "unclear"},
    "!": {"fail": "broken"},
    "-": {"fail": "none_of_these"},
}
_HELP = (
    "a number settles it; b sends it back for one more label; x no consensus, ? unclear,\n"
    "! broken, - none of these fail it; s skips it for now, u undoes, q ends"
)

_WRONG = "Type the number of an option, b, x, ?, !, -, s, u or q."


def add_commands(app: App) -> None:
    """Add `review` to the command."""
    app.command(review)


def review(
    *,
    job: Annotated[str | None, Parameter(help="Tasks of this job alone, by its id.")] = None,
    reason: Annotated[
        str | None,
        Parameter(
            help="Tasks that are under review for this reason alone.", choices=[*ReviewReason]
        ),
    ] = None,
    annotator: Annotated[
        str | None,
        Parameter(help="Tasks alone that this annotator has labelled or skipped, by their id."),
    ] = None,
    at_once: AtOnce = 10,
    common: Common = COMMON,
) -> None:
    """Decide tasks under review in the terminal: each is shown with its votes, and why it is here.

    A number settles the task on that option. `b` sends it back for one more label. `x`, `?`, `!` and `-`
    fail it: there is no consensus, it is unclear, it is broken, it is none of the options. `s` leaves
    it for later.

    The key is a reviewer's: REFINERY_ANNOTATOR_KEY, or REFINERY_API_KEY, or that of a profile. Decisions
    are sent when all tasks of a claim were seen, and at the end; until then they can be undone.
    """
    asked = {"job_id": job, "reason": reason, "annotator_id": annotator}
    only = {name: value for name, value in asked.items() if value is not None}
    outcomes: Counter[str] = Counter()
    # What is skipped for now stays held until the end, so that other tasks come.
    left: list[str] = []
    with common.annotator() as client:
        instructions = Instructions(client)
        held = [task for task in _held(client, at_once) if _is_wanted(task, only)]
        try:
            while tasks := held or _claimed(client, {"limit": at_once} | only):
                held = []
                sitting = _Reviewing(tasks, instructions, left)
                try:
                    is_over = sitting.go_through()
                finally:  # after Ctrl-C too
                    outcomes += sitting.send(client)
                if is_over:
                    break
        finally:
            for start in range(0, len(left), _RELEASED_MAX):
                ids = {"task_ids": left[start : start + _RELEASED_MAX]}
                client.post(path("annotation", "release"), ids, again=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "no decisions")


def _held(client: Client, at_once: int) -> list[dict[str, Any]]:
    """Return the tasks of an earlier claim, whose terminal was killed."""
    answer = client.get(path("annotation", "leases"), limit=at_once, **_QUEUE)
    found: list[dict[str, Any]] = answer["tasks"]
    return found


def _is_wanted(task: Mapping[str, Any], only: Mapping[str, str]) -> bool:
    """Return whether a task under review is one that a claim for `only` such would hand out."""
    case = task["review"]
    said_by = {each["annotator_id"] for each in (*case["labels"], *case["skips"])}
    return (
        only.get("job_id", case["job_id"]) == case["job_id"]
        and only.get("reason", case["reason"]) == case["reason"]
        and ("annotator_id" not in only or only["annotator_id"] in said_by)
    )


def _claimed(client: Client, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    where = path("annotation", "claim")
    answer = client.post(where, wanted, again=True, headers=key, params=_QUEUE)
    found: list[dict[str, Any]] = answer["tasks"]
    if not found:
        is_over = answer["retry_after_s"] is None
        note(f"There is nothing {'left to review' if is_over else 'to review just now'}.")
    return found


class _Reviewing(Sitting):
    """The tasks of one claim, and the decisions on them."""

    what = "decisions"
    good = ("settled", "failed", "sent_back")

    def __init__(
        self, tasks: Sequence[Mapping[str, Any]], instructions: Instructions, left: list[str]
    ) -> None:
        super().__init__(tasks, instructions)
        self._left = left

    def _describe(self, task: Mapping[str, Any], number: int) -> str:
        return "\n".join([describe(task, number, len(self._tasks)), *_case(task["review"])])

    def _choices(self, task: Mapping[str, Any]) -> dict[str, Said | None]:
        # Hotkeys of options could mean something else here.
        choices = list_choices(task)
        return {word: said for word, said in choices.items() if word.isdecimal() or word == "s"}

    def _help(self, task: Mapping[str, Any]) -> tuple[str, str]:
        if "instructions" in task:
            return f"{_HELP}, i shows the instructions", f"{_WRONG.removesuffix(' or q.')}, i or q."
        return _HELP, _WRONG

    def _parse(self, typed: str) -> Said | None:
        return _DECISIONS.get(typed.lower())

    def _hand_back(self, client: Client, task_ids: Sequence[str]) -> None:  # noqa: ARG002 - at the end
        self._left += task_ids

    def _send_chosen(self, client: Client, chosen: Sequence[Said]) -> list[dict[str, str]]:
        sent = client.post(path("annotation", "reviews"), {"reviews": chosen}, again=True)
        results: list[dict[str, str]] = sent["results"]
        return results


def _case(case: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of why a task is under review, and of what annotators have said."""
    proposed = "it would collect one more label"
    if case["proposed_label"] is not None:
        proposed = f"proposed: {case['proposed_label']}, confidence {case['confidence']:.2f}"
    elif case["proposed_failure"] is not None:
        proposed = f"it would fail: {case['proposed_failure']}"
    votes = ", ".join(f"{option} {n}" for option, n in case["votes"].items() if n) or "none"
    yield from _wrapped(f"{case['reason']}; {proposed}")
    yield from _wrapped(f"votes: {votes}")
    for skip in case["skips"]:
        more = f": {skip['note']}" if skip["note"] else ""
        yield from _wrapped(f"skipped as {skip['reason']}{more}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(printable(text), _COLUMNS, initial_indent="  ", subsequent_indent="    ")
