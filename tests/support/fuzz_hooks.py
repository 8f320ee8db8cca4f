"""What Schemathesis loads beside its own checks, in its own process (`SCHEMATHESIS_HOOKS`).

Nothing of Refinery is imported: the document is all that it knows.
"""

import os
import re
from http import HTTPStatus
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

_OPEN = {"/v1/session"}  # to sign in
_BEYOND_SCHEMA = {"cursor", "option"}  # what a page gave; one of a job's
_CODE = re.compile(r"[a-z]+(_[a-z0-9]+)*")
_INSIDE = re.compile(r"Traceback|psycopg|litestar|msgspec|\bselect .* from\b", re.IGNORECASE)


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Wait for nothing, which takes a minute, and revoke no key that is in use."""
    if case.query.get("wait") in range(1, 61):
        case.query["wait"] = 0
    # A list of keys has the one in use as well.
    if case.path_parameters.get("key_id") == os.environ["FUZZ_KEY_ID"]:
        case.path_parameters["key_id"] = "key_of_nobody"


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Return False for a request that is good by the schema, and refused by a rule that it cannot say.

    A body has rules between its fields, and of URLs and characters.
    """
    if not isinstance(failure, RejectedPositiveData):
        return True
    fields = {detail["field"] for detail in response.json().get("details", ())}
    return not case.operation.body and not fields & _BEYOND_SCHEMA


@schemathesis.check
def error_body(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Every error is `{"error", "code", "details"?}`, and shows nothing of the inside."""
    if response.status_code < HTTPStatus.BAD_REQUEST or case.method == "HEAD":
        return
    body = response.json()
    assert isinstance(body, dict), response.text
    assert {"error", "code"} <= body.keys() <= {"error", "code", "details"}, response.text
    assert body["error"], response.text
    assert _CODE.fullmatch(body["code"]), response.text
    for detail in body.get("details", ()):
        assert {"field", "message"} <= detail.keys() <= {"field", "message", "code"}, detail
    assert not _INSIDE.search(body["error"]), response.text


@schemathesis.check
def nothing_without_a_key(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A request without a key is answered 401, whatever it asks for."""
    is_open = case.operation.path in _OPEN or case.method == "OPTIONS"
    if os.environ["FUZZ_KEY_ID"] or is_open or not case.operation.path.startswith("/v1/"):
        return
    wanted = {HTTPStatus.UNAUTHORIZED, HTTPStatus.METHOD_NOT_ALLOWED}
    assert response.status_code in wanted, (response.status_code, response.text)
