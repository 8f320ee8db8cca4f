"""The cookie by which a browser is signed in, and what proves that a page of ours has asked.

The cookie is out of reach of scripts and is sent by our own pages alone (`HttpOnly`, `SameSite=Strict`).
Behind TLS its name begins with `__Host-`: then neither a page without TLS nor another host of the same
domain can plant one.
"""

import secrets
from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from api.http.errors import asked_by_other_site, wrong_csrf_token
from blocks.settings import Settings
from blocks.store import sessions

NAME = "refinery_session"
TLS_NAME = f"__Host-{NAME}"
CSRF_HEADER = "X-CSRF-Token"
_CHARACTERS_MAX = 100
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES = {"same-origin", "none"}  # none: somebody has typed the address

Connection = ASGIConnection[Any, Any, Any, Any]


def token_of(connection: Connection) -> str | None:
    """Return the token of the session that a request is made by; None if it has a key, or neither."""
    if "Authorization" in connection.headers:
        return None
    token = connection.cookies.get(_name(connection), "")
    return token if sessions.is_token(token) and len(token) <= _CHARACTERS_MAX else None


def check_page(connection: Connection, token: str) -> None:
    """Pass if a page of ours has sent this request.

    Raises:
        ApiError: 403, another site's page did, or it brings the token of another session, or it changes
            something and brings none.
    """
    refuse_other_sites(connection)
    given = connection.headers.get(CSRF_HEADER, "")
    # A page that was opened by somebody else reads nothing either.
    if given or connection.scope.get("method") not in _SAFE_METHODS:
        wanted = sessions.csrf_token(token)
        if not secrets.compare_digest(given.encode(), wanted.encode()):
            raise wrong_csrf_token()


def refuse_other_sites(connection: Connection) -> None:
    """Refuse what a page of another origin sent, where the browser says so (Fetch Metadata).

    Raises:
        ApiError: 403, it is another site's.
    """
    if connection.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES:
        raise asked_by_other_site()


def make(connection: Connection, token: str, *, age_s: int) -> Cookie:
    """Return the cookie that holds `token` for `age_s` seconds; 0 deletes it."""
    return Cookie(
        _name(connection),
        value=token,
        max_age=age_s,
        httponly=True,
        secure=_is_tls(connection),
        samesite="strict",
    )


def _name(connection: Connection) -> str:
    return TLS_NAME if _is_tls(connection) else NAME


def _is_tls(connection: Connection) -> bool:
    # A proxy that ends TLS does not always say so.
    settings: Settings = connection.app.state.settings
    return connection.scope["scheme"] == "https" or settings.public_url.startswith("https://")
