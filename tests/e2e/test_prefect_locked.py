"""Nobody without its password writes to the stack's Prefect: that would be to run any program."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest

from deployments.embedded.stack import Stack
from tests.support.client import prefect_client

pytestmark = pytest.mark.e2e

EVIL = "https://evil.example"
JSON = {"Content-Type": "application/json"}
# A form's content type: a browser sends it anywhere without a preflight.
SIMPLE = {"Content-Type": "text/plain"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "prefect",
}


@dataclass(frozen=True)
class Attack:
    """A request, what it carries of what our clients carry, and how it is refused."""

    status: int
    method: str = "POST"
    path: str = "/flows/"
    headers: Mapping[str, str] = field(default_factory=dict)
    password: str = ""
    has_token: bool = False


RIGHT = "right"
ATTACKS = {
    "a preflight of a web page": Attack(
        400,
        "OPTIONS",
        headers={
            "Origin": EVIL,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    ),
    "a web page's JSON": Attack(403, headers=JSON | {"Origin": EVIL}),
    "a web page's form": Attack(403, headers=SIMPLE | {"Origin": EVIL}),
    # As it would be if the browser kept the password by itself.
    "a web page's form with the password": Attack(
        403, headers=SIMPLE | {"Origin": EVIL}, password=RIGHT
    ),
    "a name that was made to mean 127.0.0.1": Attack(
        400, headers=JSON | {"Host": "evil.example"}, password=RIGHT, has_token=True
    ),
    "such a name with the server's port": Attack(
        400, "GET", "/admin/settings", {"Host": "evil.example:4200"}, RIGHT
    ),
    "such a name's websocket": Attack(
        400, "GET", "/events/out", UPGRADE | {"Host": "evil.example"}
    ),
    "no password": Attack(401, headers=JSON, has_token=True),
    "a wrong password": Attack(401, headers=JSON, password="refinery:wrong", has_token=True),
    "half the password": Attack(401, headers=JSON, password="refinery:", has_token=True),
    "a look without a password": Attack(401, "GET", "/admin/settings"),
    "a token without a password": Attack(401, "GET", "/csrf-token?client=evil"),
    "a deployment deleted": Attack(403, "DELETE", "/deployments/00000000-0000-0000-0000-000000000000"),
    "a path that ends like the health check's": Attack(401, "GET", "/variables/name/health"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused(stack: Stack, prefect: httpx.Client, name: str) -> None:
    attack = ATTACKS[name]
    flow = f"attacked by {name}"
    headers = dict(attack.headers)
    if attack.has_token:
        token = prefect.get("/csrf-token", params={"client": name}).raise_for_status().json()
        headers |= {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": name}
    password = stack.prefect_auth_string if attack.password == RIGHT else attack.password
    user, colon, word = password.partition(":")
    answer = httpx.request(
        attack.method,
        f"{stack.prefect_api_url}{attack.path}",
        headers=headers,
        auth=(user, word) if colon else None,
        content=f'{{"name": "{flow}"}}' if attack.method == "POST" else None,
    )
    assert answer.status_code == attack.status, answer.text
    assert "access-control-allow-origin" not in answer.headers
    made = {"flows": {"name": {"any_": [flow]}}}
    assert prefect.post("/flows/filter", json=made).raise_for_status().json() == []


def test_its_own_ui_and_our_clients_are_let_in(stack: Stack, prefect: httpx.Client) -> None:
    preflight = httpx.options(
        f"{stack.prefect_api_url}/flows/filter",
        headers={"Origin": stack.prefect_ui_url, "Access-Control-Request-Method": "POST"},
    )
    assert preflight.headers["access-control-allow-origin"] == stack.prefect_ui_url
    assert prefect.post("/flows/filter", json={}).is_success
    with prefect_client(stack) as another:
        assert another.post("/flows/filter", json={}).is_success


def test_the_link_signs_a_browser_in_and_tells_no_server(stack: Stack) -> None:
    link = urlsplit(stack.prefect_sign_in_url)
    assert link.fragment == stack.prefect_auth_string
    page = httpx.get(stack.prefect_sign_in_url)
    assert page.is_success
    assert stack.prefect_auth_string not in page.text
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


def test_the_password_is_for_the_owner_of_the_data_directory(stack: Stack) -> None:
    file = stack.data_dir / "prefect-auth"
    assert file.read_text().strip() == stack.prefect_auth_string
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    logs = "".join(path.read_text() for path in stack.log_folder.iterdir())
    assert stack.prefect_auth_string not in logs
    assert stack.prefect_auth_string not in (stack.data_dir / "state.json").read_text()
