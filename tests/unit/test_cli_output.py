"""What people see fits their terminal; what programs read is whole and plain."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from api.cli import output
from api.cli.jobs import _print_jobs
from api.cli.watch import list_stage

ERROR = {"code": "content_encoding_not_supported", "message": "It is gzip."}
JOBS: list[dict[str, Any]] = [
    {
        "job_id": "job_0123456789abcdefghijkl",
        "status": status,
        "total_tasks": total,
        "progress_percent": percent,
        "created_at": "2026-11-28T15:29:57.123456Z",
        "manifest": {"url": "s3://a-bucket-with-a-name/in/2026/11/28/a-manifest-with-a-name.jsonl.gz"},
        "delivery": delivery,
        "error": error,
        "waiting_for": waiting,
    }
    for status, total, percent, delivery, error, waiting in (
        ("failed", 0, 0.0, None, ERROR, None),
        ("completed", 0, 100.0, None, None, None),
        ("completed", 123_456_789, 100.0, {"status": "failed", "code": "no_such_bucket"}, None, None),
        ("processing", 1_000_000, 24.3, None, None, {"what": "annotators"}),
    )
]  # fmt: skip


class Screen:
    """Standard output, as a terminal of 80 columns or as a pipe."""

    def __init__(self, patch: pytest.MonkeyPatch, *, is_terminal: bool) -> None:
        self._written = io.StringIO()
        patch.setattr(
            output,
            "Console",
            lambda **_: Console(
                file=self._written,
                width=80,
                force_terminal=is_terminal,
                color_system="standard" if is_terminal else "auto",
            ),
        )

    @property
    def lines(self) -> list[str]:
        found = self._written.getvalue().splitlines()
        return [line.replace("\x1b[2m", "").replace("\x1b[0m", "") for line in found]

    @property
    def raw(self) -> str:
        return self._written.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch, is_terminal=True)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch, is_terminal=False)


def test_a_list_of_jobs_says_why_one_failed() -> None:
    assert [list_stage(job) for job in JOBS] == [
        "failed: content_encoding_not_supported",
        "completed",
        "completed, not delivered: no_such_bucket",
        "processing, waits for annotators",
    ]


def test_a_list_of_jobs_fits_a_terminal(terminal: Screen) -> None:
    _print_jobs(JOBS)
    assert max(map(len, terminal.lines)) <= 80
    assert sum("job_0123456789abcdefghijkl" in line for line in terminal.lines) == len(JOBS)


def test_a_pipe_has_a_line_for_each_job_whole_and_without_colours(pipe: Screen) -> None:
    _print_jobs(JOBS)
    head, *rows = pipe.lines
    assert len(rows) == len(JOBS)
    assert "\x1b" not in pipe.raw
    starts = [head.index(name) for name in ("job", "status", "tasks", "%", "created", "manifest")]
    for row, job in zip(rows, JOBS, strict=True):
        cells = [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        assert cells[0] == job["job_id"]
        assert cells[1] == list_stage(job)
        assert cells[3] == ("" if job["total_tasks"] == 0 else f"{job['progress_percent']:g}")
        assert cells[5] == job["manifest"]["url"]


COLUMNS = ["key_id", "kind", "owner_id", "name", "created_at", "revoked_at"]
KEYS = [
    ["key_2376227c35358e61313e", "annotator", "ann_4qn25e5eh75bndvn332c7a", "first", "2026-11-28 15:29:21", None],
    ["key_23a30c3b8c2f1b8b4064", "customer", "cust_0fegfzepwb9be30kercj5v", "[b]:dog:", "2026-11-28 15:29:21", None],
]  # fmt: skip


def test_rows_that_are_too_wide_stand_one_below_the_other(terminal: Screen) -> None:
    output.print_rows(COLUMNS, KEYS)
    assert max(map(len, terminal.lines)) <= 80
    assert [line.split() for line in terminal.lines][6:10] == [
        ["key_id", KEYS[1][0]],
        ["kind", "customer"],
        ["owner_id", KEYS[1][2]],
        ["name", "[b]:dog:"],
    ]


def test_rows_that_fit_are_a_table_everywhere(terminal: Screen) -> None:
    output.print_rows(COLUMNS[:2], [row[:2] for row in KEYS])
    assert [line.split() for line in terminal.lines] == [COLUMNS[:2], *(row[:2] for row in KEYS)]


def test_a_pipe_has_rows_whole_however_wide(pipe: Screen) -> None:
    output.print_rows(COLUMNS, [["x" * 5000, *KEYS[0][1:]], KEYS[1]])
    assert [len(line.split()) for line in pipe.lines] == [6, 6, 6]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"a":1e400,"b":1.10000000000000000000000000001,"c":12345678901234567890123}',
        '{"a":"é😀\\u2028 \u2028","b":{"z":[],"a":{}}}'.encode(),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_an_answer_is_printed_as_it_was_written(
    answer: bytes, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    output.print_answer(answer)
    sys.stdout.flush()
    text = written.getvalue().decode(encoding)

    def read(document: str) -> Any:
        return json.loads(document, parse_float=str, parse_int=str)

    assert read(text) == read(answer.decode())
    if encoding == "utf-8":
        assert "".join(text.split()) == "".join(answer.decode().split())


@pytest.mark.parametrize(
    "value, text",
    [
        (None, ""),
        (1234567, "1,234,567"),
        (True, "true"),
        (24.3, "24.3"),
        ("[/red]:dog:\\[", "[/red]:dog:\\["),
        ("a\x1b]0;x\x07\nb\u202e", r"a\x1b]0;x\x07\nb\u202e"),
        (["é"], '["é"]'),
    ],
)
def test_a_value_is_shown_as_it_is_and_never_obeyed(value: Any, text: str) -> None:
    assert output.cell(value).plain == text


HOSTILE = "a\x1b]0;t\x07 \u202eb\x9b2J [bold]c[/]"


@pytest.mark.parametrize(
    "show",
    [
        lambda: output.print_fields({HOSTILE: 1}),
        lambda: output.print_fields({"field": HOSTILE}),
        lambda: output.print_table((HOSTILE, HOSTILE), [(1, 2)]),
        lambda: output.print_table(("id", "text"), [(HOSTILE, HOSTILE)]),
        lambda: output.print_rows((HOSTILE, "b"), [(1, 2)]),
        lambda: output.print_rows((HOSTILE * 20, "b"), [(HOSTILE, "c" * 90)]),
    ],
    ids=["name", "value", "headings", "cells", "rows", "rows one below the other"],
)
def test_a_text_of_others_is_never_obeyed_wherever_it_stands(
    pipe: Screen, show: Callable[[], None]
) -> None:
    show()
    assert all(c.isprintable() or c == "\n" for c in pipe.raw)
    assert r"a\x1b]0;t\x07 \u202eb\x9b2J [bold]c[/]" in pipe.raw
