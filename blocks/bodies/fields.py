"""Bodies that are checked strictly, with every fault told at once."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain, islice
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from blocks.domain.wrong_values import explain, must_be, nearest, shortened


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one field of a request; `code` where it was tried out, and did not work."""

    field: str
    """The path of the field, such as `label_spec.options` or `tasks[3].data_url`."""
    message: str
    """What is wrong with it."""
    code: str | None = None
    """Why it did not work when it was tried out, with `?preflight=true`."""


JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
"""A field that is kept as it was written: its numbers may have more digits than a float has.
To refuse what is no object is left to the `checks`."""


RawObject = Mapping[str, msgspec.Raw]
"""An object of which only the names are decoded: `value_of` decodes a value."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A request body. `checks` are rules on a field beyond its type: they raise ValueError.

    They are applied by `read_body`, after the types and the lengths of everything.
    """

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {}

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield the faults that lie between fields; `raw` may have any others as well."""
        del raw
        yield from ()


_B = TypeVar("_B", bound=Body)
_T = TypeVar("_T")

# A body of rubbish is not answered with a larger one.
_FAULTS_MAX = 100
_HINTS_MAX = 5
_KEY_SHOWN = 64
# To build all objects of a body takes up to 0.2 s a MiB. Of a larger one only those are built that
# its type asks for, and what else it holds is not looked at.
_BUILT_BYTES_MAX = 256 * 1024
_NUL = "The character U+0000 cannot be stored."


def read_body(body: bytes, model: type[_B]) -> tuple[_B | None, list[Fault]]:
    """Return `body` as a `model`, or None, and every fault, or the first 100 of them.

    The time that it takes is bounded by the size of the body alone. Without a fault there is a value.

    Raises:
        msgspec.DecodeError, RecursionError, UnicodeDecodeError: it is not JSON.
    """
    value, found = _read(body, model)
    faults: dict[str, Fault] = {}
    for fault in islice(found, _FAULTS_MAX):
        faults.setdefault(fault.field, fault)
    return value, list(faults.values())


def _read(body: bytes, model: type[_B]) -> tuple[_B | None, Iterator[Fault]]:
    """The value, where its types are right, and the faults, which are looked for one by one."""
    if len(body) > _BUILT_BYTES_MAX and (too_large := list(_size_faults(body, model))):
        return None, iter(too_large)
    try:
        value = msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        check_json(body)
        fields = value_of(body, dict[str, msgspec.Raw])
        if fields is None:
            return None, chain(_nuls(body), [Fault("body", explain(error, model).message)])
        value, found = None, struct_faults(fields, model, "")
    else:
        fields = value_of(body, dict[str, msgspec.Raw]) or {}
        found = check_faults(value, "")
    return value, chain(_nuls(body), found, model.related_faults(fields))


def _size_faults(body: bytes, model: type[Body]) -> Iterator[Fault]:
    """What a large body has too much of, found before any of it is built.

    That is a list of objects which is too long, or hundreds of kilobytes in fields that are not known.
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
    """The fields of `model`, each as it was written, or empty; others are skipped."""
    fields = msgspec.structs.fields(model)
    return msgspec.defstruct(
        f"{model.__name__}Fields",
        [(field.name, msgspec.Raw, msgspec.Raw()) for field in fields],
        rename={field.name: field.encode_name for field in fields},
    )


def _length_fault(items: msgspec.Raw, expected: Any, path: str) -> Fault | None:
    """A list that is longer than it may be; nothing behind the first item too many is decoded."""
    longest = next((rule.max_length for rule in _rules(expected) if rule.max_length), None)
    if longest is None:
        return None
    try:
        msgspec.json.decode(items, type=_list_up_to(longest))
    except msgspec.ValidationError as error:
        if "at most length" in str(error):
            return Fault(path, must_be(expected))
    return None


@cache
def _list_up_to(length: int) -> type[msgspec.Struct]:
    # Only a struct is left as soon as there are too many items: a list is built first.
    fields = [(f"item_{n}", msgspec.Raw, msgspec.Raw()) for n in range(length)]
    return msgspec.defstruct("ListUpTo", fields, array_like=True, forbid_unknown_fields=True)


def check_json(text: bytes) -> None:
    """Do nothing if `text` is JSON throughout; of a large one only its outline is looked at.

    Raises:
        msgspec.DecodeError, RecursionError, UnicodeDecodeError: it is not.
    """
    if len(text) <= _BUILT_BYTES_MAX:
        _JSON.decode(text)
    else:
        msgspec.json.decode(text, type=msgspec.Raw)


def _number(text: str) -> float:
    # msgspec's own reading of numbers with many digits takes ten times as long.
    if not math.isfinite(number := float(text)):
        raise msgspec.DecodeError("Number out of range")
    return number


_JSON = msgspec.json.Decoder(float_hook=_number)


def value_of(raw: bytes | msgspec.Raw | None, expected: type[_T]) -> _T | None:
    """`raw` as `expected`; None if it is not there, or something else."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=expected)
    except msgspec.ValidationError:
        return None


def check_faults(value: Any, path: str) -> Iterator[Fault]:
    """What the `checks` of a body, and of those within it, find wrong; `path` is where it stands."""
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
            yield Fault(inner, shortened(str(error)))


def _faults(raw: msgspec.Raw, expected: Any, path: str, hints: Iterator[int]) -> Iterator[Fault]:
    """Each field on its own, so that one fault does not hide the next.

    Generators all the way: who reads but 100 faults pays for no more.
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
    place, message = explain(error, expected)
    yield Fault(f"{path}{place}".lstrip(".") or "body", message)


def struct_faults(
    raw: RawObject, model: type[msgspec.Struct], path: str, hints: Iterator[int] | None = None
) -> Iterator[Fault]:
    """Every fault of an object that should be a `model`; `path` is where it stands."""
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
    # To look for a likeness takes time, and whoever mistypes does it once or twice.
    if next(hints, None) is None:
        return ""
    near = nearest(key, fields)
    return f" Did you mean {near}?" if near else ""


def _struct_in(expected: Any) -> type[msgspec.Struct] | None:
    """The struct type that `expected` is, or that it is or None."""
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
    """PostgreSQL cannot keep U+0000, so it is refused wherever it stands."""
    # A backslash that is escaped escapes nothing.
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
