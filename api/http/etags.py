"""Entity tags: a client that has the latest answer is not sent it again (RFC 9110, 13.1.2)."""

from http import HTTPStatus
from typing import Annotated

import msgspec
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter

from api.http.bodies import digest

_DIGITS = 32

IfNoneMatch = Annotated[
    str | None,
    HeaderParameter(name="If-None-Match", description="The ETag of the answer that is known."),
]
NOT_MODIFIED = {
    int(HTTPStatus.NOT_MODIFIED): ResponseSpec(None, description="It is as it was at that ETag.")
}


def etag_of(body: msgspec.Struct) -> str:
    """Return the entity tag of a body; weak, because the body may go out compressed or not."""
    return f'W/"{digest(body).hex()[:_DIGITS]}"'


def matches(if_none_match: str, etag: str) -> bool:
    """Return whether the header names `etag`, by weak comparison."""
    named = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return "*" in named or etag.removeprefix("W/") in named
