"""`refinery annotate`: label tasks in a terminal, one after the other."""

import json
import textwrap
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    "? unclear, ! broken, - none of these skip it, and a note may follow;\n"
    "s hands it back, u undoes, q ends"
)
COMMANDS = frozenset("suqi") | _SKIPS.keys()
_GOOD = ("accepted", "settled", "skipped")

Said = dict[str, Any]
"""What is said of a task, as the API takes it."""

AtOnce = Annotated[
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
    at_once: AtOnce = 10,
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
        instructions = Instructions(client)
        held = [task for task in _held(client, at_once) if is_wanted(task, job, type)]
        while True:
            tasks = held or _claimed(client, wanted)
            held = []
            if not tasks:
                break
            sitting = Sitting(tasks, instructions)
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


def is_wanted(task: Mapping[str, Any], job: str | None, types: Sequence[str]) -> bool:
    """Return whether a task is of this job, and of one of these types; None and none stand for all."""
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


class Instructions:
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


class Sitting:
    """The tasks of one claim, and the options that were chosen for them."""

    what = "labels and skips"
    good: Collection[str] = _GOOD

    def __init__(self, tasks: Sequence[Mapping[str, Any]], instructions: Instructions) -> None:
        self._tasks = tasks
        self._instructions = instructions
        # What is said of each task that was shown, in their order; None for one that is handed back.
        self._labels: list[Said | None] = []

    def go_through(self) -> bool:
        """Ask about each task; return True if the annotator has had enough."""
        while True:
            number = len(self._labels)
            task = self._tasks[number] if number < len(self._tasks) else None
            if task:
                self._instructions.show_new(task)
                print(self._describe(task, number + 1))
                choices = self._choices(task)
                prompt, wrong = self._help(task)
            else:
                choices = {}
                chosen = sum(label is not None for label in self._labels)
                prompt = f"Enter sends {chosen} {self.what}, u undoes, q sends and ends"
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
            elif choices and (said := self._parse(typed)):
                self._labels.append(said)
            elif word or choices:
                print(wrong)
            else:
                return False

    def _describe(self, task: Mapping[str, Any], number: int) -> str:
        return describe(task, number, len(self._tasks))

    def _choices(self, task: Mapping[str, Any]) -> dict[str, Said | None]:
        return list_choices(task)

    def _help(self, task: Mapping[str, Any]) -> tuple[str, str]:
        return _help(task)

    def _parse(self, typed: str) -> Said | None:
        return _skip(typed)

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
            results = self._send_chosen(client, chosen)
        if back:
            self._hand_back(client, back)
        for result in results:
            if result["outcome"] not in self.good:
                note(f"{result['task_id']}: {result.get('message') or result['outcome']}")
        return Counter(result["outcome"] for result in results)

    def _hand_back(self, client: Client, task_ids: Sequence[str]) -> None:
        client.post(path("annotation", "release"), {"task_ids": task_ids}, again=True)

    def _send_chosen(self, client: Client, chosen: Sequence[Said]) -> list[dict[str, str]]:
        # A label that is sent twice counts once: the second one is a duplicate.
        sent = client.post(path("annotation", "labels"), {"labels": chosen}, again=True)
        results: list[dict[str, str]] = sent["results"]
        return results


def _skip(typed: str) -> Said | None:
    """Return what is sent for a skip; None if it is none."""
    word, _, note = typed.partition(" ")
    reason = _SKIPS.get(word)
    if reason is None:
        return None
    note = note.strip()[:SKIP_NOTE_CHARACTERS_MAX]
    return {"skip": reason} | ({"note": note} if note else {})


def list_choices(task: Mapping[str, Any]) -> dict[str, Said | None]:
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
    return not hotkey.isdecimal() and hotkey.lower() not in COMMANDS


def _help(task: Mapping[str, Any]) -> tuple[str, str]:
    """Return what can be typed at a task, and what is said where it was something else."""
    what = f"a number from 1 to {len(task['label_spec']['options'])}"
    help_ = f"a number chooses; {_HELP}"
    if any(not word.isdecimal() and word != "s" for word in list_choices(task)):
        what += ", a key in []"
        help_ = f"a number or a key in [] chooses; {_HELP}"
    if "instructions" in task:
        return f"{help_}, i shows the instructions", f"Type {what}, ?, !, -, s, u, i or q."
    return help_, f"Type {what}, ?, !, -, s, u or q."


def describe(task: Mapping[str, Any], number: int, of: int) -> str:
    """Return what is shown of a task: its question, its data and its options."""
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
        yield f"  {printable(task.get('signed_url') or task['data_url'])}"
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
