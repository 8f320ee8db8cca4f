"""Read the bodies of requests as their types, or refuse them with every fault."""

import hashlib
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from api.http.errors import ApiError, invalid_request
from blocks.bodies.fields import Body, read_body
from blocks.domain.wrong_values import why_not_json

_B = TypeVar("_B", bound=Body)


def digest(*asked: Any) -> bytes:
    """Return the SHA-256 of the canonical request, for idempotency keys and entity tags."""
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()


def parse(body: bytes, model: type[_B]) -> _B:
    """Return `body` as a `model`, in a time that the size of the body alone bounds.

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
