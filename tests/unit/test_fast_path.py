"""What the sweep decides about whole columns is what the reference decides about each line."""

from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.reading import fast_path
from flows.reading.fast_path import validate_lines
from tests.support import validation
from tests.support.reference import judge

URL = '"https://img.example.com/{}.jpg"'
OBJECTS = [
    "{}",
    '{"a": 1}',
    '{ "a" : [1, {"b": {}}] }',
    '{"a": "caf\\u00e9 é 😀"}',
    '{"a": [[[[[1]]]]]}',
    '{"data_url": "https://img.example.com/b.jpg"}',
    '{"a": "\\", \\"data_url\\": \\"https://img.example.com/b.jpg"}',
    '{"a": "}, "}',
]
NO_OBJECTS = [
    "1",
    '""',
    "[]",
    "null",
    "{",
    "}",
    '{"a": 1}}',
    '{"a": 1',
    "{} {}",
    '{}, "metadata": {}',
    '{}, "x": {}',
    '{}, "data_url": ""',
    '{"a": "\\ud83d"}',
    "",
]
URLS = [URL.format("a"), URL.format("a,b{}"), '"s3://bucket/a b"']
NO_URLS = ["1", '"nowhere"', '"https://img.example.com/a\\u0020b"', '"https://img.example.com/"}', '"a', ""]  # fmt: skip
SPACES = st.sampled_from(["", "", " ", "\t", "  ", "\r"])


@st.composite
def line(draw: st.DrawFn) -> str:
    """A line of both fields in either order, right or nearly so."""
    metadata = (
        f'"metadata"{draw(SPACES)}:{draw(SPACES)}{draw(st.sampled_from(OBJECTS + NO_OBJECTS))}'
    )
    url = f'"data_url"{draw(SPACES)}:{draw(SPACES)}{draw(st.sampled_from(URLS + NO_URLS))}'
    fields = draw(st.permutations([metadata, url]))
    end = draw(st.sampled_from(["", "", "", "}", " ", ",", "\r"]))
    return f"{{{fields[0]}{draw(SPACES)},{draw(SPACES)}{fields[1]}}}{end}"


@given(st.lists(line(), min_size=1, max_size=12))
@example([f'{{"metadata": {each}, "data_url": {URLS[0]}}}' for each in OBJECTS + NO_OBJECTS])
@example([f'{{"metadata": {{}}, "data_url": {each}}}' for each in URLS + NO_URLS])
@example(
    [f'{{"metadata"{s}:{s}{{}}{s},{s}"data_url"{s}:{s}{URLS[0]}}}{s}' for s in ("", " ", "\t")]
)
def test_the_order_of_the_fields_changes_nothing(lines: list[str]) -> None:
    data = "\n".join(lines).encode()
    assert validation.outcome(data) == judge(data)


def test_most_lines_with_their_metadata_first_are_judged_together() -> None:
    lines = [f'{{"metadata": {{"n": {n}}}, "data_url": {URL.format(n)}}}' for n in range(50)]
    with mock.patch.object(fast_path, "validate") as one_by_one:
        (batch,) = validate_lines("\n".join(lines).encode(), 0)
    assert batch.tasks["metadata"].to_list() == [f'{{"n": {n}}}' for n in range(50)]
    assert not one_by_one.called


GOOD = f'{{"data_url": {URLS[0]}, "metadata": {{"a": "é😀"}}}}'.encode()


@pytest.mark.parametrize("window", [1, 60, 200, 4096])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@given(lines=st.lists(st.sampled_from([GOOD, b"", b"x", b"\xff", b"\xf0\x9f", GOOD + b"\xc3"])))
def test_a_byte_that_is_not_utf_8_is_the_fault_of_its_line_alone(
    window: int, end: bytes, lines: list[bytes]
) -> None:
    data = b"".join(each + end for each in lines)
    with mock.patch.object(fast_path, "_UTF8_WINDOW_BYTES", window):
        assert validation.outcome(data) == judge(data)


@pytest.mark.parametrize("lines_max", [5, 10])
def test_lines_that_were_counted_before_are_cut_as_if_they_were_not(lines_max: int) -> None:
    text = (GOOD + b"\n") * 10
    with mock.patch.object(fast_path, "_BATCH_LINES_MAX", lines_max):
        counted = [batch.lines for batch in validate_lines(text, 0, 10)]
        assert counted == [batch.lines for batch in validate_lines(text, 0)]
    assert max(counted) <= lines_max
