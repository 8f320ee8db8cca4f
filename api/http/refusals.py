"""The errors of routes for the OpenAPI document, each as it is sent."""

from collections.abc import Mapping
from http import HTTPStatus
from itertools import permutations

import msgspec
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example

from api.http.bodies import parse
from api.http.errors import (
    ADMINS_KEY,
    ANNOTATORS_KEY,
    BY_STATUS,
    CUSTOMERS_KEY,
    TIMED_OUT,
    UNAVAILABLE,
    UNAVAILABLE_BY,
    ApiError,
    ErrorBody,
    asked_by_other_site,
    conflict,
    invalid_request,
    wrong_csrf_token,
    wrong_key,
)
from api.http.rate_limits import REQUESTS, rate_limited
from blocks.bodies.fields import Body, Fault
from blocks.domain.errors import IdempotencyConflict
from blocks.store.quotas import QuotaExceeded

_REQUESTS_PER_MINUTE = 12_000

Refusal = ApiError | IdempotencyConflict | QuotaExceeded


def _by_status(status: int) -> ErrorBody:
    code, message = BY_STATUS[status]
    return ErrorBody(message, code)


_KINDS = [CUSTOMERS_KEY, ANNOTATORS_KEY, ADMINS_KEY]
_TO_SESSIONS = [asked_by_other_site().body, wrong_csrf_token().body]
_ALWAYS: Mapping[int, list[ErrorBody]] = {
    400: [invalid_request([Fault("page", "This parameter is not known.")]).body],
    401: [_by_status(401)],
    403: [
        *(wrong_key(wanted=wanted, given=given).body for wanted, given in permutations(_KINDS, 2)),
        *_TO_SESSIONS,
    ],
    408: [msgspec.convert(TIMED_OUT, ErrorBody)],
    429: [rate_limited(REQUESTS, _REQUESTS_PER_MINUTE, retry_after_s=1).body],
    503: [body for body, _ in (UNAVAILABLE, *UNAVAILABLE_BY.values())],
}
_WITH_BODY = {413: [_by_status(413)], 415: [_by_status(415)]}


def refusals(
    *own: Refusal, takes: type[Body] | None = None, any_key: bool = False
) -> dict[int, ResponseSpec]:
    """Return the errors that a route under `/v1` answers with, by status.

    Those are the errors of any such route, those of a body if it `takes` one, and its `own`. With
    `any_key` it refuses no kind of key.
    """
    found = {status: list(bodies) for status, bodies in _ALWAYS.items()}
    if any_key:
        found[HTTPStatus.FORBIDDEN] = list(_TO_SESSIONS)
    if takes:
        found |= _WITH_BODY | {400: [_refusal(takes)]}
    for refusal in own:
        status, body = _answered(refusal)
        found[status] = [*found.get(status, ()), body]
    return {status: _response(status, found[status]) for status in sorted(found)}


def _refusal(model: type[Body]) -> ErrorBody:
    """Return the error for a body that has one misspelt field and nothing else."""
    name = model.__struct_fields__[0]
    try:
        parse(msgspec.json.encode({f"{name}_": None}), model)
    except ApiError as error:
        return error.body
    raise AssertionError  # no body has that field


def _answered(refusal: Refusal) -> tuple[int, ErrorBody]:
    match refusal:
        case QuotaExceeded():
            return HTTPStatus.TOO_MANY_REQUESTS, ErrorBody(refusal.message, refusal.quota_code)
        case IdempotencyConflict():
            refusal = conflict(refusal.code, refusal.message)
    return refusal.status, refusal.body


def _response(status: int, bodies: list[ErrorBody]) -> ResponseSpec:
    return ResponseSpec(
        ErrorBody,
        generate_examples=False,
        description=HTTPStatus(status).phrase,
        examples=[
            Example(id=f"{body.code} {n}" if n > 1 else body.code, value=msgspec.to_builtins(body))
            for n, body in enumerate(bodies, start=1)
        ],
    )
