"""Pages in Chromium, and what goes wrong in them."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

Theme = Literal["light", "dark"]
OpenPage = Callable[..., Page]
"""See the fixture `open_page`."""

WAIT_MS = 20_000
_NAMES = ["chromium", "chromium-browser", "google-chrome"]
_ARGUMENTS = [
    "--no-sandbox",  # the tests may be root's
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Nothing that a test starts may call its makers.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A report of the policy is a console error as well, but without its directive where a frame has it.
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective} forbids ${event.blockedURI}`));
"""


def find_chromium() -> str | None:
    """Return the path of a Chromium of this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def start_browser(chromium: str) -> Iterator[Browser]:
    """Run Chromium without a window."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


class Faults:
    """What went wrong in the pages of a test: errors of scripts, console errors, reports of the CSP."""

    def __init__(self) -> None:
        # Whoever is not signed in yet is told so by a page's first question.
        self._expected = [re.compile(r"401 \(Unauthorized\).*/v1/session$")]
        self._found: list[str] = []

    def expect(self, pattern: str) -> None:
        """Expect faults in which this regular expression is found."""
        self._expected.append(re.compile(pattern))

    def watch(self, page: Page) -> None:
        """Note down what goes wrong in a page from now on."""
        page.add_init_script(_REPORT_VIOLATIONS)
        page.on("pageerror", lambda error: self._found.append(f"{error.name}: {error.message}"))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._found.append(f"{message.text} at {message.location['url']}")

    def check(self) -> None:
        """Fail if something went wrong that was not expected."""
        unexpected = [
            fault
            for fault in self._found
            if not any(pattern.search(fault) for pattern in self._expected)
        ]
        assert unexpected == []


def sign_in(page: Page, url: str, key: str) -> dict[str, Any]:
    """Begin a session with a key, as the form does; return what the service says of it."""
    answer = page.request.post(f"{url}/v1/session", data={"key": key})
    assert answer.ok, answer.text()
    found: dict[str, Any] = answer.json()
    return found


def check_accessibility(page: Page) -> None:
    """Fail if axe finds something in the page as it is now."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def stored(page: Page) -> str:
    """Return what scripts of the page can get at later: its source, its address and its storage."""
    script = """() => JSON.stringify([
        location.href, document.documentElement.outerHTML, document.cookie,
        Object.entries(localStorage), Object.entries(sessionStorage), history.state,
    ])"""
    found: str = page.evaluate(script)
    return found
