"""Browsers that are signed in: how they come in, what they may do, how that ends, and what attackers try."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from httpx import Response
from litestar.testing import TestClient

from api.session_cookies import CSRF_HEADER, NAME, TLS_NAME
from blocks.settings import Settings
from blocks.store import customers, sessions
from tests.support.api_world import JOB_BODY, Api, make_app
from tests.support.canaries import in_database, places_of
from tests.support.store_shop import Shop

pytestmark = pytest.mark.integration

CLAIM = {"limit": 1}


def key_of(headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")


class Browser:
    """A browser: it keeps the session's cookie, and sends its token if its page does."""

    def __init__(self, api: Api, cookie_name: str = NAME) -> None:
        self._client = api.client
        self._cookie_name = cookie_name
        self.cookie = ""
        self.csrf_token = ""

    def sign_in(self, **body: str) -> Response:
        answer = self._send("POST", "/v1/session", json=body)
        if answer.is_success:
            self.cookie = answer.cookies[self._cookie_name]
            self.csrf_token = answer.json()["csrf_token"]
        return answer

    def send(self, method: str, path: str, *, csrf: bool = True, **more: Any) -> Response:
        headers = {CSRF_HEADER: self.csrf_token} if csrf else {}
        return self._send(method, path, headers=headers | more.pop("headers", {}), **more)

    def _send(self, method: str, path: str, **more: Any) -> Response:
        cookies = {"Cookie": f"{self._cookie_name}={self.cookie}"} if self.cookie else {}
        headers = cookies | more.pop("headers", {})
        answer: Response = self._client.request(method, path, headers=headers, **more)
        self._client.cookies.clear()
        return answer


@pytest.fixture
def browser(api: Api) -> Browser:
    return Browser(api)


def test_a_key_signs_a_browser_in_which_may_do_what_the_key_may(api: Api, browser: Browser) -> None:
    answer = browser.sign_in(key=key_of(api.customer))
    assert answer.json()["role"] == "customer"
    assert answer.json()["owner_id"] == api.shop.customer_id
    set_cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= set(set_cookie.split("; "))
    assert not {"secure", "domain"} & set(set_cookie.replace("=", "; ").split("; "))  # plain HTTP
    assert browser.send("GET", "/v1/jobs").status_code == 200
    assert browser.send("POST", "/v1/jobs", json=JOB_BODY).status_code == 202
    assert browser.send("POST", "/v1/annotation/claim", json=CLAIM).json()["code"] == "forbidden"
    seen = browser.send("GET", "/v1/session").json()
    assert seen == {name: value for name, value in answer.json().items() if name != "expires_at"}


@pytest.mark.parametrize("reviewer, role", [(False, "annotator"), (True, "reviewer")])
def test_the_role_is_that_of_the_key(api: Api, browser: Browser, reviewer: bool, role: str) -> None:
    annotator_id, key = api.shop.do(customers.add_annotator_key, "Ann", is_reviewer=reviewer)
    shown = browser.sign_in(key=key).json()
    assert (shown["role"], shown["owner_id"], shown["name"]) == (role, annotator_id, "Ann")
    assert api.get("/v1/session", api.bearer(key)).json()["csrf_token"] is None


@pytest.mark.parametrize("method, path", [("POST", "/v1/jobs"), ("DELETE", "/v1/session")])
@pytest.mark.parametrize("token", ["", "0" * 32, "of another session"])
def test_what_changes_something_needs_the_token_of_the_session(
    api: Api, browser: Browser, method: str, path: str, token: str
) -> None:
    other = Browser(api)
    other.sign_in(key=key_of(api.customer))
    browser.sign_in(key=key_of(api.customer))
    sent = other.csrf_token if token == "of another session" else token
    refused = browser.send(method, path, json={}, headers={CSRF_HEADER: sent}, csrf=False)
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_token")
    assert browser.send("GET", "/v1/session", csrf=False).status_code == 200


def test_a_page_reads_nothing_in_the_name_of_another_session(api: Api, browser: Browser) -> None:
    browser.sign_in(key=key_of(api.customer))
    opened_with = browser.csrf_token
    browser.sign_in(key=key_of(api.customer))
    refused = browser.send("GET", "/v1/jobs", headers={CSRF_HEADER: opened_with}, csrf=False)
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_token")
    for csrf in (True, False):
        assert browser.send("GET", "/v1/jobs", csrf=csrf).status_code == 200


def test_a_session_ends_by_signing_out_at_its_time_and_with_its_key(api: Api) -> None:
    key = key_of(api.customer)
    left, late, revoked = (Browser(api) for _ in range(3))
    left.sign_in(key=key)
    assert left.send("GET", "/v1/jobs").status_code == 200
    out = left.send("DELETE", "/v1/session")
    assert "max-age=0" in out.headers["set-cookie"].lower()
    assert left.send("GET", "/v1/jobs").json()["code"] == "invalid_api_key"
    late.sign_in(key=key)
    api.shop.run("update sessions set expires_at = now() - interval '1 second'")
    assert late.send("GET", "/v1/jobs").status_code == 401
    api.shop.do(sessions.end_expired, limit=10)
    assert api.shop.value("select count(*) from sessions") == 0
    revoked.sign_in(key=key)
    assert api.shop.do(customers.revoke_key, key)
    assert revoked.send("GET", "/v1/jobs").status_code == 401
    assert revoked.sign_in(key=key).json()["code"] == "invalid_api_key"


def test_a_link_signs_one_browser_in_once(api: Api) -> None:
    key = key_of(api.annotator)
    link, old = (api.shop.do(sessions.add_link, key, link_s=link_s) for link_s in (600, -1))
    first, second = Browser(api), Browser(api)
    assert first.sign_in(link=link).json()["role"] == "annotator"
    assert first.send("POST", "/v1/annotation/claim", json=CLAIM).status_code == 200
    for used in (link, old, "in_unknown"):
        assert second.sign_in(link=used).json()["code"] == "link_used"
    assert api.shop.do(sessions.add_link, "ak_unknown", link_s=600) is None


def test_a_link_of_a_revoked_key_signs_nobody_in(api: Api) -> None:
    key = key_of(api.annotator)
    link = api.shop.do(sessions.add_link, key, link_s=600)
    assert api.shop.do(customers.revoke_key, key)
    assert Browser(api).sign_in(link=link).json()["code"] == "link_used"


def test_of_browsers_that_use_one_link_at_once_one_is_signed_in(api: Api) -> None:
    link = api.shop.do(sessions.add_link, key_of(api.annotator), link_s=600)
    begun: list[bool] = []
    browsers = 8
    start = threading.Barrier(browsers)

    def sign_in() -> None:
        start.wait()
        begun.append(api.shop.do(sessions.begin_by_link, link, session_s=600) is not None)

    threads = [threading.Thread(target=sign_in) for _ in range(browsers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(begun) == [False] * (browsers - 1) + [True]


def test_what_a_cookie_holds_is_no_key_and_a_key_is_no_cookie(api: Api, browser: Browser) -> None:
    browser.sign_in(key=key_of(api.customer))
    assert api.get("/v1/jobs", api.bearer(browser.cookie)).status_code == 401
    browser.cookie = key_of(api.customer)
    assert browser.send("GET", "/v1/jobs").status_code == 401


def test_a_request_with_a_key_is_of_the_key_alone_whatever_its_cookie(
    api: Api, browser: Browser
) -> None:
    browser.sign_in(key=key_of(api.customer))
    by_key = browser.send("GET", "/v1/session", headers=api.annotator).json()
    assert (by_key["role"], by_key["csrf_token"]) == ("annotator", None)
    assert browser.send("GET", "/v1/jobs", headers=api.bearer("sk_wrong")).status_code == 401
    out = browser.send("DELETE", "/v1/session", headers=api.annotator, csrf=False)
    assert (out.status_code, "set-cookie" in out.headers) == (204, False)
    assert browser.send("GET", "/v1/jobs").status_code == 200


def test_signing_in_makes_a_new_session_and_ends_the_one_before(api: Api) -> None:
    first, planted = Browser(api), "ss_" + "a" * 43
    first.cookie = planted
    first.sign_in(key=key_of(api.customer))
    assert first.cookie != planted
    again = Browser(api)
    again.cookie = first.cookie
    again.sign_in(key=key_of(api.annotator))
    assert again.cookie != first.cookie
    assert first.send("GET", "/v1/session").status_code == 401
    assert api.shop.value("select count(*) from sessions") == 1


def test_a_key_has_so_many_sessions_and_the_first_of_them_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_KEY_MAX", 2)
    browsers = [Browser(api) for _ in range(3)]
    other = Browser(api)
    other.sign_in(key=key_of(api.annotator))
    for each in browsers:
        each.sign_in(key=key_of(api.customer))
    seen = [each.send("GET", "/v1/session").status_code for each in [*browsers, other]]
    assert seen == [401, 200, 200, 200]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_get_no_session_and_cannot_use_one(
    api: Api, browser: Browser, site: str
) -> None:
    browser.sign_in(key=key_of(api.customer))
    theirs = {"Sec-Fetch-Site": site}
    body = {"key": key_of(api.annotator)}
    for answer in (
        browser.send("POST", "/v1/session", headers=theirs, json=body),
        browser.send("GET", "/v1/jobs", headers=theirs),
        browser.send("POST", "/v1/jobs", headers=theirs, json=JOB_BODY),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "other_site")
        assert "set-cookie" not in answer.headers
    assert api.client.get("/v1/jobs", headers=theirs | api.customer).status_code == 200
    assert browser.send("GET", "/v1/jobs", headers={"Sec-Fetch-Site": "none"}).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
def test_no_form_of_another_site_signs_a_browser_in(
    api: Api, browser: Browser, content_type: str
) -> None:
    body = msgspec.json.encode({"key": key_of(api.customer)})
    sent = {"Content-Type": content_type}
    answer = browser.send("POST", "/v1/session", content=body, headers=sent, csrf=False)
    assert (answer.status_code, "set-cookie" in answer.headers) == (415, False)


Changed = Callable[..., Api]


@pytest.fixture
def changed(api_settings: Settings, shop: Shop) -> Iterator[Changed]:
    """Make an application with other settings, reached at `base_url`."""
    with ExitStack() as stack:

        def make(base_url: str = "http://testserver.local", **changes: Any) -> Api:
            app = make_app(msgspec.structs.replace(api_settings, **changes))
            return Api(stack.enter_context(TestClient(app, base_url=base_url)), shop)

        yield make


@pytest.mark.parametrize(
    "how",
    [{"base_url": "https://testserver.local"}, {"public_url": "https://labels.example.com"}],
    ids=["by TLS", "behind a proxy"],
)
def test_behind_tls_nobody_can_plant_a_cookie(changed: Changed, how: dict[str, str]) -> None:
    api = changed(**how)
    browser = Browser(api, TLS_NAME)
    answer = browser.sign_in(key=key_of(api.customer))
    parts = answer.headers["set-cookie"].lower().split("; ")
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= set(parts)
    assert not [part for part in parts if part.startswith("domain")]
    assert browser.send("GET", "/v1/jobs").status_code == 200
    planted = Browser(api, NAME)
    planted.cookie = browser.cookie
    assert planted.send("GET", "/v1/jobs").status_code == 401


def test_no_origin_that_may_ask_with_a_key_may_use_a_session(changed: Changed) -> None:
    api = changed(cors_origins="*")
    asked = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": f"content-type, {CSRF_HEADER.lower()}",
    }
    for path in ("/v1/session", "/v1/jobs"):
        answer = api.client.options(path, headers=asked)
        assert "access-control-allow-credentials" not in answer.headers
        allowed = answer.headers.get("access-control-allow-headers", "").lower()
        assert CSRF_HEADER.lower() not in allowed


def test_guesses_of_keys_and_links_are_counted_with_wrong_keys(changed: Changed) -> None:
    api = changed(wrong_keys_per_minute_max=3)
    key = key_of(api.customer)
    assert api.get("/v1/jobs").status_code == 200
    guesses = [
        {"key": "sk_1"},
        {"link": "in_1"},
        {"key": "sk_2"},
        {"key": "sk_3"},
        {"link": "in_2"},
    ]
    assert [Browser(api).sign_in(**each).status_code for each in guesses] == [401] * 3 + [429] * 2
    stale = Browser(api)
    stale.cookie = "ss_guess"
    assert stale.send("GET", "/v1/jobs").status_code == 429
    assert Browser(api).sign_in(key=key).status_code == 200  # it was good a moment ago


def test_all_sessions_of_a_key_share_its_rate(changed: Changed) -> None:
    api = changed(requests_per_minute_max=5)
    key = key_of(api.customer)
    link = api.shop.do(sessions.add_link, key, link_s=600)
    browsers = [Browser(api) for _ in range(2)]
    assert [each.sign_in(key=key).status_code for each in browsers] == [200, 200]
    seen = [browsers[n % 2].send("GET", "/v1/session").status_code for n in range(4)]
    assert seen == [200, 200, 200, 429]
    assert api.get("/v1/jobs").status_code == 429
    assert Browser(api).sign_in(key=key).status_code == 429
    assert Browser(api).sign_in(link=link).status_code == 200  # it could not be used again


def test_browsers_keep_nothing_of_what_a_session_is_answered(api: Api, browser: Browser) -> None:
    signed_in = browser.sign_in(key=key_of(api.customer))
    for answer in (signed_in, browser.send("GET", "/v1/session"), browser.send("GET", "/v1/jobs")):
        assert answer.headers.get_list("cache-control") == ["no-store"]


@pytest.mark.parametrize(
    "body",
    [{}, {"key": None}, {"key": "a", "link": "b"}, {"key": ""}, {"key": "x" * 101}, {"link": 5}],
    ids=str,
)
def test_one_of_key_and_link_is_wanted(browser: Browser, body: dict[str, Any]) -> None:
    assert browser.sign_in(**body).json()["code"] == "invalid_request"


def test_sign_ins_and_wrong_keys_are_logged(
    api: Api, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "refinery.auth")
    key = key_of(api.customer)
    assert browser.sign_in(key=key).status_code == 200
    for wrong in ({"key": "sk_wrong"}, {"link": "wrong"}):
        assert browser.sign_in(**wrong).status_code == 401
    assert api.get("/v1/jobs", api.bearer("sk_other")).status_code == 401
    events = [line for line in caplog.messages if "auth." in line or "session." in line]
    assert [event.split()[0] for event in events] == ["session.begun", *["auth.wrong_key"] * 3]
    assert customers.key_id(key) in events[0]
    assert all("address=" in event for event in events)


def test_no_credential_is_stored_or_logged(
    api: Api, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    key = key_of(api.customer)
    link = api.shop.do(sessions.add_link, key, link_s=600)
    browser.sign_in(link=link)
    secrets = {
        "key": key, "link": link, "cookie": browser.cookie, "CSRF token": browser.csrf_token,
    }  # fmt: skip
    searched = [("the log", caplog.text.encode()), *in_database(api.shop.url)]
    assert places_of(secrets, searched) == []
    assert places_of({"id": customers.key_id(key)}, searched)
