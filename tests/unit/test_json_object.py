"""The reader of JSON objects against the standard library's, which is slow and sure."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocks.lines.json_object import Member, NotAnObjectError, NotJsonError, parse_members, unescape

_SURROGATES = range(0xD800, 0xE000)


class Refused(Exception):
    """The reference does not take it for JSON."""


class Pairs(list[tuple[str, Any]]):
    """An object, with repeated keys."""


def _refuse(constant: str) -> Any:
    raise Refused(constant)


def _check_strings(value: Any) -> None:
    """Refuse a surrogate in any string: `json` pairs those that are whole."""
    if isinstance(value, str):
        if any(ord(character) in _SURROGATES for character in value):
            raise Refused("surrogate")
    elif isinstance(value, Pairs):
        for key, inner in value:
            _check_strings(key)
            _check_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_strings(inner)


class Number(str):
    """A number as it was written, so that no digit is lost in the comparison."""

    __slots__ = ()


def decode(text: str) -> Any:
    """`text` by the standard library; Refused for what RFC 8259 does not allow."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=Pairs,
            parse_constant=_refuse,
            parse_int=Number,
            parse_float=Number,
        )
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refused(str(error)) from error
    _check_strings(value)
    return value


def agree(text: str) -> None:
    """Both read the same members, or both refuse for the same reason."""
    try:
        expected = decode(text)
    except Refused:
        with pytest.raises(NotJsonError):
            parse_members(text)
        return
    if not isinstance(expected, Pairs):
        with pytest.raises(NotAnObjectError):
            parse_members(text)
        return
    found = parse_members(text)
    assert [(member.key, decode(member.raw)) for member in found] == expected
    assert all(member.raw == member.raw.strip(" \t\r\n") for member in found)


_WHITE = st.text(" \t\r\n", max_size=2)
_TEXT = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from('"\\/\x00\x1f\x7fu\u2028\ufeff😀'))
)
_STRINGS = st.one_of(
    st.builds(json.dumps, _TEXT),
    st.builds(lambda text: json.dumps(text, ensure_ascii=False), _TEXT),
    st.sampled_from(
        [
            r'"\ud83d\ude00"',
            r'"\ud83d"',
            r'"\ude00\ud83d"',
            r'"\\ud83d"',
            r'"\\\ud83d"',
            r'"\/"',
            r'"\u0000"',
            r'"\u005C"',
            r'"\u0022"',
            '"data_url"',
            r'"data\u005Furl"',
            '""',
        ]
    ),
)
_NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "0.0", "1e400", "1E+5", "-1.50e-07", "9" * 40, "10", "0"]),
)
_SCALARS = st.one_of(_STRINGS, _NUMBERS, st.sampled_from(["true", "false", "null"]))


def _joined(opening: str, items: list[str], closing: str, white: str) -> str:
    return opening + white + f"{white},".join(items) + white + closing


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.builds("{1}{0}{1}:{3}{2}{1}".format, _STRINGS, _WHITE, values, _WHITE)
    return st.builds(_joined, st.just("{"), st.lists(pairs, max_size=4), st.just("}"), _WHITE)


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.builds(_joined, st.just("["), st.lists(values, max_size=4), st.just("]"), _WHITE)
    return st.one_of(arrays, _objects(values))


_VALUES = st.recursive(_SCALARS, _containers, max_leaves=12)
_DOCUMENTS = st.builds("{0}{1}{0}".format, _WHITE, st.one_of(_objects(_VALUES), _VALUES))
# What an edit puts in is mostly of the grammar, so that many edited documents are nearly JSON.
_PIECES = st.sampled_from(
    [
        *'{}[]:,"\\/ 0123456789-+.eEtrufalsn\t\r\n\x00\x1f',
        "\\u",
        "\\ud800",
        "\\udc00",
        "\\u0041",
        "NaN",
        "Infinity",
        "-Infinity",
        "true",
        "null",
        "01",
        "1.",
        "{}",
        "[]",
        '""',
        '"a":',
        ",,",
        "\ufeff",
        "\u00a0",
        "\u2028",
        "é",
        "٣",
        "😀",
    ]
)
_EDITS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.one_of(st.just(""), _PIECES)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400)
@given(_DOCUMENTS)
@example('{"a": 1, "a": 2, "\\u0061": 3}')
@example('{"a": {"a": [{"a": {}}]}, "b": []}')
def test_it_reads_every_json_document_as_the_standard_library_does(text: str) -> None:
    agree(text)


@settings(max_examples=1200)
@given(_DOCUMENTS, _EDITS)
@example('{"a": 1}', [(8, 0, "{}")])
@example('{"a": [1]}', [(8, 1, "}")])
def test_and_it_refuses_what_the_standard_library_refuses_of_edited_documents(
    text: str, edits: list[tuple[int, int, str]]
) -> None:
    for at, cut, piece in edits:
        place = at % (len(text) + 1)
        text = text[:place] + piece + text[place + cut :]
    agree(text)


@settings(max_examples=400)
@given(
    _DOCUMENTS,
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_nor_do_they_differ_on_documents_with_bytes_changed(
    text: str, edits: list[tuple[int, int]]
) -> None:
    raw = bytearray(text.encode())
    for at, byte in edits:
        if raw:
            raw[at % len(raw)] = byte
    try:
        agree(raw.decode())
    except UnicodeDecodeError:
        return


@settings(max_examples=300)
@given(st.text('{}[]:,"\\u0d8e1- ', max_size=14))
def test_nor_on_short_texts_of_the_characters_of_the_grammar(text: str) -> None:
    agree(text)


@pytest.mark.parametrize("start", ["", "[1", '["a",{', '{"a":1', '{"a":[', '{"a":{"a":1}'])
def test_nor_on_any_short_sequence_of_tokens(start: str) -> None:
    for length in range(5):
        for tokens in itertools.product('{}[],:"1', repeat=length):
            agree(start + "".join(tokens).replace('"', '"a"'))


@pytest.mark.parametrize(
    "frame", ['{{"a": "{}"}}', '{{"a": "\\{}"}}', '{{"a": "x\\n{}y"}}', '{{"{}": 1}}', "{}{{}}"]
)
def test_nor_on_any_character_in_any_place(frame: str) -> None:
    for character in [*map(chr, range(0x100)), "\u0660", "\u2028", "\ufeff", "\uffff", "😀"]:
        agree(frame.format(character))


def test_the_reference_is_as_strict_as_it_has_to_be() -> None:
    for text in ("NaN", "[1,]", '"\\ud800"', '{"a": "\t"}', "01", "\ufeff1", "1 2", ""):
        with pytest.raises(Refused):
            decode(text)
    assert decode('{"a": 1.10, "a": "\\ud83d\\ude00"}') == [("a", "1.10"), ("a", "😀")]


def test_members_come_in_their_order_with_the_text_of_each_value() -> None:
    text = ' { "b" : [ 1 , 2 ] ,\t"a":{"b":3},"b" :-1.50E+2, "\\u0061": "\\u0061" } '
    assert parse_members(text) == [
        Member("b", "[ 1 , 2 ]"),
        Member("a", '{"b":3}'),
        Member("b", "-1.50E+2"),
        Member("a", '"\\u0061"'),
    ]


@pytest.mark.parametrize("text", ["{}", "{ }", "\t{\r\n} "])
def test_an_empty_object_has_no_members(text: str) -> None:
    assert parse_members(text) == []


@pytest.mark.parametrize("depth", [1_000, 10_000, 200_000])
def test_no_depth_is_too_much(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    assert parse_members(f'{{"a": {deep}}}') == [Member("a", deep)]
    with pytest.raises(NotJsonError, match="expected ',' or the closing bracket"):
        parse_members(f'{{"a": {deep[:-1]}}}')


@pytest.mark.parametrize(
    "text, column",
    [
        ("", 1),
        ("   ", 4),
        ("{\t\t1}", 4),
        ('{"a":1}x', 8),
        ('{"a":1}  x', 10),
        ('{"ä":"ö" 1}', 10),
        ("{\ufeff}", 2),
    ],
)
def test_the_error_gives_the_column_of_what_was_not_expected(text: str, column: int) -> None:
    with pytest.raises(NotJsonError, match=f"in column {column}$"):
        parse_members(text)


@pytest.mark.parametrize(
    "string, value",
    [
        ('""', ""),
        ('"a"', "a"),
        (r'"\""', '"'),
        (r'"\\"', "\\"),
        (r'"\/"', "/"),
        (r'"\u0000"', "\x00"),
        (r'"\b\f\n\r\t"', "\b\f\n\r\t"),
        (r'"\ud83d\ude00"', "😀"),
        ('"😀"', "😀"),
        (r'"\\ud800"', r"\ud800"),
    ],
)
def test_escapes_are_resolved(string: str, value: str) -> None:
    assert unescape(string) == value


@pytest.mark.parametrize(
    "string", [r'"\ud800"', r'"\udfff"', r'"\udc00\ud800"', r'"\ud83dx\ude00"']
)
def test_half_a_surrogate_pair_is_refused(string: str) -> None:
    with pytest.raises(NotJsonError, match="surrogate"):
        unescape(string)
