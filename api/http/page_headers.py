"""Headers that tell a browser to do as little as possible with an answer."""

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import Message, Scope

from api.http.openapi import PAGE_POLICY

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def add_page_headers(message: Message, scope: Scope) -> None:
    """Forbid browsers to frame an answer, to guess its type or to load anything for it.

    The page of the reference alone may load its own files and ask the API. Litestar's `before_send`.
    """
    if scope["type"] != ScopeType.HTTP or message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    is_page = headers.get("content-type", "").startswith("text/html")
    headers["Content-Security-Policy"] = PAGE_POLICY if is_page else _NOTHING
    for name, value in _HEADERS.items():
        headers[name] = value
