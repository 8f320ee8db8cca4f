"""The front door in a browser: in by a key or a link, out again, and what goes wrong there."""

import re
import secrets
from http import HTTPStatus

import pytest
from playwright.sync_api import Page, expect

from blocks.store import customers, sessions
from blocks.store.database import Database
from tests.support.browser import Faults, OpenPage, Theme, check_accessibility, stored
from tests.support.side import wait_until

pytestmark = pytest.mark.browser


class Person:
    """An annotator with a key, for whom links are made."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self.name = f"Ann {secrets.token_hex(3)}"
        with store.transaction() as tx:
            _, self.key = customers.add_annotator_key(tx, self.name)

    def new_link(self) -> str:
        """A path of the service, with the token behind `#`."""
        with self._store.transaction() as tx:
            token = sessions.add_link(tx, self.key, link_s=600)
        assert token is not None
        return f"/#{token}"

    def end_sessions(self) -> None:
        """Let the time of all their sessions be over."""
        with self._store.transaction() as tx:
            tx.execute(
                "update sessions set expires_at = now() where key_hash = %s",
                (customers.hash_key(self.key),),
            )


@pytest.fixture
def ann(store: Database) -> Person:
    return Person(store)


@pytest.fixture
def ben(store: Database) -> Person:
    return Person(store)


def type_key(page: Page, key: str) -> None:
    page.get_by_label("Your key").fill(key)
    page.keyboard.press("Enter")


def expect_signed_in(page: Page, person: Person) -> None:
    heading = f"You are signed in as {person.name} (annotator)"
    expect(page.get_by_role("heading", name=heading)).to_be_visible()


def expect_signed_out(page: Page) -> None:
    expect(page.get_by_label("Your key")).to_be_focused()


def expect_said(page: Page, words: str) -> None:
    expect(page.get_by_role("status")).to_contain_text(words)


@pytest.mark.parametrize("theme, width", [("light", 1400), ("dark", 390)])
def test_a_key_signs_in_and_leaves_no_trace_for_scripts(
    open_page: OpenPage, ann: Person, theme: Theme, width: int
) -> None:
    page = open_page("/", theme=theme, width=width)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect_signed_out(page)
    type_key(page, ann.key)
    expect_signed_in(page, ann)
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    for secret in (ann.key, cookie["value"]):
        assert secret not in stored(page)
        assert not [url for url in asked if secret in url]
    page.reload()
    expect_signed_in(page, ann)
    page.get_by_role("button", name="Sign out").click()
    expect_said(page, "You are signed out.")
    assert page.context.cookies() == []
    page.reload()
    expect_signed_out(page)


def test_a_link_signs_one_browser_in_once_and_its_token_is_sent_in_no_address(
    open_page: OpenPage, ann: Person
) -> None:
    link = ann.new_link()
    token = link.removeprefix("/#")
    page = open_page("/health/live")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(link)
    expect_signed_in(page, ann)
    assert page.url.endswith("/")
    assert token not in stored(page)
    assert not [url for url in asked if token in url]
    page.go_back()
    page.go_forward()
    assert page.url.endswith("/")
    other = open_page(link)
    expect_said(other, "This link was used before, or is too old.")
    expect_signed_out(other)
    check_accessibility(other)


def test_a_link_does_not_take_the_place_of_who_is_signed_in_unless_they_say_so(
    open_page: OpenPage, ann: Person, ben: Person
) -> None:
    page = open_page("/", key=ann.key)
    link = ben.new_link()
    page.goto(link)  # the page is open already, so this loads nothing
    expect(page.get_by_role("heading", name=f"You are signed in as {ann.name}")).to_be_visible()
    check_accessibility(page)
    page.get_by_role("button", name="Stay signed in").click()
    expect_signed_in(page, ann)
    page.goto(link)
    page.get_by_role("button", name="Follow the link").click()
    expect_signed_in(page, ben)
    page.goto(link)
    page.get_by_role("button", name="Follow the link").click()
    expect_said(page, "This link was used before")
    expect_signed_in(page, ben)


def test_a_wrong_key_is_answered_with_what_to_do(open_page: OpenPage, ann: Person) -> None:
    page = open_page("/")
    type_key(page, "ak_wrong")
    expect_said(page, "This is no key of this service, or it was revoked.")
    check_accessibility(page)
    expect_signed_out(page)
    assert page.get_by_label("Your key").input_value() == ""
    type_key(page, f"  {ann.key} ")  # as it was pasted
    expect_signed_in(page, ann)
    expect(page.get_by_role("status")).to_be_empty()


def test_a_session_that_is_over_leads_back_to_the_form(open_page: OpenPage, ann: Person) -> None:
    page = open_page("/", key=ann.key)
    expect_signed_in(page, ann)
    ann.end_sessions()
    # For a second the process trusts what it has looked up.
    wait_until(lambda: page.request.get("/v1/session").status == HTTPStatus.UNAUTHORIZED)
    page.get_by_role("button", name="Sign out").click()
    expect_said(page, "You are signed out.")
    page.reload()
    expect_signed_out(page)


def test_a_page_goes_on_with_a_new_session_of_the_same_person_alone(
    open_page: OpenPage, ann: Person, ben: Person, faults: Faults
) -> None:
    faults.expect("403 .*/v1/session$")
    page = open_page("/", key=ann.key)
    url = page.url.rstrip("/")
    expect_signed_in(page, ann)
    page.request.post(f"{url}/v1/session", data={"key": ann.key})  # as in another tab
    page.request.post(f"{url}/v1/session", data={"key": ben.key})
    page.get_by_role("button", name="Sign out").click()
    expect_said(page, "You are still signed in. Somebody else has signed in in this browser.")
    page.request.post(f"{url}/v1/session", data={"key": ann.key})
    page.get_by_role("button", name="Sign out").click()
    expect_said(page, "You are signed out.")


def test_a_page_that_one_goes_back_to_shows_nothing_to_whoever_is_not_signed_in(
    open_page: OpenPage, ann: Person
) -> None:
    page = open_page("/", key=ann.key)
    expect_signed_in(page, ann)
    page.context.clear_cookies()
    # What a browser tells a page that it has kept; Chromium keeps none while it is driven by a test.
    page.evaluate("""() => {
        dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
    }""")
    expect_signed_out(page)


def test_without_a_connection_the_page_says_so_and_tries_again_when_asked(
    open_page: OpenPage, ann: Person, faults: Faults
) -> None:
    faults.expect("ERR_FAILED|ERR_INTERNET_DISCONNECTED")
    page = open_page("/", key=ann.key)
    page.route("**/v1/session", lambda route: route.abort())
    page.reload()
    expect_said(page, "The service cannot be reached. Is this device online?")
    check_accessibility(page)
    page.unroute("**/v1/session")
    page.get_by_role("button", name="Try again").click()
    expect_signed_in(page, ann)


@pytest.mark.parametrize(
    "wanted, path", [("/schema", "/schema"), ("//evil.example", "/"), ("javascript:alert(1)", "/")]
)
def test_who_signs_in_comes_back_to_a_page_of_ours_and_nowhere_else(
    open_page: OpenPage, ann: Person, wanted: str, path: str
) -> None:
    page = open_page(f"/?to={wanted}", key=ann.key)
    if path == "/":
        expect_signed_in(page, ann)
    expect(page).to_have_url(re.compile(rf"^http://127\.0\.0\.1:\d+{re.escape(path)}(\?.*)?$"))
