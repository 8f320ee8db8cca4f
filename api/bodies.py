"""Request bodies: strict, and with every fault reported at once."""

import difflib
import hashlib
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

from api.errors import ApiError, Fault, invalid_request, not_found
from api.hangups import told_of_hangups

JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"extra": {"type": ["object", "null"]}})]
"""A field that is kept as it was written: its numbers may have more digits than a float has.
To refuse what is no object is left to the `checks`."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request body. `checks` are rules on a field beyond its type: they raise ValueError."""

    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {}

    def __post_init__(self) -> None:
        for field, check in self.checks.items():
            if getattr(self, field) is not None:
                check(getattr(self, field))

    @classmethod
    def related_faults(cls, raw: Mapping[str, Any]) -> Iterator[Fault]:
        """Faults that lie between fields; `raw` may have any others as well."""
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
        return parse(await self.body(), data.annotation)


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

# A body of rubbish is not answered with a larger one.
_FAULTS_MAX = 100
_HINTS_MAX = 5
_KEY_SHOWN = 64


def parse(body: bytes, model: type[_B]) -> _B:
    """`body` as a `model`.

    Raises:
        ApiError: 400, with every fault.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        message = f"The body is not valid JSON: {error}"
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", message) from error
    found = _nuls(raw) if b"\\u0000" in body else iter(())
    try:
        value = msgspec.json.decode(body, type=model)
    except msgspec.ValidationError:
        value = None
        found = chain(found, _faults(raw, model, ""))
    if isinstance(raw, dict):
        found = chain(found, model.related_faults(raw))
    faults: dict[str, Fault] = {}
    for fault in islice(found, _FAULTS_MAX):
        faults.setdefault(fault.field, fault)
    if value is None or faults:
        raise invalid_request(list(faults.values()))
    return value


def _faults(raw: Any, expected: Any, path: str) -> Iterator[Fault]:
    """Each field on its own, so that one fault does not hide the next."""
    model = _struct_in(expected)
    if model and isinstance(raw, dict):
        yield from struct_faults(raw, model, path)
        return
    try:
        _convert(raw, expected)
    except msgspec.ValidationError as error:
        item = _struct_in(_item_type(expected))
        if item and isinstance(raw, list):
            found = (f for n, v in enumerate(raw) for f in _faults(v, item, f"{path}[{n}]"))
            first = next(found, None)
            if first:
                yield from _faults(raw, _list_of_anything(expected), path)  # too many, too few
                yield from chain([first], found)
                return
        yield Fault(path or "body", _readable(error))


def struct_faults(
    raw: Mapping[str, Any], model: type[msgspec.Struct], path: str
) -> Iterator[Fault]:
    """Every fault of an object that should be a `model`; `path` is where it stands."""
    prefix = f"{path}." if path else ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    unknown = [key for key in raw if key not in fields]
    for n, key in enumerate(unknown):
        # To look for a likeness takes time, and whoever mistypes does it once or twice.
        near = difflib.get_close_matches(key[:_KEY_SHOWN], fields, n=1) if n < _HINTS_MAX else []
        hint = f" Did you mean {near[0]}?" if near else ""
        yield Fault(f"{prefix}{key[:_KEY_SHOWN]}", f"This field is not known.{hint}")
    checks = getattr(model, "checks", {})
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                yield Fault(f"{prefix}{name}", "This field is required.")
            continue
        found = list(_faults(raw[name], field.type, f"{prefix}{name}"))
        yield from found
        if not found and name in checks and raw[name] is not None:
            try:
                checks[name](_convert(raw[name], field.type))
            except ValueError as error:
                yield Fault(f"{prefix}{name}", str(error))


def _convert(raw: Any, expected: Any) -> Any:
    if expected == JsonObject:
        return msgspec.Raw(msgspec.json.encode(raw))
    return msgspec.convert(raw, expected)


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


def _readable(error: msgspec.ValidationError) -> str:
    message, _, at = str(error).partition(" - at `$")
    return f"{message}." if not at.strip("`") else f"{message} (at {at.strip('`')})."


def _nuls(raw: Any) -> Iterator[Fault]:
    """PostgreSQL cannot keep U+0000, so it is refused wherever it stands."""
    waiting = [(raw, "")]
    while waiting:  # not by recursion: a body may be nested deeper than that goes
        value, path = waiting.pop()
        if isinstance(value, str) and "\x00" in value:
            yield Fault(path or "body", "The character U+0000 cannot be stored.")
        elif isinstance(value, dict):
            for key in value:
                name = key.replace("\x00", "\\u0000")
                inner = f"{path}.{name}"[:_KEY_SHOWN].lstrip(".")
                waiting += [(key, inner), (value[key], inner)]
        elif isinstance(value, list):
            waiting += [(item, f"{path}[{n}]"[:_KEY_SHOWN]) for n, item in enumerate(value)]
