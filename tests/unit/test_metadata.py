"""Annotators see of a line's metadata what its job lets them see, byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.metadata import list_shown_members, show_members

TEXT = (
    '{ "n": 1.10, "big":123456789012345678901234567890,\r"e":"\\u00e9", "a\\u0062" : [ 1,2 ], '
    '"dup":1, "dup":2, "\u00fc": { "x" : null } }'
)


@pytest.mark.parametrize(
    "keys, shown",
    [
        (["n"], '{"n":1.10}'),
        (["big"], '{"big":123456789012345678901234567890}'),
        (["e"], '{"e":"\\u00e9"}'),
        (["ab"], '{"ab":[ 1,2 ]}'),
        (["dup"], '{"dup":2}'),
        (["\u00fc"], '{"\u00fc":{ "x" : null }}'),
        (["e", "n", "absent"], '{"n":1.10,"e":"\\u00e9"}'),
        (["x"], None),  # a member of a member
        ([], None),
        (None, TEXT),
    ],
)
def test_members_are_shown_byte_for_byte_in_their_order(
    keys: list[str] | None, shown: str | None
) -> None:
    assert show_members(TEXT, keys) == shown


@pytest.mark.parametrize(
    "text", ["null", "[]", '"secret"', "{", '{"a": }', '{"a":' + "[" * 100_000, '{"a":1}x', ""]
)
def test_what_cannot_be_told_apart_is_hidden_as_a_whole(text: str) -> None:
    assert show_members(text, ["a"]) is None
    assert show_members(text, None) == text


def test_without_metadata_there_is_nothing_to_show() -> None:
    assert (show_members(None, ["a"]), show_members(None, None)) == (None, None)


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers() | st.text(max_size=5)),
    st.sets(st.text(st.characters(codec="utf-8"), max_size=3)),
)
def test_no_member_is_shown_that_is_not_named(members: dict[str, object], keys: set[str]) -> None:
    some = sorted(keys | set(list(members)[::2]))
    shown = json.loads(show_members(json.dumps(members), some) or "{}")
    assert shown == {key: value for key, value in members.items() if key in some}


@pytest.mark.parametrize(
    "said, kept", [(True, None), (False, []), ([], []), (["b", "a", "b"], ["a", "b"])]
)
def test_what_a_job_says_is_kept_as_members(said: bool | list[str], kept: list[str] | None) -> None:
    assert list_shown_members(said) == kept
