"""What holds for every page: its policy, its accessibility, its themes and its widths."""

import pytest
from playwright.sync_api import expect

from tests.support.browser import Faults, OpenPage, Theme, check_accessibility

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_front_door_is_accessible_and_fits(
    open_page: OpenPage, theme: Theme, width: int
) -> None:
    page = open_page("/", theme=theme, width=width)
    expect(page.get_by_role("textbox").first).to_be_visible()
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_script_that_is_no_file_of_the_service_is_refused(
    open_page: OpenPage, faults: Faults
) -> None:
    page = open_page("/")
    faults.expect("CSP: script-src")
    faults.expect("Content Security Policy")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.wasRun = true";
        document.head.append(script);
    }""")
    assert page.evaluate("window.wasRun") is None
