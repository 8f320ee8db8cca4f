"""What the demo leaves to do for somebody who stays: pictures to see, to label and to review."""

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from xml.etree import ElementTree as ET

import httpx
import pytest
from rich.console import Console

from deployments.embedded.demo import Demo
from deployments.embedded.stack import Stack

pytestmark = pytest.mark.e2e

ROLES = {
    "annotator": "annotator",
    "reviewer": "reviewer",
    "customer": "customer",
    "operator": "admin",
}


@pytest.fixture
def printed(stack: Stack) -> str:
    """What the demo says of the job that it leaves."""
    out = io.StringIO()
    Demo(Console(file=out, width=60), stack).leave_work()
    return out.getvalue()


@pytest.fixture
def browsers(printed: str) -> Iterator[dict[str, httpx.Client]]:
    """A browser for each link that was printed, signed in by it."""
    links = re.findall(r"^ +(\w+) +(http\S+)/#(in_\S+)$", printed, re.MULTILINE)
    with ExitStack() as stack:
        found = {}
        for who, url, token in links:
            browser = found[who] = stack.enter_context(httpx.Client(base_url=url))
            session = browser.post("/v1/session", json={"link": token}).raise_for_status().json()
            browser.headers["X-CSRF-Token"] = session["csrf_token"]
            assert session["role"] == ROLES[who]
        yield found


def test_who_stays_in_the_demo_has_pictures_to_label_and_to_review(
    printed: str, browsers: dict[str, httpx.Client]
) -> None:
    assert browsers.keys() == ROLES.keys()
    (job_id,) = re.findall(r"job_\w+", printed)
    for who, path in (("annotator", ""), ("reviewer", "?queue=review")):
        claim = {"limit": 3, "job_id": job_id}
        claimed = browsers[who].post(f"/v1/annotation/claim{path}", json=claim).json()["tasks"]
        assert claimed, who
        for task in claimed:
            picture = httpx.get(task["signed_url"])  # as an <img> does, without a key
            assert picture.headers["content-type"] == "image/svg+xml"
            assert ET.fromstring(picture.content).tag.endswith("svg")
    for who in ("customer", "operator"):
        assert browsers[who].get(f"/v1/jobs/{job_id}").json()["total_tasks"] == 75
    assert browsers["operator"].post(f"/v1/jobs/{job_id}/cancel").status_code == 202
