"""`refinery verify --recompute`: what follows from single labels, and every way in which it does not."""

import copy
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.delivered_lines import ResultLine
from api.cli.line_check import LineCheck
from blocks.delivery_manifest import DeliveryManifest
from blocks.domain.consensus import ALL, SKILL_MAX, weight
from blocks.domain.model import Compression, ResultFormat
from blocks.lines.result_lines import to_json_lines
from flows.writing.folder import Layout
from tests.support.made_delivery import (
    OPTIONS,
    RULES,
    forge,
    make_delivery,
    make_results,
    mend,
    read_part,
)
from tests.support.verifying import put, run

pytestmark = pytest.mark.integration
LAYOUTS = [
    Layout(ResultFormat.JSONL, Compression.NONE),
    Layout(ResultFormat.JSONL, Compression.GZIP),
    Layout(ResultFormat.JSONL, Compression.ZSTD),
    Layout(ResultFormat.PARQUET, Compression.NONE),
    Layout(ResultFormat.PARQUET, Compression.GZIP),
    Layout(ResultFormat.PARQUET, Compression.ZSTD),
]
PART = "part-00001"
FIRST = "part-00000"
MANIFEST = msgspec.json.decode(
    make_delivery("majority", LAYOUTS[0])["manifest.json"], type=DeliveryManifest
)
Line = dict[str, Any]


def flip_label(line: Line, rng: random.Random) -> None:
    each = rng.choice(line["labels"])
    each["label"] = rng.choice([option for option in OPTIONS if option != each["label"]])


def add_label(line: Line, rng: random.Random) -> None:
    label = copy.deepcopy(rng.choice(line["labels"])) | {"annotator": "ann_other"}
    line["labels"].insert(rng.randrange(9), label)


def repeat_label(line: Line, rng: random.Random) -> None:
    line["labels"].append(copy.deepcopy(rng.choice(line["labels"])))


def drop_label(line: Line, rng: random.Random) -> None:
    line["labels"].pop(rng.randrange(len(line["labels"])))


def count_votes_wrong(line: Line, rng: random.Random) -> None:
    line["votes"][rng.choice(OPTIONS)] += rng.choice([-1, 1])


def rename_option(line: Line, rng: random.Random) -> None:
    line["votes"] = {f"{option}!": n for option, n in line["votes"].items()}


def change_confidence(line: Line, rng: random.Random) -> None:
    line["confidence"] += rng.choice([-1e-4, 1e-4, -0.3, 1e-9])


def change_result(line: Line, rng: random.Random) -> None:
    others = [option for option in [*OPTIONS, "else"] if option != line["consensus_label"]]
    line["consensus_label"] = rng.choice(others)


def count_wrong(name: str) -> Callable[[Line, random.Random], None]:
    def change(line: Line, rng: random.Random) -> None:
        line[name] += rng.choice([-1, 1])

    return change


CHANGES: dict[str, Callable[[Line, random.Random], None]] = {
    "another label": flip_label,
    "a label more": add_label,
    "a label twice": repeat_label,
    "a label less": drop_label,
    "votes": count_votes_wrong,
    "options": rename_option,
    "confidence": change_confidence,
    "consensus_label": change_result,
    "worker_count": count_wrong("worker_count"),
    "agreement_count": count_wrong("agreement_count"),
}


def lines_of(rule: str, seed: int, tasks: int = 10) -> list[Line]:
    return [
        json.loads(each) for each in to_json_lines(make_results(rule, tasks, seed)).splitlines()
    ]


def faults(rule: str, line: Line) -> list[tuple[str, str]]:
    check = LineCheck(MANIFEST, RULES[rule])
    found = next(check(msgspec.json.decode(json.dumps(line), type=ResultLine)), None)
    return [found] if found else []


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 2**32))
def test_what_was_settled_by_the_rule_agrees(rule: str, seed: int) -> None:
    assert [faults(rule, line) for line in lines_of(rule, seed)] == [[]] * 10


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 2**32))
def test_any_one_change_of_a_line_is_found(rule: str, change: str, seed: int) -> None:
    rng = random.Random(seed)
    line = rng.choice([line for line in lines_of(rule, seed) if line["labels"]])
    before = copy.deepcopy(line)
    CHANGES[change](line, rng)
    assert line != before
    is_free = line.get("gold") or line["settled_by"] == "review"
    if is_free and change == "consensus_label" and line["consensus_label"] in OPTIONS:
        # Which answer is right, labels cannot tell; its votes are others, unless none.
        votes = before["votes"]
        is_alike = votes[line["consensus_label"]] == votes[before["consensus_label"]]
        assert faults(rule, line) or is_alike
    else:
        assert faults(rule, line)


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 2**32))
def test_of_a_review_the_label_is_free_and_what_follows_from_it_is_not(
    rule: str, seed: int
) -> None:
    rng = random.Random(seed)
    line = next(line for line in lines_of(rule, seed, 30) if line["settled_by"] == "review")
    assert not faults(rule, line)
    for field in ("confidence", "agreement_count"):
        changed = line | {field: line[field] + rng.choice([-1, 1])}
        assert [name for name, _ in faults(rule, changed)] == [field]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: f"{each.format} {each.compression}")
@pytest.mark.parametrize("rule", RULES)
def test_a_delivery_is_computed_again_whatever_its_layout(
    tmp_path: Path, rule: str, layout: Layout
) -> None:
    objects = make_delivery(rule, layout)
    put(tmp_path, objects)
    code, said = run(str(tmp_path), "--recompute", "--json")
    report = json.loads(said)
    assert (code, report["problems"], report["recomputed"]) == (0, [], 40)
    name = f"{PART}.{layout.extension}"
    for change, make in CHANGES.items():
        rng = random.Random(zlib.crc32(change.encode()))
        forged, lines = dict(objects), read_part(layout, objects[name])
        make(lines[6], rng)
        forge(forged, layout, name, lines)
        put(tmp_path, forged)
        assert run(str(tmp_path))[0] == 0  # its checksums are right
        code, said = run(str(tmp_path), "--recompute", "--json")
        problem = json.loads(said)["problems"][0]
        assert (code, problem["object"]) == (1, name), change
        assert problem["message"].startswith("Line 7, "), change


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: f"{each.format} {each.compression}")
@pytest.mark.parametrize("change", CHANGES)
def test_a_plain_edit_is_named_beside_its_checksum(
    tmp_path: Path, change: str, layout: Layout
) -> None:
    """The manifest.json is as it was: the object differs, and its line is named all the same."""
    objects = make_delivery("weighted", layout)
    name, manifest = f"{PART}.{layout.extension}", objects["manifest.json"]
    lines = read_part(layout, objects[name])
    CHANGES[change](lines[6], random.Random(zlib.crc32(change.encode())))
    forge(objects, layout, name, lines)
    put(tmp_path, objects | {"manifest.json": manifest})
    code, said = run(str(tmp_path), "--recompute", "--json")
    checksum, line, *_ = json.loads(said)["problems"]
    assert (code, checksum["object"], line["object"]) == (1, name, name)
    assert "bytes instead" in checksum["message"] or "SHA-256" in checksum["message"]
    assert line["message"].startswith("Line 7, ")


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def put_rubbish(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randrange(1, 200)) + data[at:]


@pytest.mark.parametrize("damage", [cut, flip_bits, put_rubbish])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: f"{each.format} {each.compression}")
@pytest.mark.parametrize("checksums", ["kept", "mended"])
def test_a_damaged_object_is_read_as_far_as_it_can_be(
    tmp_path: Path, layout: Layout, damage: Callable[[bytes, random.Random], bytes], checksums: str
) -> None:
    whole = make_delivery("majority", layout)
    name = f"{PART}.{layout.extension}"
    rng = random.Random(f"{damage.__name__} {layout.extension} {checksums}")
    for _ in range(20):
        objects = whole | {name: damage(whole[name], rng)}
        if checksums == "mended":
            mend(objects, name)
        put(tmp_path, objects)
        code, said = run(str(tmp_path), "--recompute", "--json")
        report = json.loads(said)
        messages = [each["message"] for each in report["problems"] if each["object"] == name]
        assert sum("cannot be read" in each for each in messages) <= 1
        assert report["recomputed"] >= 20  # the lines of the other part
        if checksums == "kept":
            assert (code, report["problems"][0]["object"]) == (1, name)


@pytest.mark.parametrize(
    "layout", LAYOUTS[1:4], ids=lambda each: f"{each.format} {each.compression}"
)
def test_lines_before_the_damage_are_named(tmp_path: Path, layout: Layout) -> None:
    objects = make_delivery("weighted", layout, tasks=2000)
    name = f"{PART}.{layout.extension}"
    lines = read_part(layout, objects[name])
    lines[2]["worker_count"] += 1
    forge(objects, layout, name, lines)
    objects[name] = objects[name][:-6]
    put(tmp_path, objects)
    code, said = run(str(tmp_path), "--recompute", "--json")
    messages = [each["message"] for each in json.loads(said)["problems"] if each["object"] == name]
    assert (code, "bytes instead of" in messages[0]) == (1, True)
    assert "cannot be read" in messages[-1]
    if layout.format is ResultFormat.JSONL:  # of a Parquet file the end says where everything is
        assert messages[1].startswith("Line 3, worker_count: ")


@pytest.mark.parametrize(
    "has_gold, has_review, patch, field",
    [
        (True, True, {}, None),
        (True, True, {"gold": True, "confidence": 1}, None),
        (True, True, {"settled_by": "review"}, None),  # with the label on which it settled anyway
        (True, True, {"gold": True, "confidence": 1, "settled_by": "review"}, "settled_by"),
        (True, True, {"settled_by": None}, "settled_by"),
        (False, True, {"gold": True, "confidence": 1}, "gold"),
        (True, False, {"settled_by": "review"}, "settled_by"),
        (True, False, {"settled_by": "consensus"}, "settled_by"),
        (True, False, {"settled_by": None}, None),
        (False, False, {"settled_by": None}, None),
    ],
)
def test_gold_and_reviews_are_of_jobs_that_have_them(
    patch: Line, field: str | None, *, has_gold: bool, has_review: bool
) -> None:
    job = msgspec.structs.replace(MANIFEST, has_gold=has_gold, has_review=has_review)
    line = next(each for each in lines_of("majority", 1) if is_common(each)) | patch
    found = next(
        LineCheck(job, RULES["majority"])(msgspec.json.decode(json.dumps(line), type=ResultLine)),
        None,
    )
    assert (found and found[0]) == field


def is_common(line: Line) -> bool:
    return not line.get("gold") and line["settled_by"] == "consensus"


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 2**32))
def test_lines_are_written_as_a_decoder_writes_them(rule: str, seed: int) -> None:
    """Else each of them would be read slowly."""
    for line in to_json_lines(make_results(rule, 10, seed)).splitlines():
        assert msgspec.json.encode(msgspec.json.decode(line, type=ResultLine)) == line


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[5]], ids=lambda each: each.format)
def test_any_other_skill_is_found(tmp_path: Path, layout: Layout) -> None:
    """Some change no confidence, and those below chance no weight: the sum tells of them."""
    objects = make_delivery("weighted", layout)
    name, named = f"{PART}.{layout.extension}", 0
    for nth in range(20):
        forged, lines = dict(objects), read_part(layout, objects[name])
        if not lines[nth]["labels"]:
            continue
        label = lines[nth]["labels"][-1]
        skill = round(label["skill"] * ALL)
        label["skill"] = (skill + 1 if skill < SKILL_MAX else 1) / ALL
        forge(forged, layout, name, lines)
        put(tmp_path, forged)
        code, said = run(str(tmp_path), "--recompute", "--json")
        problems = json.loads(said)["problems"]
        assert (code, problems[-1]["object"]) == (1, "manifest.json")
        assert "in sum" in problems[-1]["message"]
        named += problems[0]["object"] == name
    assert named or weight(1, len(OPTIONS)) == 0


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    objects = make_delivery("weighted", LAYOUTS[0])
    lines = read_part(LAYOUTS[0], objects[f"{PART}.jsonl"])
    del lines[2]["labels"]
    forge(objects, LAYOUTS[0], f"{PART}.jsonl", lines)
    put(tmp_path, objects)
    code, said = run(str(tmp_path), "--recompute")
    assert (code, f"{PART}.jsonl: Line 3, it: This is not a line of results" in said) == (1, True)


def test_of_many_wrong_lines_some_are_named(tmp_path: Path) -> None:
    objects = make_delivery("weighted", LAYOUTS[0], tasks=400)
    lines = read_part(LAYOUTS[0], objects[f"{PART}.jsonl"])
    for line in lines:
        line["confidence"] = 0.5
    forge(objects, LAYOUTS[0], f"{PART}.jsonl", lines)
    put(tmp_path, objects)
    _, said = run(str(tmp_path), "--recompute", "--json")
    problems = json.loads(said)["problems"]
    assert len(problems) == 101
    assert problems[-1]["message"] == "More than 100 lines do not agree."


@pytest.mark.parametrize("without", ["include_labels", "consensus"])
def test_without_single_labels_it_is_refused(tmp_path: Path, without: str) -> None:
    objects = make_delivery("majority", LAYOUTS[0])
    manifest = json.loads(objects["manifest.json"])
    del manifest[without]
    objects["manifest.json"] = json.dumps(manifest).encode()
    put(tmp_path, objects)
    code, said = run(str(tmp_path), "--recompute")
    assert code == 2
    assert "job_1 was delivered without its single labels, so its results cannot be" in said
    assert run(str(tmp_path))[0] == 0
