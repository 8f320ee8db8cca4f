"""Check request bodies strictly, and tell every fault at once."""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain, islice
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from blocks.domain.choices import explain, shorten


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one field of a request; `code` says why it did not work when it was tried."""

    field: str
    """The path of the field, such as `label_spec.options` or `tasks[3].data_url`."""
    message: str
    """What is wrong with it."""
    code: str | None = None
    """Why it did not work when it was tried out, with `?preflight=true`."""


JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
"""A field that is kept as it was written: its numbers may have more digits than a float has.
The `checks` refuse what is not an object."""


RawObject = Mapping[str, msgspec.Raw]
"""An object of which only the names are decoded; `value_of` decodes a value."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A request body. `checks` are rules on a field beyond its type: they raise ValueError.

    They are applied by `read_body`, after the types and the lengths of everything.
    """

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {}

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield faults in how fields go together; `raw` may have other faults as well."""
        del raw
        yield from ()


_B = TypeVar("_B", bound=Body)
_T = TypeVar("_T")

# A body of rubbish is not answered with a larger one.
_FAULTS_MAX = 100
_HINTS_MAX = 5
_KEY_SHOWN = 64
# Building all objects of a body takes up to 0.2 s a MiB. Of a larger body only those are built that its
# type asks for, and nothing else in it is looked at.
_BUILT_BYTES_MAX = 256 * 1024
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
    if len(body) > _BUILT_BYTES_MAX and (too_large := list(_size_faults(body, model))):
        return None, iter(too_large)
    try:
        value = msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        check_json(body)
        fields = value_of(body, dict[str, msgspec.Raw])
        if fields is None:
            return None, chain(_nuls(body), [Fault("body", explain(error, model))])
        value, found = None, struct_faults(fields, model, "")
    else:
        fields = value_of(body, dict[str, msgspec.Raw]) or {}
        found = check_faults(value, "")
    return value, chain(_nuls(body), found, model.related_faults(fields))


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
        if _struct_in(_item_type(field.type)) and value:
            fault = _length_fault(value, field.type, field.encode_name)
            yield from [fault] if fault else []
    if left > _BUILT_BYTES_MAX:
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


def _length_fault(items: msgspec.Raw, expected: Any, path: str) -> Fault | None:
    """Return the fault of a list that is too long; nothing behind the first item too many is decoded."""
    longest = next((rule.max_length for rule in _rules(expected) if rule.max_length), None)
    if longest is None:
        return None
    try:
        msgspec.json.decode(items, type=_list_up_to(longest))
    except msgspec.ValidationError as error:
        if "at most length" in str(error):
            return Fault(path, _too_long(longest, expected))
    return None


@cache
def _list_up_to(length: int) -> type[msgspec.Struct]:
    # A struct refuses the first item too many; a list is built as a whole first.
    fields = [(f"item_{n}", msgspec.Raw, msgspec.Raw()) for n in range(length)]
    return msgspec.defstruct("ListUpTo", fields, array_like=True, forbid_unknown_fields=True)


def _too_long(longest: int, expected: Any) -> str:
    try:
        msgspec.convert([None] * (longest + 1), Annotated[list[Any], Meta(max_length=longest)])
    except msgspec.ValidationError as error:
        return explain(error, expected)
    raise AssertionError  # it is longer


def check_json(text: bytes) -> None:
    """Pass if `text` is JSON throughout; of a large text only the outline is looked at.

    Raises:
        msgspec.DecodeError, RecursionError, UnicodeDecodeError: it is not.
    """
    if len(text) <= _BUILT_BYTES_MAX:
        _JSON.decode(text)
    else:
        msgspec.json.decode(text, type=msgspec.Raw)


def _number(text: str) -> float:
    # msgspec itself takes ten times as long for numbers with many digits.
    if not math.isfinite(number := float(text)):
        raise msgspec.DecodeError("Number out of range")
    return number


_JSON = msgspec.json.Decoder(float_hook=_number)


def value_of(raw: bytes | msgspec.Raw | None, expected: type[_T]) -> _T | None:
    """Return `raw` as `expected`; None if it is not there, or is of another type."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=expected)
    except msgspec.ValidationError:
        return None


def check_faults(value: Any, path: str) -> Iterator[Fault]:
    """Yield what the `checks` of a body, and of bodies in it, find wrong; `path` is where it stands."""
    if isinstance(value, Body):
        for field in value.__struct_fields__:
            yield from _field_faults(value, field, getattr(value, field), path)
    elif isinstance(value, list) and value and isinstance(value[0], Body):
        for n, item in enumerate(value):
            yield from check_faults(item, f"{path}[{n}]")


def _field_faults(
    model: Body | type[msgspec.Struct], field: str, value: Any, path: str
) -> Iterator[Fault]:
    inner = f"{path}.{field}" if path else field
    is_clean = True
    for fault in check_faults(value, inner):
        is_clean = False
        yield fault
    check = getattr(model, "checks", {}).get(field)
    if is_clean and check and value is not None:
        try:
            check(value)
        except ValueError as error:
            yield Fault(inner, shorten(str(error)))


def _faults(raw: msgspec.Raw, expected: Any, path: str, hints: Iterator[int]) -> Iterator[Fault]:
    """Yield the faults of each field on its own, so that one does not hide the next.

    These are generators throughout, so that a caller who reads 100 faults pays for no more.
    """
    try:
        value = msgspec.json.decode(raw, type=expected)
    except msgspec.ValidationError as error:
        yield from _faults_within(raw, expected, error, path, hints)
    else:
        yield from check_faults(value, path)


def _faults_within(
    raw: msgspec.Raw,
    expected: Any,
    error: msgspec.ValidationError,
    path: str,
    hints: Iterator[int],
) -> Iterator[Fault]:
    model = _struct_in(expected)
    if model and (fields := value_of(raw, dict[str, msgspec.Raw])) is not None:
        yield from struct_faults(fields, model, path, hints)
        return
    item = _struct_in(_item_type(expected))
    if item and (fault := _length_fault(raw, expected, path)):
        yield fault  # and nothing of what it holds
        return
    if item and (items := value_of(raw, list[msgspec.Raw])) is not None:
        found = chain.from_iterable(
            _faults(each, item, f"{path}[{n}]", hints) for n, each in enumerate(items)
        )
        if first := next(found, None):
            yield first
            yield from found
            return  # else it is the list itself: too short
    yield Fault(path or "body", explain(error, expected))


def struct_faults(
    raw: RawObject, model: type[msgspec.Struct], path: str, hints: Iterator[int] | None = None
) -> Iterator[Fault]:
    """Yield every fault of an object that should be a `model`; `path` is where it stands."""
    hints = iter(range(_HINTS_MAX)) if hints is None else hints
    prefix = f"{path}." if path else ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    for key in raw:
        if key not in fields:
            yield Fault(
                f"{prefix}{key[:_KEY_SHOWN]}",
                f"This field is not known.{_hint(key, fields, hints)}",
            )
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                yield Fault(f"{prefix}{name}", "This field is required.")
            continue
        try:
            value = msgspec.json.decode(raw[name], type=field.type)
        except msgspec.ValidationError as error:
            yield from _faults_within(raw[name], field.type, error, f"{prefix}{name}", hints)
        else:
            yield from _field_faults(model, name, value, path)


def _hint(key: str, fields: Mapping[str, object], hints: Iterator[int]) -> str:
    # Looking for similar names takes time, and people mistype a name or two.
    if next(hints, None) is None:
        return ""
    near = difflib.get_close_matches(key[:_KEY_SHOWN], fields, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _struct_in(expected: Any) -> type[msgspec.Struct] | None:
    """Return the struct type that `expected` is, alone or in a union with None."""
    candidates = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    found = [c for c in candidates if isinstance(c, type) and issubclass(c, msgspec.Struct)]
    return found[0] if found else None


def _item_type(expected: Any) -> Any:
    if get_origin(expected) is Annotated:
        expected = get_args(expected)[0]
    return get_args(expected)[0] if get_origin(expected) is list else None


def _rules(expected: Any) -> list[Meta]:
    rules = get_args(expected)[1:] if get_origin(expected) is Annotated else ()
    return [rule for rule in rules if isinstance(rule, Meta)]


def _nuls(body: bytes) -> Iterator[Fault]:
    """Yield a fault for each U+0000: PostgreSQL cannot keep it, wherever it stands."""
    # An escaped backslash escapes nothing.
    at = body.replace(b"\\\\", b"  ").find(b"\\u0000") if b"\\u0000" in body else -1
    if at < 0:
        return
    if len(body) > _BUILT_BYTES_MAX:
        yield Fault("body", f"{_NUL} The first one is at byte {at}.")
        return
    waiting = [(_JSON.decode(body), "")]
    while waiting:  # not by recursion: a body may be nested deeper than that goes
        value, path = waiting.pop()
        if isinstance(value, str) and "\x00" in value:
            yield Fault(path or "body", _NUL)
        elif isinstance(value, dict):
            for key in value:
                name = key.replace("\x00", "\\u0000")
                inner = f"{path}.{name}"[:_KEY_SHOWN].lstrip(".")
                waiting += [(key, inner), (value[key], inner)]
        elif isinstance(value, list):
            waiting += [(item, f"{path}[{n}]"[:_KEY_SHOWN]) for n, item in enumerate(value)]
