"""Authenticate to Prefect's server: by an auth string, and by a CSRF token where it wants one."""

import base64
from collections.abc import Generator
from uuid import uuid4

import httpx
import msgspec

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class _Token(msgspec.Struct):
    token: str


class PrefectAuth(httpx.Auth):
    """Authenticate requests to Prefect; safe to use from several threads.

    A token is fetched when the server refuses a request for want of one, so a server without the
    protection costs nothing, and one with it costs two more requests an hour.
    https://docs.prefect.io/v3/advanced/security-settings
    """

    requires_response_body = True

    def __init__(self, auth_string: str, api_url: str) -> None:
        """`auth_string` is `user:password`, or empty where the server asks for none."""
        encoded = base64.b64encode(auth_string.encode()).decode()
        self._authorization = {"Authorization": f"Basic {encoded}"} if auth_string else {}
        self._token_url = f"{api_url.rstrip('/')}/csrf-token"
        self._csrf_headers: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request; once more with a new CSRF token if the server asks for it."""
        request.headers.update(self._authorization)
        if request.method in _SAFE_METHODS:
            yield request
            return
        request.headers.update(self._csrf_headers)
        response = yield request
        if response.status_code != httpx.codes.FORBIDDEN or b"CSRF" not in response.content:
            return
        # Each token is for a new client id, so two threads that ask at once do not spoil each other's.
        client = str(uuid4())
        answer = yield httpx.Request(
            "GET", self._token_url, params={"client": client}, headers=self._authorization
        )
        if answer.is_success:
            token = msgspec.json.decode(answer.content, type=_Token).token
            self._csrf_headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
            request.headers.update(self._csrf_headers)
            yield request
