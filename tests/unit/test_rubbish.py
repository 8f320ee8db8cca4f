"""Rubbish of 1 MiB is refused for the CPU of reading JSON, whatever the body and the field it stands in."""

import json
import re
import time
import tracemalloc
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest

from api.app import create_app
from api.http.bodies import parse
from api.http.errors import ApiError
from blocks.bodies.fields import Body
from blocks.settings import Settings

BYTES = 1024 * 1024
CPU_S_CHEAP = 0.025
SHARE_MAX = 4
"""So many times what the standard library takes, at the same time, for as many bytes of small objects."""
TRIES = 3
"""What others do on the machine may double the CPU time of one try."""
HOLE = b'"HOLE"'


def repeated(item: bytes, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening + b",".join([item] * (BYTES // (len(item) + 1) - 20)) + closing


def keys(member: bytes) -> bytes:
    """An object of different keys; `member` has a place for each."""
    count = BYTES // (len(member) + 6)
    return b"{" + b",".join(member % n for n in range(count)) + b"}"


VALUES = {
    "objects": repeated(b"{}"),
    "lists": repeated(b"[]"),
    "lists of lists": repeated(b"[[[]]]"),
    "texts": repeated(b'""'),
    "numbers": repeated(b"1"),
    "long integers": repeated(b"9" * 4000),
    "long floats": repeated(b"1.2345678901234567890123456789e-300"),
    "nuls": repeated(b'"\\u0000"'),
    "nothing but backslashes": b'"' + b"\\\\" * (BYTES // 2 - 100) + b'\\u0000"',
    "unknown keys": keys(b'"k%d":0'),
    "texts by key": keys(b'"k%d":""'),
    "one key again and again": repeated(b'"a":{}', b"{", b"}"),
    "one text": b'"' + b"x" * (BYTES - 100) + b'"',
    "one https URL": b'"https://a/' + b"x" * (BYTES - 100) + b'"',
    "slashes": b'"s3://bucket/' + b"/" * (BYTES - 100) + b'"',
    "one integer": b"9" * (BYTES - 100),
    "one float": b"0." + b"1" * (BYTES - 100),
    "deep lists": b"[" * (BYTES // 2) + b"]" * (BYTES // 2),
    "deep objects": b'{"a":' * (BYTES // 6) + b"1" + b"}" * (BYTES // 6),
}
NOT_JSON = {
    "opened": b"[" * BYTES,
    "not UTF-8": b"\xff" * BYTES,
    "zeros": bytes(BYTES),
    "spaces": b" " * BYTES,
    "a text without an end": b'"' + b"x" * BYTES,
}
OF_LISTS = ("objects", "lists of lists", "texts", "numbers", "long floats", "unknown keys")


def bodies() -> list[type[Body]]:
    """Every type of body that a route takes, so that a new one is tested by itself."""
    settings = Settings(database_url="postgresql:///", encryption_key="0" * 64)
    handlers = [
        handler
        for route in create_app(settings).routes
        for handler in getattr(route, "route_handlers", [])
    ]
    found = {h.parsed_data_field.annotation for h in handlers if h.parsed_data_field}
    return sorted(found, key=lambda model: model.__name__)


def bare(expected: Any) -> Any:
    """A type without its rules, and without None."""
    if get_origin(expected) is Annotated:
        return bare(get_args(expected)[0])
    if isinstance(expected, UnionType):
        return bare(next(part for part in get_args(expected) if part is not type(None)))
    return expected


def is_struct(expected: Any) -> bool:
    return isinstance(expected, type) and issubclass(expected, msgspec.Struct)


def holes(expected: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every place in a body where something may stand: its path, its type, and a value around it."""
    expected = bare(expected)
    if get_origin(expected) is list:
        (item,) = get_args(expected)
        for path, inner, value in holes(item) if is_struct(bare(item)) else ():
            yield f"[]{path}", inner, [value]
    if is_struct(expected):
        for field in msgspec.structs.fields(expected):
            name = field.encode_name
            yield f".{name}", bare(field.type), {name: "HOLE"}
            for path, inner, value in holes(field.type):
                yield f".{name}{path}", inner, {name: value}


def example(expected: Any) -> Any:
    """A value of right types."""
    expected = bare(expected)
    if is_struct(expected):
        fields = msgspec.structs.fields(expected)
        return {f.encode_name: example(f.type) for f in fields if f.required}
    if get_origin(expected) is list:
        return [example(get_args(expected)[0])] * 2
    if issubclass(expected, str):
        return next(iter(expected), "a") if expected is not str else "s3://bucket/key"
    return 2


def cases(model: type[Body]) -> Iterator[tuple[str, bytes]]:
    yield from {**VALUES, **NOT_JSON}.items()
    for path, expected, around in holes(model):
        is_list = get_origin(expected) is list
        is_leaf = not is_list and get_origin(expected) is not dict and not is_struct(expected)
        names = ("one text",) if is_leaf else ("unknown keys",) if is_struct(expected) else OF_LISTS
        whole = msgspec.json.encode(around)
        for name in names:
            yield f"{name} in {path}", whole.replace(HOLE, VALUES[name])
        if is_list:
            right = repeated(msgspec.json.encode(example(get_args(expected)[0])))
            yield f"right items in {path}", whole.replace(HOLE, right)
    member = msgspec.json.encode(example(model))[1:-1]
    yield "the body again and again", repeated(member, b"{", b"}") + b" "


def cpu_s(body: bytes, model: type[Body]) -> float:
    began = time.thread_time()
    try:
        parse(body, model)
    except ApiError as error:
        assert len(msgspec.json.encode(error.body)) < 64 * 1024  # noqa: PT017 - of what is refused
    return time.thread_time() - began


def is_dear(body: bytes, model: type[Body]) -> bool:
    spent_s = cpu_s(body, model)
    if spent_s < CPU_S_CHEAP:
        return False
    began = time.thread_time()
    json.loads(VALUES["objects"])
    return spent_s >= SHARE_MAX * (time.thread_time() - began)


def test_what_there_is_too_much_of_is_not_built() -> None:
    """It would be built in one call, in which no other thread of the process gets a turn."""
    for model in bodies():
        whole = [VALUES["unknown keys"]]
        for path, _, around in holes(model):
            if path in (".tasks", ".labels"):
                whole.append(msgspec.json.encode(around).replace(HOLE, VALUES["objects"]))
        for body in whole:
            # What other threads allocate meanwhile counts too, but not each time.
            least = min(peak_bytes(body, model) for _ in range(3))
            assert least < BYTES / 2, (model, body[:40])


def peak_bytes(body: bytes, model: type[Body]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ApiError):
            parse(body, model)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Words of msgspec and of Python, which say nothing to whoever wrote the request.
LIBRARY = re.compile(
    r"Expected|Invalid enum|Object |`|codec|malformed|recursion|[<>]=|\b(str|int|dict)\b"
)
SMALL = [
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b'""',
    b'"\\ud800"',
    b"[]",
    b"[[]]",
    b"[{}]",
    b"{}",
    b'{"a":{}}',
    b"[1]",
    b'["a"]',
    b"1000000000000",
    b'"' + b"x" * 20_000 + b'"',
    b"[" + b'"a",' * 1000 + b'"a"]',
    b"{",
    b"\xff",
]


@pytest.mark.parametrize("model", bodies(), ids=lambda model: model.__name__)
def test_whatever_stands_anywhere_is_taken_or_refused_with_a_fault(model: type[Body]) -> None:
    whole = example(model)
    for path, _, around in holes(model):
        for value in SMALL:
            body = msgspec.json.encode(whole | around).replace(HOLE, value)
            try:
                parse(body, model)
            except ApiError as error:
                is_json = error.body.code == "invalid_request"
                assert error.body.details or not is_json, (path, value)  # noqa: PT017
                told = [error.body.error, *(fault.message for fault in error.body.details)]
                assert [text for text in told if LIBRARY.search(text)] == [], (path, value)


@pytest.mark.parametrize("model", bodies(), ids=lambda model: model.__name__)
def test_a_megabyte_of_rubbish_cost_next_to_nothing(model: type[Body]) -> None:
    dear = [name for name, body in cases(model) if all(is_dear(body, model) for _ in range(TRIES))]
    assert dear == []
