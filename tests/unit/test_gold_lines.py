"""A line may say its right answer."""

import json
from typing import Any

import pytest

from blocks.domain.model import BadLine, GoodLine, LineCode
from blocks.lines.exact_path import find_bad_start, judge_start, validate
from flows.reading.fast_path import validate_lines

OPTIONS = ["cat", 'a "dog"', "é"]
URL = "https://a.example/1.jpg"


def read(*lines: dict[str, Any]) -> Any:
    text = "\n".join(json.dumps(line) for line in lines).encode()
    (batch,) = validate_lines(text, 7, takes_text=True, options=OPTIONS)
    return batch


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("data", [{"data_url": URL}, {"text": "Sunny."}])
@pytest.mark.parametrize("metadata", [{}, {"metadata": {"gold": "cat", "n": 1}}])
@pytest.mark.parametrize("is_first", [False, True])
def test_gold_is_one_of_the_options(
    option: str, data: dict[str, Any], metadata: dict[str, Any], is_first: bool
) -> None:
    line = {"gold": option} | data | metadata if is_first else data | metadata | {"gold": option}
    batch = read(data, line, data | metadata)
    assert (len(batch.tasks), batch.bad) == (3, [])
    offsets = batch.tasks["byte_offset"].to_list()
    assert batch.gold == {offsets[1]: OPTIONS.index(option) + 1}
    plain = read(data, data | metadata, data | metadata).tasks
    assert batch.tasks.drop("byte_offset").equals(plain.drop("byte_offset"))


@pytest.mark.parametrize("gold", ["Cat", "cow", "", 1, None, ["cat"], {"cat": 1}, True])
def test_gold_that_is_none_of_the_options_is_a_bad_line(gold: Any) -> None:
    batch = read({"data_url": URL, "gold": gold}, {"data_url": URL})
    (bad,) = batch.bad
    assert (bad.code, bad.line, len(batch.tasks), batch.gold) == (LineCode.INVALID_GOLD, 1, 1, {})
    assert json.dumps(gold) in bad.message


def test_other_faults_come_first() -> None:
    line = validate(b'{"data_url": 1, "gold": 1}', byte_offset=0, line=1, options=OPTIONS)
    assert isinstance(line, BadLine)
    assert line.code is LineCode.INVALID_DATA_URL


def test_a_manifest_that_begins_with_gold_is_of_use() -> None:
    text = b'{"data_url": "https://a.example/1", "gold": "cat"}\n'
    assert find_bad_start(judge_start(text, whole=True, lines_max=5, options=OPTIONS)) is None
    assert isinstance(validate(text.strip(), byte_offset=0, line=1, options=OPTIONS), GoodLine)
    bad = find_bad_start(judge_start(text, whole=True, lines_max=5, options=["dog", "cow"]))
    assert bad is not None
    assert bad.code is LineCode.INVALID_GOLD
