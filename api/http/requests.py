"""Read bodies strictly, and refuse unknown parameters, in place of Litestar."""

from collections import Counter
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request
from litestar.connection.base import empty_receive, empty_send
from litestar.params import QueryParameter
from litestar.types import Receive, Scope, Send
from litestar.typing import FieldDefinition

from api.http.bodies import parse
from api.http.body_limits import BodyLimits
from api.http.errors import ApiError, invalid_request, not_found, parameter_fault
from api.http.hangups import raise_on_hangup
from api.http.threads import run
from blocks.bodies.fields import Fault
from blocks.domain.wrong_values import HINTS_MAX, did_you_mean

# Larger bodies are parsed in a thread, so that the event loop serves others meanwhile.
_LOOP_BYTES_MAX = 64 * 1024
_JSON = "application/json"
_ANY_QUERY = "takes_any_query"
ANY_QUERY = {_ANY_QUERY: True}
"""The `opt` of a page whose scripts read the query themselves."""


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is read by us: strict types, unknown fields refused, all faults.

    To receive raises `ClientGone` when the client hangs up.
    """

    def __init__(
        self, scope: Scope, receive: Receive = empty_receive, send: Send = empty_send
    ) -> None:
        super().__init__(scope, raise_on_hangup(receive), send)

    async def json(self) -> Any:
        """Return the body as the type that its handler declares.

        Raises:
            ApiError: 415 for another type, 400 for what is not JSON or not what is expected.
        """
        # Nearly all send it like this, and Litestar takes a while to see that there are no parameters.
        is_json = self.headers.get("content-type") == _JSON or self.content_type[0] == _JSON
        if not is_json:
            raise ApiError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Send JSON, with Content-Type: application/json.",
            )
        data = self.route_handler.parsed_data_field
        assert data is not None  # Litestar asks only for a body that the route declares
        body = await self.body()
        limits: BodyLimits = self.app.state.body_limits
        try:
            if len(body) <= _LOOP_BYTES_MAX:
                return parse(body, data.annotation)
            async with limits.turn(self):
                return await run(self.app.state.threads.parsing, parse, body, data.annotation)
        except ApiError as error:
            if error.status == HTTPStatus.BAD_REQUEST:
                limits.count_refused(self, len(body))
            raise


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Refuse query parameters that are unknown or repeated, and a body that is missing.

    None must be ignored, or the answer would be another one than was asked for.
    PostgreSQL has no U+0000, so nothing has an id with it.

    Raises:
        ApiError: 400, naming each parameter; 404 for an id that nothing can have.
    """
    for name, value in request.path_params.items():
        if "\x00" in str(value):
            raise not_found(name.removesuffix("_id"))
    if request.scope["query_string"] and not request.route_handler.opt.get(_ANY_QUERY):
        _check_query(request)
    if request.route_handler.parsed_data_field:
        limits: BodyLimits = request.app.state.body_limits
        limits.take(request)
        if not await request.body():
            message = "The body is empty; send a JSON object."
            raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", message)


def _check_query(request: Request[Any, Any, Any]) -> None:
    known = {
        definition.name or name
        for name, field in request.route_handler.parsed_fn_signature.parameters.items()
        if isinstance(definition := field.kwarg_definition, QueryParameter)
    }
    unknown = sorted(name for name in request.query_params if name not in known)
    if unknown:
        hints = iter(range(HINTS_MAX))
        raise invalid_request(
            [
                Fault(name, f"This parameter is not known.{did_you_mean(name, known, hints)}")
                for name in unknown
            ]
        )
    times = Counter(name for name, _ in request.query_params.multi_items())
    if repeated := sorted(name for name, count in times.items() if count > 1):
        message = "This parameter is there more than once."
        raise invalid_request([Fault(name, message) for name in repeated])
    nuls = [name for name, value in request.query_params.multi_items() if "\x00" in value]
    if nuls:
        message = "The character U+0000 cannot be part of this."
        raise invalid_request([Fault(name, message) for name in nuls])
    loose = [
        parameter_fault(request, name, field)
        for name, field in request.route_handler.parsed_fn_signature.parameters.items()
        if name in request.query_params and _is_loose(field, request.query_params[name])
    ]
    if loose:
        raise invalid_request(loose)


def _is_loose(field: FieldDefinition, text: str) -> bool:
    """Return True for a text that Litestar takes for more than it says.

    It takes null for a parameter that is not there, so that a list would be unfiltered, and a number
    for a time.
    """
    if field.has_inner_subclass_of(datetime):
        try:
            msgspec.convert(text, datetime)
        except msgspec.ValidationError:
            return True
    is_any_text = field.has_inner_subclass_of(str) and not field.has_inner_subclass_of(Enum)
    return text.lower() == "null" and field.is_optional and not is_any_text
