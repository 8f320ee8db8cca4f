"""What requests to Prefect carry, and how often a CSRF token is asked for."""

import base64

import httpx
import pytest

from blocks.prefect.auth import PrefectAuth

URL = "http://prefect:4200/api"
BASIC = "Basic " + base64.b64encode(b"user:pass:wor d").decode()
NO_TOKEN = {"detail": "Missing CSRF token."}


class Server:
    """Plays Prefect's; `tokens` has the token of each client, where it wants any."""

    def __init__(self, *, wants_token: bool) -> None:
        self.wants_token = wants_token
        self.tokens: dict[str, str] = {}
        self.seen: list[str] = []
        self.authorizations: set[str | None] = set()
        self.http = httpx.Client(
            base_url=URL,
            auth=PrefectAuth("user:pass:wor d", URL),
            transport=httpx.MockTransport(self._answer),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path}")
        self.authorizations.add(request.headers.get("Authorization"))
        if request.url.path == "/api/csrf-token":
            client = request.url.params["client"]
            self.tokens[client] = f"token of {client}"
            return httpx.Response(200, json={"token": self.tokens[client], "client": client})
        if request.url.path == "/api/forbidden":
            return httpx.Response(403, json={"detail": "Not yours."})
        if request.method != "GET" and self.wants_token and not self._has_token(request):
            return httpx.Response(403, json=NO_TOKEN)
        return httpx.Response(200, content=request.content)

    def _has_token(self, request: httpx.Request) -> bool:
        client = str(request.headers.get("Prefect-Csrf-Client"))
        return self.tokens.get(client, "none") == str(request.headers.get("Prefect-Csrf-Token"))


def test_a_server_without_csrf_protection_is_asked_for_no_token() -> None:
    server = Server(wants_token=False)
    assert server.http.post("/flows/", json=1).is_success
    assert server.http.get("/flows/1").is_success
    assert server.seen == ["POST /api/flows/", "GET /api/flows/1"]
    assert server.authorizations == {BASIC}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_token_is_asked_for_once_and_again_when_it_is_no_longer_good(method: str) -> None:
    server = Server(wants_token=True)
    unsafe = f"{method} /api/flows/"
    for _ in range(2):
        answer = server.http.request(method, "/flows/", json=["body"])
        assert answer.is_success
        assert answer.json() == ["body"]
    assert server.seen == [unsafe, "GET /api/csrf-token", unsafe, unsafe]
    server.tokens.clear()
    assert server.http.request(method, "/flows/", json=1).is_success
    assert server.authorizations == {BASIC}


def test_a_refusal_of_another_kind_is_handed_on() -> None:
    server = Server(wants_token=True)
    assert server.http.post("/forbidden").status_code == 403
    assert server.seen == ["POST /api/forbidden"]


def test_no_auth_string_sends_none() -> None:
    server = Server(wants_token=False)
    server.http.auth = PrefectAuth("", URL)
    server.http.get("/health")
    assert server.authorizations == {None}
