"""The pages as they are served: public, of our own files alone, and without anything secret."""

import re

import msgspec
import pytest
from litestar.testing import create_test_client

from api.web.pages import PAGES, Page, handlers
from blocks.settings import Settings
from tests.support.api_world import Api

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("path", sorted(PAGES))
def test_a_page_loads_its_own_files_and_nothing_else(api: Api, path: str) -> None:
    page = api.client.get(path, params={"to": "/", "of_a_mail": "1"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(
        each.split(" ", 1) for each in page.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert page.headers["x-frame-options"] == "DENY"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=|https?:", page.text)
    for file in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        found = api.client.get(file)
        assert found.status_code == 200, file
        assert not re.search(r"https?://(?!www\.w3\.org/)", found.text), file


@pytest.mark.parametrize("path", [*sorted(PAGES), "/web/style.css", "/web/session.js"])
def test_a_browser_that_has_the_latest_file_is_not_sent_it_again(api: Api, path: str) -> None:
    first = api.client.get(path)
    assert first.headers["cache-control"] == "no-cache"  # it asks each time
    again = api.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.client.get(path, headers={"If-None-Match": 'W/"other"'}).content == first.content


@pytest.mark.parametrize("path", ["/web/", "/web/nothing.js", "/web/../pages.py", "/web/home.html"])
def test_nothing_else_of_the_folder_is_served(api: Api, path: str) -> None:
    assert api.client.get(path).status_code == 404


@pytest.mark.parametrize(
    "origins, sources",
    [
        ("", ["http:", "https:"]),
        ("*", ["http:", "https:"]),
        ("https://a.example,http://b.example:90", ["https://a.example", "http://b.example:90"]),
    ],
)
def test_pictures_come_from_where_the_operator_says(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch, origins: str, sources: list[str]
) -> None:
    shows = Page("home.html", shows_pictures=True)
    monkeypatch.setattr("api.web.pages.PAGES", {"/": shows, "/plain": Page("home.html")})
    settings = msgspec.structs.replace(api_settings, picture_origins=origins)
    served = {path: handler for handler in handlers(settings) for path in handler.paths}
    with create_test_client(list(served.values())) as client:
        for path, allowed in (("/", sources), ("/plain", [])):
            policy = client.get(path).headers["content-security-policy"]
            assert " ".join(["img-src 'self' data:", *allowed]) + ";" in policy
