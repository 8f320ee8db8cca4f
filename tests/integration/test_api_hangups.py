"""Clients that hang up: nobody is answered, and nothing is logged as a fault of ours."""

import logging
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from blocks.store import customers, jobs
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.side import wait_until
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, in which no error may be in the end."""
    caplog.set_level(logging.INFO, "refinery.api")
    yield caplog
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
    assert "Traceback" not in caplog.text


@pytest.fixture
def key(shop: Shop) -> str:
    return Api.bearer(shop.do(customers.add_customer_key, shop.customer_id))["Authorization"]


def ask(server: str, *lines: str) -> socket.socket:
    """A connection on which the lines of a request were sent."""
    address = urlsplit(server)
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall("\r\n".join([*lines, ""]).encode())
    return connection


def wait_gone(log: pytest.LogCaptureFixture) -> None:
    wait_until(lambda: "request.client_gone" in log.text)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/tasks/batch"])
def test_during_the_upload_of_a_body(
    server: str, key: str, quiet: pytest.LogCaptureFixture, path: str
) -> None:
    head = (f"POST {path} HTTP/1.1", "Host: x", f"Authorization: {key}", "Content-Length: 99")
    connection = ask(server, *head, "Content-Type: application/json", "", '{"manifest_url":')
    connection.close()
    wait_gone(quiet)


def test_during_a_wait(
    shop: Shop,
    server: str,
    key: str,
    quiet: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = shop.processing(make_chunk(1))
    looks: list[str] = []
    get = jobs.get

    def noted_get(tx: Transaction, job_id: str, **more: str) -> Job | None:
        looks.append(job_id)
        return get(tx, job_id, **more)

    monkeypatch.setattr(jobs, "get", noted_get)
    path = f"/v1/jobs/{job.job_id}?wait=60"
    connection = ask(server, f"GET {path} HTTP/1.1", "Host: x", f"Authorization: {key}", "")
    wait_until(lambda: bool(looks))
    connection.close()
    wait_gone(quiet)
    assert len(looks) <= 3  # and not until the 60 s are over


def test_while_a_stream_is_sent(
    shop: Shop, server: str, key: str, quiet: pytest.LogCaptureFixture
) -> None:
    job = shop.processing(make_chunk(0, bad=20_000))
    path = f"/v1/jobs/{job.job_id}/errors"
    connection = ask(server, f"GET {path} HTTP/1.1", "Host: x", f"Authorization: {key}", "")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.close()
    idle = "select count(*) from pg_stat_activity where datname = current_database() and query ~ 'copy'"
    wait_until(lambda: shop.value(idle + " and pid <> pg_backend_pid()") == 0)
