"""`refinery verify --recompute`: edits that no result tells of, and lines that are written in other ways."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blocks.domain.model import Compression, ResultFormat
from flows.writing.folder import Layout
from tests.support.made_delivery import forge, forge_text, make_delivery, read_part
from tests.support.verifying import put, run

pytestmark = pytest.mark.integration
JSON_LINES = [
    Layout(ResultFormat.JSONL, Compression.NONE),
    Layout(ResultFormat.JSONL, Compression.GZIP),
]
PARQUET = Layout(ResultFormat.PARQUET, Compression.ZSTD)
FIRST, PART = "part-00000", "part-00001"
Line = dict[str, Any]


def replace(old: bytes, new: bytes) -> Callable[[list[bytes], list[bytes]], None]:
    """Change the seventh line of the second part."""

    def change(first: list[bytes], second: list[bytes]) -> None:
        assert old in second[6]
        second[6] = second[6].replace(old, new, 1)

    return change


def swap(first: list[bytes], second: list[bytes]) -> None:
    second[5], second[6] = second[6], second[5]


def swap_between_parts(first: list[bytes], second: list[bytes]) -> None:
    first[-1], second[6] = second[6], first[-1]


def repeat_the_line_before(first: list[bytes], second: list[bytes]) -> None:
    second[6] = second[5]


def repeat_a_line_of_the_other_part(first: list[bytes], second: list[bytes]) -> None:
    second[6] = first[3]


def take_the_task_of_another(first: list[bytes], second: list[bytes]) -> None:
    second[6] = second[6].replace(b"tsk_126", b"tsk_13")


EDITS: dict[str, tuple[Callable[[list[bytes], list[bytes]], None], str]] = {
    "a task of another job": (replace(b"tsk_1", b"tsk_2"), "task_id"),
    "no number": (replace(b"tsk_126", b"tsk_126x"), "task_id"),
    "a number with a zero": (replace(b"tsk_126", b"tsk_1026"), "task_id"),
    "a negative number": (replace(b"tsk_126", b"tsk_1-26"), "task_id"),
    "too great a number": (replace(b"tsk_126", b"tsk_1%d" % 2**60), "task_id"),
    "the task of another line": (take_the_task_of_another, "task_id"),
    "two lines swapped": (swap, "line"),
    "two lines swapped between parts": (swap_between_parts, "line"),
    "a line twice": (repeat_the_line_before, "line"),
    "a line of another part twice": (repeat_a_line_of_the_other_part, "line"),
    "a vote twice": (replace(b'"votes":{', b'"votes":{"cat":99,'), "votes"),
    "a vote twice, spaced": (replace(b'"votes":{', b'"votes" : {"cat" : 0 , '), "votes"),
    "votes twice": (replace(b'"votes":', b'"votes":{},"votes":'), "votes"),
    "a result twice": (
        replace(b'"consensus_label":', b'"consensus_label":"fox","consensus_label":'),
        "consensus_label",
    ),
    "a result twice, escaped": (
        replace(b'"consensus_label":', b'"consensus_lab\\u0065l":"fox","consensus_label":'),
        "consensus_label",
    ),
    "a confidence twice": (
        replace(b'"confidence":', b'"confidence":0.1,"confidence":'),
        "confidence",
    ),
    "an equal confidence twice": (replace(b'"line":27', b'"line":27,"line":27'), "line"),
    "a label's option twice": (replace(b'"label":', b'"label":"fox","label":'), "labels"),
    "an unknown field twice": (replace(b'"line":', b'"x":1,"x":1,"line":'), "x"),
    "a result of nobody": (
        replace(b'"settled_by":"consensus"', b'"settled_by":"chance"'),
        "settled_by",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("layout", JSON_LINES, ids=lambda each: each.compression)
def test_an_edit_that_no_result_tells_of_is_named(
    tmp_path: Path, layout: Layout, edit: str
) -> None:
    objects = make_delivery("weighted", layout)
    change, field = EDITS[edit]
    names = [f"{part}.{layout.extension}" for part in (FIRST, PART)]
    first, second = (
        [msgspec.json.encode(each) for each in read_part(layout, objects[name])] for name in names
    )
    change(first, second)
    for name, lines in zip(names, (first, second), strict=True):
        forge_text(objects, layout, name, lines)
    put(tmp_path, objects)
    assert run(str(tmp_path))[0] == 0  # its checksums are right
    code, said = run(str(tmp_path), "--recompute", "--json")
    found = [
        (each["object"], each["message"].partition(":")[0]) for each in json.loads(said)["problems"]
    ]
    assert code == 1
    assert (names[1], f"Line 7, {field}") in found
    others = {(names[1], "Line 1, line")} if edit == "two lines swapped between parts" else set()
    assert {
        each for each in found if "Line 7" not in each[1] and each[0] != "manifest.json"
    } == others


def with_task(lines: list[Line], other: Line) -> None:
    lines[6]["task_id"] = other["task_id"]


ROW_EDITS: dict[str, tuple[Callable[[list[Line]], None], str]] = {
    "the task of another row": (lambda rows: with_task(rows, rows[2]), "task_id"),
    "a task of another job": (lambda rows: with_task(rows, {"task_id": "tsk_22"}), "task_id"),
    "a row twice": (lambda rows: rows[6].update(copy.deepcopy(rows[5])), "line"),
    "two rows swapped": (lambda rows: rows.insert(5, rows.pop(6)), "line"),
    "a vote twice": (
        lambda rows: rows[6].update(votes=[("cat", 0), *rows[6]["votes"].items()]), "votes"
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", ROW_EDITS)
def test_such_an_edit_of_a_row_is_named(tmp_path: Path, edit: str) -> None:
    layout, name = PARQUET, f"{PART}.parquet"
    objects = make_delivery("majority", layout)
    rows = read_part(layout, objects[name])
    change, field = ROW_EDITS[edit]
    change(rows)
    forge(objects, layout, name, rows)
    put(tmp_path, objects)
    code, said = run(str(tmp_path), "--recompute", "--json")
    messages = [each["message"] for each in json.loads(said)["problems"] if each["object"] == name]
    assert (code, messages[0].partition(":")[0]) == (1, f"Line 7, {field}")


OTHER_WAYS: dict[str, Callable[[bytes], bytes]] = {
    "spaces": lambda line: json.dumps(json.loads(line), indent=1).replace("\n", " ").encode(),
    "escapes": lambda line: line.replace(b"cat", b"\\u0063at").replace(b"votes", b"v\\u006ftes"),
    "other fields": lambda line: b'{"new":{"a":1},' + line[1:],
    "another order": lambda line: json.dumps(dict(reversed(json.loads(line).items()))).encode(),
    "deep metadata": lambda line: line.replace(b"null", b"[" * 50_000 + b"]" * 50_000, 1),
    "repeated keys in metadata": lambda line: line.replace(b"null", b'{"a":1,"a":2}', 1),
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_a_line_may_be_written_in_other_ways(tmp_path: Path, way: str) -> None:
    objects = make_delivery("weighted", JSON_LINES[0])
    for part in (FIRST, PART):
        lines = [OTHER_WAYS[way](line) for line in objects[f"{part}.jsonl"].splitlines()]
        forge_text(objects, JSON_LINES[0], f"{part}.jsonl", lines)
    put(tmp_path, objects)
    code, said = run(str(tmp_path), "--recompute", "--json")
    assert (code, json.loads(said)["problems"]) == (0, [])
