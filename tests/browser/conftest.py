"""A browser for the pages of the whole stack."""

from collections.abc import Iterator
from typing import Any

import pytest
import s3fs
from playwright.sync_api import Browser, BrowserContext, Page

from blocks.store.database import Database
from blocks.store.jobs import Job
from deployments.embedded.stack import Stack
from tests.support.annotating import NOTE_TASKS, Gallery, Hand, OpenHand
from tests.support.browser import (
    WAIT_MS,
    Faults,
    OpenPage,
    Theme,
    find_chromium,
    sign_in,
    start_browser,
)
from tests.support.client import Customer
from tests.support.console_jobs import make_lines
from tests.support.pictures import PictureServer
from tests.support.review_desk import ReviewDesk, Sit
from tests.support.stack_shop import StackShop


@pytest.fixture(autouse=True, scope="session")
def chromium() -> str:
    """The first fixture of all, so that no stack is started for tests that are skipped."""
    found = find_chromium()
    if found is None:
        pytest.skip("there is no Chromium (Debian: apt install chromium)")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A Chromium for the tests of a file.

    As long as it runs, no other test of this process could run an event loop, so it is not the session's.
    """
    with start_browser(chromium) as found:
        yield found


@pytest.fixture
def faults() -> Iterator[Faults]:
    """What went wrong in the test's pages; it fails the test unless it was expected."""
    found = Faults()
    yield found
    found.check()


@pytest.fixture
def open_page(browser: Browser, stack: Stack, faults: Faults) -> Iterator[OpenPage]:
    """Open a page in a context of its own: who is signed in there is so in no other one."""
    contexts: list[BrowserContext] = []

    def open_page(
        path: str = "/",
        *,
        key: str | None = None,
        theme: Theme = "light",
        width: int = 1400,
        height: int = 900,
        **options: Any,
    ) -> Page:
        """Show a path of the API, signed in with `key` if there is one, in CSS pixels."""
        context = browser.new_context(
            base_url=stack.api_url,
            color_scheme=theme,
            viewport={"width": width, "height": height},
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        faults.watch(page)
        if key is not None:
            sign_in(page, stack.api_url, key)
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pictures() -> Iterator[PictureServer]:
    with PictureServer() as found:
        yield found


@pytest.fixture
def gallery(stack: Stack, store: Database, pictures: PictureServer) -> Gallery:
    return Gallery(StackShop(stack, store), pictures)


@pytest.fixture
def open_hand(open_page: OpenPage) -> OpenHand:
    """Open the annotators' page for somebody's hand."""

    def open_hand(key: str, job: Job | None = None, **options: Any) -> Hand:
        path = f"/annotate?job={job.job_id}" if job else "/annotate"
        page = open_page("/", key=key, **options)
        page.add_init_script(NOTE_TASKS)
        page.goto(path)
        return Hand(page)

    return open_hand


@pytest.fixture
def key(customer: Customer) -> str:
    """The key of a customer whose jobs the console shows."""
    return str(customer.http.headers["Authorization"]).removeprefix("Bearer ")


@pytest.fixture
def manifest(s3: s3fs.S3FileSystem, s3_bucket: str) -> str:
    """The URL of lines about texts."""
    s3.pipe_file(f"{s3_bucket}/m.jsonl", make_lines())
    return f"s3://{s3_bucket}/m.jsonl"


@pytest.fixture
def desk(stack: Stack, store: Database) -> ReviewDesk:
    return ReviewDesk(stack, store)


@pytest.fixture
def sit(open_page: OpenPage, desk: ReviewDesk) -> Sit:
    """Have a new reviewer open the page, where time can be wound forward."""

    def sit(query: str = "", key: str | None = None, **options: object) -> Page:
        page = open_page("/", key=key or desk.hire_reviewer(), **options)
        page.clock.install()
        page.goto(f"/review{query}")
        return page

    return sit
