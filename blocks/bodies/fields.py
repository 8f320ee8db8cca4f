"""Faults of the fields of a body, each found on its own, so that all are told at once."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from blocks.domain.wrong_values import HINTS_MAX, did_you_mean, explain, must_be, shorten


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


Checks = Mapping[str, Callable[[Any], object]]
"""Rules on fields beyond their types: a function returns, or raises ValueError with a sentence."""

RawObject = Mapping[str, msgspec.Raw]
"""An object of which only the names are decoded; `value_of` decodes a value."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A request body. `checks` are rules on a field beyond its type: they raise ValueError.

    They are applied by `read_body`, after the types and the lengths of everything.
    """

    checks: ClassVar[Checks] = {}
    known_elsewhere: ClassVar[Mapping[str, str]] = {}
    """What to do instead of giving fields that other bodies have and this one has not."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield faults in how fields go together whose types are right; their paths begin here."""
        yield from ()

    @classmethod
    def raw_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield such faults where some type is wrong, so that one fault does not hide the next."""
        del raw
        yield from ()

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield faults in how fields go together; `raw` may have other faults as well."""
        del raw
        yield from ()


_T = TypeVar("_T")

KEY_SHOWN = 64
"""How many characters of an unknown name or path are shown."""
BUILT_BYTES_MAX = 256 * 1024
"""The largest body of which all objects are built, which takes up to 0.2 s a MiB. Of a larger one only
those are built that its type asks for, and nothing else in it is looked at."""


def length_fault(items: msgspec.Raw, expected: Any, path: str) -> Fault | None:
    """Return the fault of a list that is too long; nothing behind the first item too many is decoded."""
    longest = next((rule.max_length for rule in rules_of(expected) if rule.max_length), None)
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
    # A struct refuses the first item too many; a list is built as a whole first.
    fields = [(f"item_{n}", msgspec.Raw, msgspec.Raw()) for n in range(length)]
    return msgspec.defstruct("ListUpTo", fields, array_like=True, forbid_unknown_fields=True)


def check_json(text: bytes) -> None:
    """Pass if `text` is JSON throughout; of a large text only the outline is looked at.

    Raises:
        msgspec.DecodeError, RecursionError, UnicodeDecodeError: it is not.
    """
    if len(text) <= BUILT_BYTES_MAX:
        JSON.decode(text)
    else:
        msgspec.json.decode(text, type=msgspec.Raw)


def _number(text: str) -> float:
    # msgspec itself takes ten times as long for numbers with many digits.
    if not math.isfinite(number := float(text)):
        raise msgspec.DecodeError("Number out of range")
    return number


JSON = msgspec.json.Decoder(float_hook=_number)


def value_of(raw: bytes | msgspec.Raw | None, expected: type[_T]) -> _T | None:
    """Return `raw` as `expected`; None if it is not there, or is of another type."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=expected)
    except msgspec.ValidationError:
        return None


def check_faults(value: Any, path: str) -> Iterator[Fault]:
    """Yield what the `checks` of a body, and of bodies in it, find wrong; `path` is where it stands."""
    if isinstance(value, Body):
        for field in _checked_fields(type(value)):
            yield from _field_faults(value, field, getattr(value, field), path)
        yield from _within(path, value.joint_faults())
    elif isinstance(value, list) and value and isinstance(value[0], Body):
        for n, item in enumerate(value):
            yield from check_faults(item, f"{path}[{n}]")


@cache
def _checked_fields(model: type[Body]) -> tuple[str, ...]:
    """Return the fields that have checks, or may have bodies with checks in them.

    A batch of labels has hundreds of bodies; a look at all of their fields would take a while.
    """
    return tuple(
        field.name
        for field in msgspec.structs.fields(model)
        if field.name in model.checks or _may_have_bodies(field.type)
    )


def _may_have_bodies(kind: Any) -> bool:
    if parts := get_args(kind):
        return any(_may_have_bodies(part) for part in parts)
    return isinstance(kind, type) and issubclass(kind, Body)


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
    model = struct_in(expected)
    if model and (fields := value_of(raw, dict[str, msgspec.Raw])) is not None:
        yield from struct_faults(fields, model, path, hints)
        return
    item = struct_in(item_type(expected))
    if item and (fault := length_fault(raw, expected, path)):
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
    """Yield every fault of an object that should be a `model`; `path` is where it stands."""
    hints = iter(range(HINTS_MAX)) if hints is None else hints
    prefix = f"{path}." if path else ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    for key in raw:
        if key not in fields:
            instead = getattr(model, "known_elsewhere", {}).get(key)
            hint = f" {instead}" if instead else did_you_mean(key, fields, hints)
            yield Fault(f"{prefix}{key[:KEY_SHOWN]}", f"This field is not known.{hint}")
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
    if issubclass(model, Body):
        yield from _within(path, model.raw_faults(raw))


def _within(path: str, faults: Iterator[Fault]) -> Iterator[Fault]:
    """Yield faults of an object that stands at `path`."""
    for fault in faults:
        inner = f"{path}.{fault.field}" if path else fault.field
        yield msgspec.structs.replace(fault, field=inner)


def struct_in(expected: Any) -> type[msgspec.Struct] | None:
    """Return the struct type that `expected` is, alone or in a union with None."""
    candidates = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    found = [c for c in candidates if isinstance(c, type) and issubclass(c, msgspec.Struct)]
    return found[0] if found else None


def item_type(expected: Any) -> Any:
    """Return the type of the items where `expected` is a list; None where it is not."""
    if get_origin(expected) is Annotated:
        expected = get_args(expected)[0]
    return get_args(expected)[0] if get_origin(expected) is list else None


def rules_of(expected: Any) -> list[Meta]:
    """Return the rules that annotate a type."""
    rules = get_args(expected)[1:] if get_origin(expected) is Annotated else ()
    return [rule for rule in rules if isinstance(rule, Meta)]
