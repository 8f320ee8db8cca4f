"""Answer every error as `{"error", "code", "details"?}`, by one table from exception to response."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import NoneType
from typing import Annotated, Any, get_args

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.typing import FieldDefinition
from msgspec import Meta

from api.http.hangups import ClientGone
from api.http.places import Overloaded
from blocks import logs
from blocks.bodies.fields import Fault
from blocks.domain.errors import IdempotencyConflict, RefineryError, Transient
from blocks.domain.wrong_values import must_be, shorten
from blocks.store.database import Locked
from blocks.store.deleted_jobs import JobDeleted
from blocks.store.quotas import QuotaExceeded

logger = logs.get_logger("refinery.api")

_CLIENT_CLOSED_REQUEST = 499
_RULES = ("ge", "le", "min_length", "max_length")
TIMED_OUT = {"error": "The request was not complete in time.", "code": "request_timeout"}
"""The body of a 408. The server answers this and the next two without the application."""
HEAD_TOO_LARGE = {
    "error": "The URL and the headers may have 64 KiB together.",
    "code": "headers_too_large",
}
INVALID_HTTP = {
    "error": "This is not HTTP/1.1, or more than 100 requests were sent ahead of their answers.",
    "code": "invalid_http",
}


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error; `details` only where fields are at fault."""

    error: str
    """One sentence that a person can act on."""
    code: str
    """The name of the error for programs; it stays the same."""
    details: tuple[Fault, ...] = ()
    """Every field that is at fault, or the first 100 of them."""


CUSTOMERS_KEY = "a customer's key (sk_…)"
ANNOTATORS_KEY = "an annotator's key (ak_…)"
ADMINS_KEY = "an operator's key (op_…)"


class ApiError(RefineryError):
    """The request is answered with an error."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        details: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(message, code, tuple(details))
        self.headers = headers


def wrong_key(*, wanted: str, given: str) -> ApiError:
    """Return a 403: the route takes another kind of key."""
    return ApiError(
        HTTPStatus.FORBIDDEN, "forbidden", f"This takes {wanted}, and yours is {given}."
    )


def not_a_reviewer() -> ApiError:
    """Return a 403: the key is an annotator's, and has not the role of a reviewer."""
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "not_a_reviewer",
        "This takes a reviewer's key, which `refinery keys add --reviewer` makes.",
    )


def wrong_csrf_token() -> ApiError:
    """Return a 403: a browser's request that would change something may be another site's."""
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "csrf_token",
        "A page that is signed in sends the csrf_token of GET /v1/session as X-CSRF-Token.",
    )


def asked_by_other_site() -> ApiError:
    """Return a 403: the page of another origin asks by a session's cookie, or for one."""
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "other_site",
        "Sessions are for the pages of this service; other sites' pages need a key.",
    )


def with_faults(status: HTTPStatus, code: str, faults: Sequence[Fault]) -> ApiError:
    """Return an error with all faults as details; its sentence has the first and counts the others."""
    first = f"{faults[0].field}: {faults[0].message}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ApiError(status, code, first + more, faults)


def invalid_request(faults: Sequence[Fault]) -> ApiError:
    """Return a 400 with every fault that was found."""
    return with_faults(HTTPStatus.BAD_REQUEST, "invalid_request", faults)


def unknown_cursor() -> ApiError:
    """Return a 400 for a `cursor` that no page has given."""
    return invalid_request([Fault("cursor", "This is not the next_cursor of any page.")])


def not_found(what: str) -> ApiError:
    """Return a 404, the same for an id that never existed and for one of another customer."""
    return ApiError(HTTPStatus.NOT_FOUND, f"{what}_not_found", f"There is no such {what}.")


def conflict(code: str, message: str) -> ApiError:
    """Return a 409."""
    return ApiError(HTTPStatus.CONFLICT, code, message)


def too_many_requests(
    code: str, message: str, retry_after_s: int, headers: Mapping[str, str] | None = None
) -> ApiError:
    """Return a 429 that says when to come again."""
    more = {"Retry-After": str(retry_after_s), **(headers or {})}
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, code, message, headers=more)


UNAVAILABLE = ErrorBody("The service is not available just now; try again.", "unavailable"), 5
UNAVAILABLE_BY: dict[type[Transient], tuple[ErrorBody, int]] = {
    Locked: (ErrorBody("Other work holds what this needs; try again.", "locked"), 2),
    Overloaded: (ErrorBody("Too many requests wait already; try again.", "overloaded"), 2),
}

_Handled = Request[Any, Any, Any]


def _respond(
    status: int, body: ErrorBody, headers: Mapping[str, str] | None = None
) -> Response[ErrorBody]:
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)


def handle_api_error(_: _Handled, error: ApiError) -> Response[ErrorBody]:
    """Answer an error of ours, which carries its response."""
    return _respond(error.status, error.body, error.headers)


def handle_conflict(_: _Handled, error: IdempotencyConflict) -> Response[ErrorBody]:
    """Answer 409."""
    return _respond(HTTPStatus.CONFLICT, ErrorBody(error.message, error.code))


def handle_job_deleted(request: _Handled, _: JobDeleted) -> Response[ErrorBody]:
    """Answer 404, as a moment later."""
    return handle_api_error(request, not_found("job"))


def handle_quota(_: _Handled, error: QuotaExceeded) -> Response[ErrorBody]:
    """Answer 429, and say when asking again is worth it."""
    body = ErrorBody(error.message, error.quota_code)
    headers = {"Retry-After": str(error.retry_after_s)}
    return _respond(HTTPStatus.TOO_MANY_REQUESTS, body, headers)


def handle_client_gone(request: _Handled, error: ClientGone) -> Response[ErrorBody]:
    """Answer 499, as proxies count it; nobody sees it."""
    logger.info("request.client_gone", path=request.url.path)
    return _respond(_CLIENT_CLOSED_REQUEST, ErrorBody(error.message, error.code))


def handle_transient(_: _Handled, error: Transient) -> Response[ErrorBody]:
    """Answer 503: the failure is not the client's, and time may mend it."""
    logger.warning("request.unavailable", code=error.code, reason=error.message)
    body, retry_after_s = UNAVAILABLE_BY.get(type(error), UNAVAILABLE)
    return _respond(HTTPStatus.SERVICE_UNAVAILABLE, body, {"Retry-After": str(retry_after_s)})


BY_STATUS: dict[int, tuple[str, str]] = {
    400: ("invalid_request", "The request is malformed."),
    401: ("invalid_api_key", "invalid API key"),
    403: ("forbidden", "This kind of key may not do that."),
    404: ("not_found", "There is no such page."),
    405: ("method_not_allowed", "This page does not know that method."),
    413: ("body_too_large", "The body is too large."),
    415: ("unsupported_media_type", "Send JSON, with Content-Type: application/json."),
}


def handle_http_exception(request: _Handled, error: HTTPException) -> Response[ErrorBody]:
    """Answer what Litestar raises, by its status."""
    if error.status_code not in BY_STATUS:
        return handle_unexpected(request, error)
    if faults := _parameter_faults(request, error):
        return handle_api_error(request, invalid_request(faults))
    code, message = BY_STATUS[error.status_code]
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return _respond(error.status_code, ErrorBody(message, code), headers)


def _parameter_faults(request: _Handled, error: HTTPException) -> list[Fault]:
    """Return a fault for each parameter that Litestar has found wrong, with what it may be."""
    wrong = {each.get("key") for each in error.extra} if isinstance(error.extra, list) else set()
    if not wrong:
        return []  # a 404 has no handler to look at
    return [
        parameter_fault(request, name, field)
        for name, field in request.route_handler.parsed_fn_signature.parameters.items()
        if name in wrong
    ]


def parameter_fault(request: _Handled, name: str, field: FieldDefinition) -> Fault:
    """Return what a parameter must be, beside what was given."""
    definition = field.kwarg_definition
    rules = {rule: getattr(definition, rule, None) for rule in _RULES}
    # `| None` says that the parameter may be left out: nothing in a URL or a header is null.
    (kind,) = (
        part for part in get_args(field.annotation) or (field.annotation,) if part is not NoneType
    )
    expected: Any = Annotated[kind, Meta(**{rule: n for rule, n in rules.items() if n is not None})]
    name = getattr(definition, "name", None) or name
    given = request.query_params.get(name)
    return Fault(name, must_be(expected, "" if given is None else repr(shorten(given))))


def handle_unexpected(request: _Handled, error: Exception) -> Response[ErrorBody]:
    """Answer 500: the log has the cause, the answer does not."""
    logger.error("request.failed", path=request.url.path, exc_info=error)
    body = ErrorBody("Something went wrong on our side; the operators can see it.", "internal")
    return _respond(HTTPStatus.INTERNAL_SERVER_ERROR, body)


HANDLERS: dict[int | type[Exception], Any] = {
    ApiError: handle_api_error,
    IdempotencyConflict: handle_conflict,
    JobDeleted: handle_job_deleted,
    ClientGone: handle_client_gone,
    QuotaExceeded: handle_quota,
    Transient: handle_transient,
    HTTPException: handle_http_exception,
    Exception: handle_unexpected,
}
