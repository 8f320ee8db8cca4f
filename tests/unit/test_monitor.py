"""What an operator sees of a job."""

from typing import Any

import msgspec
import pytest

from blocks.domain.errors import AccessDenied
from blocks.domain.model import DeliveryStatus
from blocks.prefect import job_page
from flows.running import monitor
from tests.support.memory_bucket import make_job


class Console:
    """A bucket of a store whose console a browser can open."""

    def console_url(self, prefix: str) -> str:
        return f"https://console.example/{prefix}"


@pytest.mark.parametrize(
    "status, is_linked", [(None, False), *((each, each != "pending") for each in DeliveryStatus)]
)
def test_results_are_linked_once_they_are_being_written(
    status: DeliveryStatus | None, is_linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "destination_of", lambda _: Console())
    job = msgspec.structs.replace(make_job(), delivery_status=status)
    expected = "https://console.example/p/job_1/" if is_linked else None
    assert monitor._console_url(job) == expected


@pytest.mark.parametrize("public_url", ["https://labels.example", "https://labels.example/"])
def test_the_page_of_a_job_links_to_the_console(public_url: str) -> None:
    page = job_page.page(make_job(), {}, public_url=public_url)
    assert "(<https://labels.example/console?job=job_1>)" in page
    assert "console" not in job_page.page(make_job(), {}, public_url="")


def test_a_bucket_that_cannot_be_opened_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise AccessDenied("The key has been revoked.")

    monkeypatch.setattr(monitor, "destination_of", refuse)
    assert monitor._console_url(make_job()) is None
