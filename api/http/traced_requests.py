"""Make a span of each request that begins or changes a job, or that comes with a trace."""

from http import HTTPStatus
from typing import cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from blocks import tracing

_HEADER = b"traceparent"
_JOBS = "/v1/jobs"
_READS = {"GET", "HEAD", "OPTIONS"}


class TracedRequests(ASGIMiddleware):
    """Continue the trace of a request's `traceparent`, or begin one.

    It stands behind the check of keys, so nobody without a key makes spans. Labels and claims, thousands
    a second, are traced where their client asks for it only.
    """

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        parent = _traceparent(scope)
        route, method = scope["path_template"], str(cast(HTTPScope, scope)["method"])
        is_change = route.startswith(_JOBS) and method not in _READS
        is_wanted = is_change or parent is not None
        if not is_wanted or scope.get("user") is None:  # probes and pages are for anybody
            await next_app(scope, receive, send)
            return
        with tracing.span(f"{method} {route}", parent=parent, is_root=True, is_server=True) as note:
            note(**{"http.request.method": method, "http.route": route})
            if "job_id" in scope["path_params"]:
                note(job_id=scope["path_params"]["job_id"])

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    note(**{"http.response.status_code": message["status"]})
                    if message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        tracing.fail()
                await send(message)

            await next_app(scope, receive, send_noted)


def _traceparent(scope: Scope) -> str | None:
    """Return the header, if there is one alone and it is valid; any other begins a new trace."""
    found = [value for name, value in scope["headers"] if name == _HEADER]
    if len(found) != 1:
        return None
    text = found[0].decode("latin-1")
    return text if tracing.is_traceparent(text) else None
