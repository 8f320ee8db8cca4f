"""Request bodies: strict, and with every fault reported at once."""

import difflib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from itertools import chain, islice
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import msgspec
from litestar import Request
from litestar.connection.base import empty_receive, empty_send
from litestar.params import QueryParameter
from litestar.types import Receive, Scope, Send
from msgspec import Meta

from api.choices import readable, shortened
from api.errors import ApiError, Fault, invalid_request, not_found
from api.hangups import told_of_hangups
from api.threads import Threads, run

JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"extra": {"type": ["object", "null"]}})]
"""A field that is kept as it was written: its numbers may have more digits than a float has.
To refuse what is no object is left to the `checks`."""


RawObject = Mapping[str, msgspec.Raw]
"""An object of which only the names are decoded: `value_of` decodes a value."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A request body. `checks` are rules on a field beyond its type: they raise ValueError.

    They are applied by `parse`, after the types and the lengths of everything.
    """

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {}

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield the faults that lie between fields; `raw` may have any others as well."""
        del raw
        yield from ()


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is read by us: strict types, unknown fields refused, all faults.

    To receive raises `ClientGone` when the client hangs up.
    """

    def __init__(
        self, scope: Scope, receive: Receive = empty_receive, send: Send = empty_send
    ) -> None:
        super().__init__(scope, told_of_hangups(receive), send)

    async def json(self) -> Any:
        """The body as the type that its handler declares.

        Raises:
            ApiError: 415 for another type, 400 for what is not JSON or not what is expected.
        """
        content_type, _ = self.content_type
        if content_type != "application/json":
            raise ApiError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Send JSON, with Content-Type: application/json.",
            )
        data = self.route_handler.parsed_data_field
        assert data is not None  # nobody asks for the body of a route that declares none
        body = await self.body()
        if len(body) <= _LOOP_BYTES_MAX:
            return parse(body, data.annotation)
        threads: Threads = self.app.state.threads
        return await run(threads.parsing, parse, body, data.annotation)


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Refuse a query parameter that the route does not know, and a body that is missing.

    A typing error must not be ignored: who asks for `?afer=9` would get something else. Nor can
    PostgreSQL be asked for U+0000, so that nothing has an id with it.

    Raises:
        ApiError: 400, naming each parameter; 404 for an id that nothing can have.
    """
    for name, value in request.path_params.items():
        if "\x00" in str(value):
            raise not_found(name.removesuffix("_id"))
    handler = request.route_handler
    known = {
        definition.name or name
        for name, field in handler.parsed_fn_signature.parameters.items()
        if isinstance(definition := field.kwarg_definition, QueryParameter)
    }
    unknown = sorted(name for name in request.query_params if name not in known)
    if unknown:
        raise invalid_request([Fault(name, "This parameter is not known.") for name in unknown])
    nuls = [name for name, value in request.query_params.multi_items() if "\x00" in value]
    if nuls:
        message = "The character U+0000 cannot be part of this."
        raise invalid_request([Fault(name, message) for name in nuls])
    if handler.parsed_data_field and not await request.body():
        message = "The body is empty; send a JSON object."
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", message)


def digest(*asked: Any) -> bytes:
    """The SHA-256 of what a request asks for, by which it is known when it comes again."""
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()


_B = TypeVar("_B", bound=Body)
_T = TypeVar("_T")

# A body of rubbish is not answered with a larger one.
_FAULTS_MAX = 100
_HINTS_MAX = 5
_KEY_SHOWN = 64
# Larger bodies are parsed in a thread, so that the event loop serves others meanwhile.
_LOOP_BYTES_MAX = 64 * 1024
# To build all objects of a body takes up to 0.2 s a MiB. Of a larger one only those are built that
# its type asks for, and what else it holds is not looked at.
_BUILT_BYTES_MAX = 256 * 1024
_NUL = "The character U+0000 cannot be stored."


def parse(body: bytes, model: type[_B]) -> _B:
    """`body` as a `model`. The time that it takes is bounded by the size of the body alone.

    Raises:
        ApiError: 400, with every fault, or the first 100 of them.
    """
    try:
        value, found = _read(body, model)
        faults: dict[str, Fault] = {}
        for fault in islice(found, _FAULTS_MAX):
            faults.setdefault(fault.field, fault)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        message = f"The body is not valid JSON: {error}"
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", message) from error
    if value is None or faults:
        raise invalid_request(list(faults.values()))
    return value


def _read(body: bytes, model: type[_B]) -> tuple[_B | None, Iterator[Fault]]:
    """The value, where its types are right, and the faults, which are looked for one by one."""
    fields = None
    if len(body) > _BUILT_BYTES_MAX:
        fields = value_of(body, dict[str, msgspec.Raw])
        if too_long := list(_length_faults(fields or {}, model)):
            return None, iter(too_long)
    try:
        value = msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        check_json(body)
        fields = fields or value_of(body, dict[str, msgspec.Raw])
        if fields is None:
            return None, chain(_nuls(body), [Fault("body", readable(error, model))])
        value, found = None, struct_faults(fields, model, "")
    else:
        fields = fields or value_of(body, dict[str, msgspec.Raw]) or {}
        found = check_faults(value, "")
    return value, chain(_nuls(body), found, model.related_faults(fields))


def _length_faults(fields: RawObject, model: type[Body]) -> Iterator[Fault]:
    """Lists of objects that are too long, found before any of the objects is built."""
    for field in msgspec.structs.fields(model):
        if not _struct_in(_item_type(field.type)):
            continue
        name = field.encode_name
        items = value_of(fields.get(name), list[msgspec.Raw])
        if items is not None and (fault := _length_fault(items, field.type, name)):
            yield fault


def _length_fault(items: list[msgspec.Raw], expected: Any, path: str) -> Fault | None:
    try:
        msgspec.convert(items, _list_of_anything(expected))
    except msgspec.ValidationError as error:
        return Fault(path, readable(error, expected))
    return None


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
    if item and (items := value_of(raw, list[msgspec.Raw])) is not None:
        if fault := _length_fault(items, expected, path):
            yield fault  # and nothing of what it holds
            return
        for n, each in enumerate(items):
            yield from _faults(each, item, f"{path}[{n}]", hints)
        return
    yield Fault(path or "body", readable(error, expected))


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
    near = difflib.get_close_matches(key[:_KEY_SHOWN], fields, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _struct_in(expected: Any) -> type[msgspec.Struct] | None:
    """The struct type that `expected` is, or that it is or None."""
    candidates = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    found = [c for c in candidates if isinstance(c, type) and issubclass(c, msgspec.Struct)]
    return found[0] if found else None


def _item_type(expected: Any) -> Any:
    if get_origin(expected) is Annotated:
        expected = get_args(expected)[0]
    return get_args(expected)[0] if get_origin(expected) is list else None


def _list_of_anything(expected: Any) -> Any:
    rules = get_args(expected)[1:] if get_origin(expected) is Annotated else ()
    return Annotated[(list[Any], *rules)] if rules else list[Any]


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
