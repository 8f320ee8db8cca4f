"""Bodies of requests as their types, or as the answer that refuses them."""

import hashlib
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from api.http.errors import ApiError, invalid_request
from blocks.bodies.fields import Body, read_body
from blocks.domain.wrong_values import why_not_json

_B = TypeVar("_B", bound=Body)


def digest(*asked: Any) -> bytes:
    """The SHA-256 of what a request asks for, by which it is known when it comes again."""
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()


def parse(body: bytes, model: type[_B]) -> _B:
    """`body` as a `model`. The time that it takes is bounded by the size of the body alone.

    Raises:
        ApiError: 400, with every fault, or the first 100 of them.
    """
    try:
        value, faults = read_body(body, model)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        message = f"The body is not valid JSON: {why_not_json(error)}"
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", message) from error
    if value is None or faults:
        raise invalid_request(faults)
    return value
