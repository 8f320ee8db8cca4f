"""`refinery annotate`: label tasks in a terminal, one after the other."""

import json
import textwrap
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli.client import COMMON, Client, Common, path
from api.cli.fields import ranged
from api.cli.output import note, print_text, printable
from blocks.domain.limits import SKIP_NOTE_CHARACTERS_MAX
from blocks.domain.model import TaskType

_AT_ONCE_MAX = 100
_COLUMNS = 78
_SKIPS = {"?": "unclear", "!": "broken", "-": "none_of_these"}
_HELP = (
    "a number chooses; ? unclear, ! broken, - none of these skip it, and a note may follow;\n"
    "s hands it back, u undoes, q ends"
)
_COMMANDS = frozenset("suqi") | _SKIPS.keys()
_GOOD = ("accepted", "settled", "skipped")

_Said = dict[str, str]

_AtOnce = Annotated[
    int, ranged(f"Tasks that are claimed at once, from 1 to {_AT_ONCE_MAX}.", 1, _AT_ONCE_MAX)
]


def add_commands(app: App) -> None:
    """Add `annotate` to the command."""
    app.command(annotate)


def annotate(
    *,
    job: Annotated[str | None, Parameter(help="Tasks of this job alone, by its id.")] = None,
    type: Annotated[  # noqa: A002 - its name in the API
        tuple[str, ...],
        Parameter(
            name="--type",
            help="Tasks of this type alone; once for each.",
            choices=[each.value for each in TaskType],
        ),
    ] = (),
    at_once: _AtOnce = 10,
    common: Common = COMMON,
) -> None:
    """Label tasks in the terminal, by numbers.

    Tasks that cannot be labelled are skipped: `?` it is unclear, `!` it is broken, `-` it is none of the
    options. A note may follow, as in `! the picture is black`. `s` hands a task back without a reason.

    The key is an annotator's: REFINERY_ANNOTATOR_KEY, or REFINERY_API_KEY, or that of a profile. Choices
    are sent when all tasks of a claim were seen, and at the end; until then they can be undone.
    """
    wanted: dict[str, Any] = {"limit": at_once}
    wanted |= {"job_id": job} if job else {}
    wanted |= {"task_types": list(type)} if type else {}
    outcomes: Counter[str] = Counter()
    with common.annotator() as client:
        instructions = _Instructions(client)
        held = [task for task in _held(client, at_once) if _is_wanted(task, job, type)]
        while True:
            tasks = held or _claimed(client, wanted)
            held = []
            if not tasks:
                break
            sitting = _Sitting(tasks, instructions)
            try:
                is_over = sitting.go_through()
            finally:  # after Ctrl-C too: until then nobody else is handed these tasks
                outcomes += sitting.send(client)
            if is_over:
                break
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "no labels")


def _held(client: Client, at_once: int) -> list[dict[str, Any]]:
    """Return the tasks of an earlier claim, whose terminal was killed."""
    found: list[dict[str, Any]] = client.get(path("annotation", "leases"), limit=at_once)["tasks"]
    return found


def _is_wanted(task: Mapping[str, Any], job: str | None, types: Sequence[str]) -> bool:
    of_job = job is None or task["task_id"].startswith(f"tsk_{job.removeprefix('job_')}")
    return of_job and (not types or task["task_type"] in types)


def _claimed(client: Client, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answer = client.post(path("annotation", "claim"), wanted, again=True, headers=key)
    found: list[dict[str, Any]] = answer["tasks"]
    if not found:
        is_over = answer["retry_after_s"] is None
        note(f"There is nothing {'left to label' if is_over else 'to label just now'}.")
    return found


class _Instructions:
    """The instructions of jobs: each version is asked for once, and shown when it first comes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._texts: dict[str, str] = {}

    def show_new(self, task: Mapping[str, Any]) -> None:
        """Print the instructions of a task if they were not shown yet."""
        if "instructions" in task and task["instructions"]["version"] not in self._texts:
            self.show(task)

    def show(self, task: Mapping[str, Any]) -> None:
        """Print the instructions of a task that has some."""
        version = task["instructions"]["version"]
        if version not in self._texts:
            job = self._client.get(path("annotation", "jobs", task["instructions"]["job_id"]))
            self._texts[version] = job["instructions"]
        print()
        print_text(self._texts[version])


class _Sitting:
    """The tasks of one claim, and the options that were chosen for them."""

    def __init__(self, tasks: Sequence[Mapping[str, Any]], instructions: _Instructions) -> None:
        self._tasks = tasks
        self._instructions = instructions
        # What is said of each task that was shown, in their order; None for one that is handed back.
        self._labels: list[_Said | None] = []

    def go_through(self) -> bool:
        """Ask about each task; return True if the annotator has had enough."""
        while True:
            number = len(self._labels)
            task = self._tasks[number] if number < len(self._tasks) else None
            if task:
                self._instructions.show_new(task)
                print(_shown(task, number + 1, len(self._tasks)))
                choices = _choices(task)
                prompt, wrong = _help(task)
            else:
                choices = {}
                chosen = sum(label is not None for label in self._labels)
                prompt = f"Enter sends {chosen} labels and skips, u undoes, q sends and ends"
                wrong = "Type Enter, u or q."
            try:
                typed = input(f"{prompt} > ").strip()
            except EOFError:
                return True
            word = typed.lower()
            if word == "q":
                return True
            if word == "u":
                self._undo()
            elif word == "i" and task and "instructions" in task:
                self._instructions.show(task)
            elif word in choices:
                self._labels.append(choices[word])
            elif choices and (skip := _skip(typed)):
                self._labels.append(skip)
            elif word or choices:
                print(wrong)
            else:
                return False

    def _undo(self) -> None:
        if self._labels:
            self._labels.pop()
        else:
            print("There is nothing to undo: what was sent stays.")

    def send(self, client: Client) -> Counter[str]:
        """Hand in labels and skips, and hand back the other tasks; return the outcomes of the former."""
        ids = [task["task_id"] for task in self._tasks]
        labels = dict(zip(ids, self._labels, strict=False))
        chosen = [{"task_id": id_} | said for id_, said in labels.items() if said is not None]
        back = [id_ for id_ in ids if labels.get(id_) is None]
        results: list[dict[str, str]] = []
        if chosen:
            # A label that is sent twice counts once: the second one is a duplicate.
            sent = client.post(path("annotation", "labels"), {"labels": chosen}, again=True)
            results = sent["results"]
        if back:
            client.post(path("annotation", "release"), {"task_ids": back}, again=True)
        for result in results:
            if result["outcome"] not in _GOOD:
                note(f"{result['task_id']}: {result.get('message') or result['outcome']}")
        return Counter(result["outcome"] for result in results)


def _skip(typed: str) -> dict[str, str] | None:
    """Return what is sent for a skip; None if it is none."""
    word, _, note = typed.partition(" ")
    reason = _SKIPS.get(word)
    if reason is None:
        return None
    note = note.strip()[:SKIP_NOTE_CHARACTERS_MAX]
    return {"skip": reason} | ({"note": note} if note else {})


def _choices(task: Mapping[str, Any]) -> dict[str, _Said | None]:
    """Return what stands for each option, and `s` for none.

    A hotkey that means something else here, such as a digit, stands for no option.
    """
    spec = task["label_spec"]
    numbers = {str(n): {"label": option} for n, option in enumerate(spec["options"], start=1)}
    hotkeys = {
        each["hotkey"].lower(): {"label": each["option"]}
        for each in spec.get("option_details", ())
        if _is_free(each.get("hotkey", "0"))
    }
    return hotkeys | numbers | {"s": None}


def _is_free(hotkey: str) -> bool:
    return not hotkey.isdecimal() and hotkey.lower() not in _COMMANDS


def _help(task: Mapping[str, Any]) -> tuple[str, str]:
    """Return what can be typed at a task, and what is said where it was something else."""
    numbers = f"a number from 1 to {len(task['label_spec']['options'])}"
    if "instructions" in task:
        return f"{_HELP}, i shows the instructions", f"Type {numbers}, ?, !, -, s, u, i or q."
    return _HELP, f"Type {numbers}, ?, !, -, s, u or q."


def _shown(task: Mapping[str, Any], number: int, of: int) -> str:
    spec = task["label_spec"]
    metadata = json.dumps(task["metadata"], ensure_ascii=False) if "metadata" in task else ""
    lines = [
        f"\n{number} of {of}",
        *textwrap.wrap(printable(spec["question"]), _COLUMNS),
        *_data(task),
        *textwrap.wrap(printable(metadata), _COLUMNS, initial_indent="  ", subsequent_indent="  "),
        *_options(spec),
    ]
    return "\n".join(lines)


def _data(task: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of what a task is about."""
    if "text" not in task:
        yield f"  {printable(task['data_url'])}"
        return
    for line in task["text"].splitlines():
        yield from textwrap.wrap(
            printable(line, keep="\t"), _COLUMNS, initial_indent="  ", subsequent_indent="  "
        ) or [""]


def _options(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each option, with its hotkey and its description."""
    details = {each["option"]: each for each in spec.get("option_details", ())}
    for n, option in enumerate(spec["options"], start=1):
        detail = details.get(option, {})
        hotkey = detail.get("hotkey", "0")
        key = f" [{printable(hotkey)}]" if _is_free(hotkey) else ""
        yield f"{n:>4}  {printable(option)}{key}"
        indent = " " * 6
        yield from textwrap.wrap(
            printable(detail.get("description", "")),
            _COLUMNS,
            initial_indent=indent,
            subsequent_indent=indent,
        )
