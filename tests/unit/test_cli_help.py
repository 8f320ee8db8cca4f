"""Each option of each command says what it is for, and what it takes."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cyclopts import App, Argument, CycloptsError

from blocks.domain.model import InferenceMethod, JobStatus, WaitsFor
from blocks.store.audit import Action
from blocks.store.loads import WorkStatus
from blocks.store.webhooks import Event
from deployments.cli import build


def walk(app: App, *path: str) -> Iterator[tuple[str, App]]:
    """Yield every command that does something, by its whole name."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            if command.default_command:
                yield " ".join((*path, name)), command
            else:
                yield from walk(command, *path, name)


COMMANDS = dict(walk(build()))
OPTIONS = {
    (name, option.name): option
    for name, command in COMMANDS.items()
    for option in command.assemble_argument_collection(parse_docstring=True)
    if option.name != "*"  # a group, whose options come after it
}
# What else a command asks for.
NEEDED = {
    "jobs deliver": ["job_1"],
    "jobs disagreements": ["job_1"],
    "jobs errors": ["job_1"],
    "jobs objects": ["job_1"],
    "jobs quality": ["job_1"],
    "ops limits": ["cust_1"],
    "ops priority": ["--to=1"],
    "streams show": ["cust_1", "daily"],
    "tasks submit": ["https://a.example/", "--question", "?", "--option", "a"],
    "webhooks add": ["https://a.example/"],
    "webhooks deliveries": ["whk_1"],
}
# Numbers and closed lists, of which the API tells the command line.
RANGES = [
    ("jobs submit", "--priority", ["-1", "10"], "From 0 to 9"),
    ("jobs submit", "--threshold", ["0", "11"], "From 1 to 10"),
    ("jobs submit", "--failure-threshold-percent", ["-0.1", "100.1"], "From 0 to 100"),
    ("jobs submit", "--skips-max", ["0", "11"], "From 1 to 10"),
    ("tasks submit", "--threshold", ["0", "11"], "From 1 to 10"),
    ("tasks submit", "--skips-max", ["0", "11"], "From 1 to 10"),
    ("jobs submit", "--target-confidence", ["0.5", "1.0"], "From 0.51 to 0.9999"),
    ("jobs submit", "--labels-min", ["0", "11"], "From 1 to 10"),
    ("jobs submit", "--labels-max", ["0", "21"], "From 1 to 20"),
    ("tasks submit", "--target-confidence", ["0.5", "1.0"], "From 0.51 to 0.9999"),
    ("tasks submit", "--labels-min", ["0", "11"], "From 1 to 10"),
    ("tasks submit", "--labels-max", ["0", "21"], "From 1 to 20"),
    ("jobs submit", "--gold-share", ["0.0", "0.6"], "From 0.01 to 0.5"),
    ("jobs submit", "--min-accuracy", ["0.0", "1.0"], "From 0.01 to 0.99"),
    ("jobs submit", "--min-gold-seen", ["0", "1001"], "From 1 to 1000"),
    ("jobs submit", "--review-share", ["0.0", "1.1"], "From 0.0001 to 1"),
    ("jobs submit", "--review-confidence-below", ["0.0", "1.1"], "From 0.0001 to 1"),
    ("jobs submit", "--review-deadline", ["0.0", "8760.1"], "From 0.1 to 8760"),
    ("annotate", "--at-once", ["0", "101"], "from 1 to 100"),
    ("review", "--at-once", ["0", "101"], "from 1 to 100"),
    ("jobs list", "--limit", ["0"], "from 1 on"),
    ("jobs disagreements", "--limit", ["0"], "from 1 on"),
    ("jobs objects", "--limit", ["0"], "from 1 on"),
    ("me labels", "--limit", ["0"], "from 1 on"),
    ("me renew", "--lease-seconds", ["0", "86401"], "from 1 to 86400"),
    ("webhooks deliveries", "--limit", ["0", "101"], "from 1 to 100"),
    ("streams list", "--limit", ["0", "1000001"], "from 1 to 1,000,000"),
    ("streams show", "--limit", ["0"], "from 1 on"),
    ("streams failed", "--limit", ["-1"], "from 1 on"),
    ("worker", "--limit", ["0"], "from 1 on"),
    ("ops priority", "--to", ["-1", "10"], "from 0 to 9"),
    ("ops limits", "--runs", ["0", "1001"], "from 1 to 1000"),
    *(
        ("ops limits", f"--{name}", ["-1"], "from 0 on")
        for name in (
            "jobs",
            "open-tasks",
            "stored-bytes",
            "webhooks",
            "keys",
            "requests-per-minute",
            "body-bytes-per-minute",
        )
    ),
    ("ops audit", "--limit", ["0", "1000001"], "from 1 to 1,000,000"),
    *(
        (f"ops {command}", "--limit", ["0", "1000001"], "from 1 to 1,000,000")
        for command in ("jobs", "customers", "streams", "runs")
    ),
]
# What is tried out takes what is submitted.
RANGES += [
    ("jobs preview", option, wrong, words)
    for command, option, wrong, words in RANGES
    if command == "jobs submit"
]
CHOICES: list[tuple[str, str, set[str]]] = [
    ("jobs list", "--status", {*JobStatus}),
    ("jobs submit", "--task-type", {"sentiment"}),
    ("jobs submit", "--consensus", {"majority", "weighted"}),
    ("tasks submit", "--consensus", {"majority", "weighted"}),
    ("jobs submit", "--format", {"jsonl", "parquet"}),
    ("jobs submit", "--compression", {"none", "gzip", "zstd"}),
    ("jobs submit", "--acl", {"bucket-owner-read"}),
    ("jobs deliver", "--format", {"jsonl", "parquet"}),
    ("jobs deliver", "--compression", {"none", "gzip", "zstd"}),
    ("jobs errors", "--format", {"jsonl", "manifest"}),
    ("jobs quality", "--method", {*InferenceMethod}),
    ("jobs disagreements", "--status", {"in_progress", "settled", "failed"}),
    ("tasks submit", "--type", {"moderation"}),
    ("annotate", "--type", {"moderation"}),
    ("webhooks add", "--event", {*Event}),
    ("ops audit", "--action", {*Action}),
    ("ops runs", "--status", {*WorkStatus}),
    *(
        (f"ops {command}", option, choices)
        for command in ("jobs", "cancel", "retry", "deliver", "pause", "resume", "priority")
        for option, choices in (("--status", {*JobStatus}), ("--waiting-for", {*WaitsFor}))
    ),
]


def refusal(capsys: pytest.CaptureFixture[str], command: str, *options: str) -> str:
    """What is said of options that are refused, on one line."""
    given = {option.partition("=")[0] for option in options}
    needed = [each for each in NEEDED.get(command, []) if each.partition("=")[0] not in given]
    with pytest.raises(CycloptsError):
        build()([*command.split(), *needed, *options], exit_on_error=False)
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def is_number(option: Argument) -> bool:
    types: Any = getattr(option.hint, "__args__", (option.hint,))
    return bool({int, float} & set(types))


def test_every_command_and_option_says_what_it_is_for() -> None:
    assert len(COMMANDS) > 40
    assert [name for name, command in COMMANDS.items() if not command.help] == []
    assert [name for name, option in OPTIONS.items() if not option.parameter.help] == []


def test_every_number_has_a_range() -> None:
    numbers = {name: option for name, option in OPTIONS.items() if is_number(option)}
    assert numbers.keys() == {(command, option) for command, option, _, _ in RANGES}
    assert [name for name, option in numbers.items() if not option.parameter.validator] == []


@pytest.mark.parametrize("command, option, wrong, words", RANGES)
def test_a_range_is_said_and_kept(
    command: str, option: str, wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in (OPTIONS[command, option].parameter.help or "")
    for value in wrong:
        assert f'Invalid value "{value}"' in refusal(capsys, command, f"{option}={value}")


@pytest.mark.parametrize("command, option, some", CHOICES)
def test_a_wrong_choice_is_answered_with_the_right_ones(
    command: str, option: str, some: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    choices = OPTIONS[command, option].get_choices() or ()
    assert some <= set(choices)
    said = refusal(capsys, command, option, "rubbish")
    assert [choice for choice in choices if f'"{choice}"' not in said] == []


def test_help_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            build()([*name.split(), "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert lines
        assert max(map(len, lines)) <= 80, name


def test_a_command_begins_without_what_reads_pages_and_buckets() -> None:
    program = (
        "import sys; from deployments import cli; cli.build()\n"
        "print({'polars', 'pyarrow', 's3fs', 'prefect', 'litestar'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
