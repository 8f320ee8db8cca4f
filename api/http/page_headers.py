"""Headers that tell a browser to do as little as possible with an answer."""

from litestar.enums import ScopeType
from litestar.types import Message, Scope

from api.http.openapi import PAGE_POLICY

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = [
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_OTHERS = [(b"content-security-policy", _NOTHING.encode()), *_HEADERS]
_PAGES = [(b"content-security-policy", PAGE_POLICY.encode()), *_HEADERS]


_KEPT_NOWHERE = (b"cache-control", b"no-store")


async def add_page_headers(message: Message, scope: Scope) -> None:
    """Forbid browsers to frame an answer, to guess its type, to load anything for it, or to keep it.

    Pages alone may load their own files and ask the API. Litestar's `before_send`.
    """
    if scope["type"] != ScopeType.HTTP or message["type"] != "http.response.start":
        return
    headers = list(message["headers"])
    if scope["path"].startswith("/v1/"):
        headers.append(_KEPT_NOWHERE)
    if any(name == b"content-security-policy" for name, _ in headers):
        message["headers"] = headers + _HEADERS  # the page has a policy of its own
        return
    is_page = any(n == b"content-type" and v.startswith(b"text/html") for n, v in headers)
    message["headers"] = headers + (_PAGES if is_page else _OTHERS)
