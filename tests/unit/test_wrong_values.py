"""What a wrong value is answered with: where it stands, what is allowed there, what was meant."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from blocks.domain.wrong_values import explain, must_be, nearest, shorten, why_not_json


class Animal(StrEnum):
    CAT = "cat"
    DOG = "dog"


class Point(msgspec.Struct):
    x: int
    y: int
    name: str = ""


class Shape(msgspec.Struct):
    points: list[Point]
    tags: dict[str, list[str]] = {}


@pytest.mark.parametrize(
    "expected, sentence",
    [
        (int, "a whole number"),
        (Annotated[int, Meta(ge=2, le=10)], "a whole number from 2 to 10"),
        (Annotated[int, Meta(ge=0)], "a whole number of at least 0"),
        (Annotated[int, Meta(le=86400)] | None, "a whole number of at most 86,400, or null"),
        (Annotated[float, Meta(ge=0, le=100)], "a number from 0 to 100"),
        (bool, "true or false"),
        (str, "a string"),
        (Annotated[str, Meta(min_length=1)], "a string that is not empty"),
        (Annotated[str, Meta(min_length=2)], "a string of at least 2 characters"),
        (Annotated[str, Meta(max_length=512)], "a string of at most 512 characters"),
        (Annotated[str, Meta(min_length=1, max_length=255)], "a string of 1 to 255 characters"),
        (Animal, "one of cat, dog"),
        (Literal["a", "b"] | None, "one of a, b, or null"),
        (list[str], "an array of strings"),
        (Annotated[list[Point], Meta(min_length=1, max_length=1000)], "an array of 1 to 1,000 objects"),
        (Annotated[list[Animal], Meta(min_length=1)], "an array of at least 1 items, each of them one of cat, dog"),
        (bool | Annotated[list[str], Meta(max_length=9)], "true or false, or an array of at most 9 strings"),
        (dict[str, str], "an object of members, each of them a string"),
        (Annotated[dict[str, int], Meta(max_length=3)], "an object of at most 3 members, each of them a whole number"),
        (Point, "an object with x and y"),
        (msgspec.Raw, "a JSON value"),
    ],
)  # fmt: skip
def test_a_type_is_said_in_words(expected: Any, sentence: str) -> None:
    assert must_be(expected) == f"This must be {sentence}."
    assert must_be(expected, "5") == f"This must be {sentence}, not 5."


@pytest.mark.parametrize(
    "text, expected, place, message",
    [
        ("5", str, "", "This must be a string, not a number."),
        ("5.5", int, "", "This must be a whole number, not a decimal number."),
        ('"1"', bool, "", "This must be true or false, not a string."),
        ("[]", str | None, "", "This must be a string, or null, not an array."),
        ("1", Annotated[int, Meta(ge=2)], "", "This must be a whole number of at least 2."),
        ('"cow"', Animal, "", "This must be one of cat, dog, not 'cow'."),
        ("null", Animal, "", "This must be one of cat, dog, not null."),
        ('["cat", "cow"]', list[Animal], "[1]", "This must be one of cat, dog, not 'cow'."),
        ('{"points": [{"x": 1, "y": {}}]}', Shape, ".points[0].y", "This must be a whole number, not an object."),
        ('{"points": [{"x": 1}]}', Shape, ".points[0]", "This must be an object with x and y."),
        ('{"points": [], "tags": {"a": ["b", true]}}', Shape, ".tags",
         "Each member of this must be a string, not a boolean."),
        ('"x - at `$.a`"', Animal, "", "This must be one of cat, dog, not 'x - at `$.a`'."),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(text: str, expected: Any, place: str, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=expected)
    assert explain(caught.value, expected) == (place, message)


def test_a_long_choice_is_cut() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(msgspec.json.encode("x" * 1_000_000), type=Animal)
    assert len(explain(caught.value, Animal).message) < 400
    assert shorten("x" * 301) == "x" * 300 + "…"


@pytest.mark.parametrize(
    "given, meant",
    [
        ("Cat", "cat"),
        (" DOG ", "dog"),
        ("dgo", "dog"),
        ("cats", "cat"),
        ("horse", None),
        ("", None),
    ],
)
def test_the_nearest_is_what_was_probably_meant(given: str, meant: str | None) -> None:
    assert nearest(given, ["cat", "dog"]) == meant


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", r"it ends too early, or an escape such as \ud800 is half a character."),
        (b'{"a": 1,}', "trailing comma in object, at byte 8."),
        (b'{"a": "\xff"}', "it has bytes that are not UTF-8."),
        (b"[" * 5000 + b"]" * 5000, "it is nested too deeply."),
    ],
)
def test_what_is_not_json_is_told_why(text: bytes, reason: str) -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError, UnicodeDecodeError)) as caught:
        msgspec.json.decode(text)
    assert why_not_json(caught.value) == reason
