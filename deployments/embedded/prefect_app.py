"""Serve Prefect behind two rules of ours, for which it has no settings.

Run by `python -m uvicorn --factory deployments.embedded.prefect_app:create`.
"""

import base64
import hashlib
import os
import time

import psycopg
from prefect.server.api.server import create_app
from sqlalchemy import make_url
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.embedded.prefect_hosts import HOSTS, SIGN_IN_PATH

# Prefect's UI keeps the password under this name, and takes none from a link. The part after `#` is
# never sent to a server, and `replace` leaves it in no history.
_SCRIPT = """
const password = decodeURIComponent(location.hash.slice(1));
if (password) localStorage.setItem("prefect-password", btoa(password));
location.replace("/");
"""
_PAGE = f"<!doctype html><meta charset=utf-8><title>Prefect</title><script>{_SCRIPT}</script>"
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'sha256-{_SCRIPT_HASH}'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}

_CONNECT_S = 2
_POLL_S = 0.1


class _SignIn:
    """Answer the link that signs a browser in, and hand other requests on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == SIGN_IN_PATH:
            await HTMLResponse(_PAGE, headers=_HEADERS)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def create() -> ASGIApp:
    """Return Prefect's API and UI for this machine's names alone, with a page that signs a browser in.

    PostgreSQL starts while this module is imported; wait for it here.
    """
    _wait_for_database()
    return TrustedHostMiddleware(_SignIn(create_app(final=True)), allowed_hosts=HOSTS)


def _wait_for_database() -> None:
    url = make_url(os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"])
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            psycopg.connect(plain, connect_timeout=_CONNECT_S).close()
        except psycopg.OperationalError:
            time.sleep(_POLL_S)
        else:
            return
