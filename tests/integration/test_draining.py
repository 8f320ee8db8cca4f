"""An API process that is told to end says so first, and works until a balancer has noticed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from blocks.store import customers
from blocks.store.database import Database
from deployments.embedded.ports import free_port
from deployments.registered import REPOSITORY
from tests.support.client import wait_for
from tests.support.collector import Collector
from tests.support.servers import KEY
from tests.support.side import wait_until
from tests.support.store_shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

DRAIN_S = 2
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def process(database: Database, database_url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with running(database_url, drain_s=DRAIN_S) as found:
        yield found


@contextmanager
def running(database_url: str, *, drain_s: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m api`, and its URL."""
    port = free_port()
    settings = {
        "REFINERY_DATABASE_URL": database_url,
        "ASG_ENCRYPTION_KEY": KEY,
        "REFINERY_DRAIN_S": str(drain_s),
    }
    command = [sys.executable, "-m", "api", "--port", str(port), "--log-level", "error"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | settings) as found:
        url = f"http://127.0.0.1:{port}"
        wait_for("the API", lambda: status(f"{url}/health/ready") == 200, wait_s=45)
        yield found, url
        found.kill()


def status(url: str) -> int | None:
    """What a new connection is answered; None if it is refused."""
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


def test_it_is_not_ready_and_works_until_it_ends(
    process: tuple[subprocess.Popen[bytes], str],
) -> None:
    api, url = process
    told_s = time.monotonic()
    api.send_signal(signal.SIGTERM)
    wait_until(lambda: status(f"{url}/health/ready") == 503)
    while time.monotonic() < told_s + DRAIN_S - 0.5:
        assert status(f"{url}/health/live") == 200
    api.wait()
    assert time.monotonic() - told_s >= DRAIN_S


def test_the_last_spans_are_sent_before_the_signal_ends_it(
    database: Database, database_url: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    with running(database_url, drain_s=0) as (api, url):
        headers = {
            "Authorization": f"Bearer {shop.do(customers.add_customer_key, shop.customer_id)}",
            "traceparent": TRACEPARENT,
        }
        assert httpx.get(f"{url}/v1/jobs", headers=headers).status_code == 200
        assert collector.bodies == []
        api.send_signal(signal.SIGTERM)
        api.wait()
        assert collector.bodies != []


def test_a_second_signal_ends_it_at_once(process: tuple[subprocess.Popen[bytes], str]) -> None:
    api, url = process
    told_s = time.monotonic()
    api.send_signal(signal.SIGTERM)
    wait_until(lambda: status(f"{url}/health/ready") == 503)
    api.send_signal(signal.SIGTERM)
    api.wait()
    assert time.monotonic() - told_s < DRAIN_S
