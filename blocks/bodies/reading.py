"""Read a request body: its value, or every fault, in a time that is bounded by its size."""

from collections.abc import Iterator
from functools import cache
from itertools import chain, islice
from typing import TypeVar

import msgspec

from blocks.bodies.fields import (
    BUILT_BYTES_MAX,
    JSON,
    KEY_SHOWN,
    Body,
    Fault,
    check_faults,
    check_json,
    item_type,
    length_fault,
    struct_faults,
    struct_in,
    value_of,
)
from blocks.domain.wrong_values import explain

_B = TypeVar("_B", bound=Body)

# A body of rubbish is not answered with a larger one.
_FAULTS_MAX = 100
_NUL = "The character U+0000 cannot be stored."


def read_body(body: bytes, model: type[_B]) -> tuple[_B | None, list[Fault]]:
    """Return `body` as a `model`, or None, and its first 100 faults.

    The time that this takes is bounded by the size of the body. Without a fault there is a value.

    Raises:
        msgspec.DecodeError, RecursionError, UnicodeDecodeError: it is not JSON.
    """
    value, found = _read(body, model)
    faults: dict[str, Fault] = {}
    for fault in islice(found, _FAULTS_MAX):
        faults.setdefault(fault.field, fault)
    return value, list(faults.values())


def _read(body: bytes, model: type[_B]) -> tuple[_B | None, Iterator[Fault]]:
    """Return the value, where its types are right, and an iterator that looks for faults one by one."""
    if len(body) > BUILT_BYTES_MAX and (too_large := list(_size_faults(body, model))):
        return None, iter(too_large)
    try:
        value = msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        check_json(body)
        fields = value_of(body, dict[str, msgspec.Raw])
        if fields is None:
            return None, chain(_nuls(body), [Fault("body", explain(error, model).message)])
        value, found = None, _or_else(struct_faults(fields, model, ""), error, model)
    else:
        fields = value_of(body, dict[str, msgspec.Raw]) or {}
        found = check_faults(value, "")
    return value, chain(_nuls(body), found, model.related_faults(fields))


def _or_else(
    found: Iterator[Fault], error: msgspec.ValidationError, model: type[Body]
) -> Iterator[Fault]:
    """Yield the faults that were found, and that of the decoder if there are none.

    So it is where a key is repeated, and not its last value is wrong, but one before.
    """
    first = next(found, None)
    if first is None:
        place, message = explain(error, model)
        yield Fault(place.lstrip(".") or "body", message)
    else:
        yield first
        yield from found


def _size_faults(body: bytes, model: type[Body]) -> Iterator[Fault]:
    """Yield what a large body has too much of, before any of it is built.

    That is a list of objects that is too long, or hundreds of kilobytes in fields that are not known.
    """
    fields = msgspec.structs.fields(model)
    values = value_of(body, _fields_alone(model))
    if values is None:
        return
    left = len(body)
    for field in fields:
        value = getattr(values, field.name)
        left -= memoryview(value).nbytes
        if struct_in(item_type(field.type)) and value:
            fault = length_fault(value, field.type, field.encode_name)
            yield from [fault] if fault else []
    if left > BUILT_BYTES_MAX:
        names = ", ".join(field.encode_name for field in fields)
        yield Fault("body", f"Most of this is in fields that are not known; known are {names}.")


@cache
def _fields_alone(model: type[Body]) -> type[msgspec.Struct]:
    """Return a type with the fields of `model`, each as it was written, or empty; others are skipped."""
    fields = msgspec.structs.fields(model)
    return msgspec.defstruct(
        f"{model.__name__}Fields",
        [(field.name, msgspec.Raw, msgspec.Raw()) for field in fields],
        rename={field.name: field.encode_name for field in fields},
    )


def _nuls(body: bytes) -> Iterator[Fault]:
    """Yield a fault for each U+0000: PostgreSQL cannot keep it, wherever it stands."""
    # An escaped backslash escapes nothing.
    at = body.replace(b"\\\\", b"  ").find(b"\\u0000") if b"\\u0000" in body else -1
    if at < 0:
        return
    if len(body) > BUILT_BYTES_MAX:
        yield Fault("body", f"{_NUL} The first one is at byte {at}.")
        return
    waiting = [(JSON.decode(body), "")]
    while waiting:  # not by recursion: a body may be nested deeper than that goes
        value, path = waiting.pop()
        if isinstance(value, str) and "\x00" in value:
            yield Fault(path or "body", _NUL)
        elif isinstance(value, dict):
            for key in value:
                name = key.replace("\x00", "\\u0000")
                inner = f"{path}.{name}"[:KEY_SHOWN].lstrip(".")
                waiting += [(key, inner), (value[key], inner)]
        elif isinstance(value, list):
            waiting += [(item, f"{path}[{n}]"[:KEY_SHOWN]) for n, item in enumerate(value)]
