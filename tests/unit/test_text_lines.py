"""Lines with a text instead of a URL: by both paths and by the reference, and only where a job takes them."""

import json
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocks.domain.model import LINE_BYTES_MAX, GoodLine, LineCode, TaskType
from blocks.lines.exact_path import find_bad_start, judge_start, validate
from flows.reading import fast_path
from flows.reading.fast_path import validate_lines
from tests.support import validation
from tests.support.reference import Bad, Good, judge

# Strings of JSON with their quotes, and what is none.
TEXTS = [
    '"It rains."',
    '"é 😀"',
    r'"\u00e9 \ud83d\ude00"',
    r'"a \"b\", c: {\"metadata\": {}}"',
    r'"\\"',
    r'"\\\""',
    r'"\n\t\/\b"',
    r'"\u0041"',
    '"{"',
    '"}"',
    '", "',
    '"\u00a0"',
    '"\x1f"',
    r'"\u001f"',
    '"\\u0020"',
    '""',
    '" \\t\\r\\n"',
    '" "',
    r'"a\u0000"',
    r'"\ud83d"',
    r'"\x"',
    '"a',
    "1",
    "null",
    '["a"]',
    '"https://a.example/1.jpg"',
]
METADATA = ["", ', "metadata": {"a": "}"}', ',"metadata":{"text":"x"}', ', "metadata": 1', ', "metadata": {"a": [[[[1]]]]}']  # fmt: skip
ENDS = ["}", "}", "}}", "", "} ", "}\r", ', "data_url": "https://a.example/1.jpg"}', ', "x": 1}', ', "text": "b"}']  # fmt: skip
HEADS = ['{"text": ', '{"text":', '{"text":  ', '{ "text": ', '{"data_url": "s3://bucket/b", "text": ', '{"metadata": {}, "text": ']  # fmt: skip

lines = st.builds(
    "".join,
    st.tuples(
        st.sampled_from([HEADS[0], HEADS[0], *HEADS]),
        st.sampled_from(TEXTS) | st.text(max_size=20).map(json.dumps),
        st.sampled_from(METADATA),
        st.sampled_from(ENDS),
    ),
)
others = st.sampled_from(
    ["", "x", '{"data_url": "https://a.example/1.jpg"}', '{"data_url": "s3://b/ "}', "\ufeff{}"]
)


@given(st.lists(lines | others, min_size=1, max_size=12))
@example([f'{{"text": {text}, "metadata": {{}}}}' for text in TEXTS])
@example([f"{head}{TEXTS[3]}{more}{end}" for head in HEADS for more in METADATA for end in ENDS])
def test_each_line_comes_to_what_the_reference_says(manifest: list[str]) -> None:
    data = "\n".join(manifest).encode()
    found = validation.outcome(data, takes_text=True)
    assert found == judge(data, takes_text=True)
    lines_found: list[Good | Bad] = [*found.good, *found.bad]
    by_line = {each.line: each for each in lines_found}
    for number, line in enumerate(manifest, start=1):
        if number > 1 and "\n" not in line:
            exact = validation.exact(line.encode(), takes_text=True)
            one = by_line.get(number)
            assert (exact and exact[2:]) == (one and one[2:])


@given(st.lists(lines | others, min_size=1, max_size=12))
def test_a_job_that_takes_no_text_has_no_such_field(manifest: list[str]) -> None:
    data = "\n".join(manifest).encode()
    found = validation.outcome(data)
    assert found == judge(data)
    assert {good.text for good in found.good} <= {None}


def test_most_texts_are_judged_together() -> None:
    texts = [f'The {n}. "word",\n{{é 😀}}\\' for n in range(40)]
    spelt = [json.dumps(text) for text in texts] + [
        json.dumps(text, ensure_ascii=False) for text in texts
    ]
    data = "\n".join(
        f'{{"text": {text}, "metadata": {{"n": {n}}}}}' for n, text in enumerate(spelt)
    )
    with mock.patch.object(fast_path, "validate") as one_by_one:
        (batch,) = validate_lines(data.encode(), 0, takes_text=True)
    assert batch.tasks["text"].to_list() == texts * 2
    assert batch.tasks["metadata"].to_list() == [f'{{"n": {n}}}' for n in range(80)]
    assert batch.tasks["data_url"].to_list() == [None] * 80
    assert not one_by_one.called


def test_lines_of_both_kinds_keep_their_order() -> None:
    kinds = [
        b'{"text": "a"}',
        b'{"data_url": "https://a.example/1.jpg"}',
        b'{"metadata": {}, "data_url": "https://a.example/2.jpg"}',
        b'{"metadata": {}, "text": "b"}',
        b"x",
    ] * 3
    (batch,) = validate_lines(b"\n".join(kinds), 0, takes_text=True)
    places = [n for n in range(1, 16) if n % 5]
    assert batch.tasks["line"].to_list() == places
    assert batch.tasks["byte_offset"].is_sorted()
    assert batch.tasks["text"].to_list() == ["a", None, None, "b"] * 3


@pytest.mark.parametrize("size", [LINE_BYTES_MAX, LINE_BYTES_MAX + 1])
def test_a_text_is_bounded_by_its_line(size: int) -> None:
    line = b'{"text": "' + b"x" * (size - 12) + b'"}'
    assert len(line) == size
    (batch,) = validate_lines(line, 0, takes_text=True)
    is_good = size <= LINE_BYTES_MAX
    assert [bad.code for bad in batch.bad] == ([] if is_good else [LineCode.LINE_TOO_LONG])
    assert len(batch.tasks) == is_good


@pytest.mark.parametrize(
    "line, code, words",
    [
        ('{"text": 1}', "invalid_text", "text must be a string that is not blank."),
        ('{"text": " "}', "invalid_text", "text must be a string that is not blank."),
        (r'{"text": "a\u0000"}', "invalid_text", "text must not have the character U+0000"),
        ('{"text": "a", "data_url": "s3://bucket/b"}', "invalid_text", "this one has both"),
        ('{"text": "a", "id": 1}', "unknown_field", 'The field "id" is not known'),
        ('{"content": "a"}', "missing_data_url", "data_url or text is missing; the line has content. Did"),
        ('{"metadata": {}}', "missing_data_url", "The field data_url or text is missing."),
        ('{"text": "a", "metadata": 1}', "invalid_metadata", "metadata must be a JSON object."),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_why(line: str, code: str, words: str) -> None:
    found = validate(line.encode(), byte_offset=0, line=1, takes_text=True)
    assert found is not None
    assert not isinstance(found, GoodLine)
    assert (found.code, words in found.message) == (code, True)


def test_a_preflight_takes_texts_where_the_job_does() -> None:
    start = b'{"text": "a"}\n'
    assert find_bad_start(judge_start(start, whole=True, lines_max=10, takes_text=True)) is None
    bad = find_bad_start(judge_start(start, whole=True, lines_max=10))
    assert bad is not None
    assert bad.code == "missing_data_url"


def test_pictures_have_no_text() -> None:
    assert {each for each in TaskType if not each.takes_text} == {TaskType.IMAGE_CLASSIFICATION}
