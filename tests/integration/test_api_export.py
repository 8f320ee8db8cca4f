"""An export that is broken off leaks nothing, and many slow ones hold up nobody."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import msgspec
import pytest

from blocks.settings import Settings
from blocks.store import customers
from blocks.store.database import LONG_READ
from tests.support.api_world import serve
from tests.support.side import wait_until
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

ROWS = 80_000  # many times what sockets hold on the way
SLOW_READERS = 4  # as many as one customer may have
WAIT_S = 15.0


@pytest.fixture
def export_url(shop: Shop) -> tuple[str, dict[str, str]]:
    """The path of a large export, and the headers of its owner."""
    job = shop.processing(make_chunk(ROWS))
    shop.run(
        "insert into tallies (job_no, task_no, labelled_at, latest, threshold, places, outcome, "
        "stop_early, votes, annotators) "
        "select job_no, n, now(), 1, 3, 3, 1, false, '{3,0,0}', '{1,2,3}' "
        "from chunks, generate_series(0, tasks - 1) n"
    )
    shop.run("update chunks set settled = tasks")
    shop.run("update jobs set status = 'completed', completed_at = now()")
    with shop.database.transaction() as tx:
        key = customers.add_customer_key(tx, shop.customer_id)
    return f"/v1/jobs/{job.job_id}/export", {
        "Authorization": f"Bearer {key}",
        "Accept-Encoding": "identity",
    }


def exporting(shop: Shop) -> int:
    """How many connections are in the middle of an export."""
    query = (
        "select count(*) from pg_stat_activity "
        "where application_name = %s and datname = current_database()"
    )
    count: int = shop.value(query, LONG_READ)
    return count


def test_a_client_that_hangs_up_leaves_no_connection_to_the_database(
    shop: Shop, server: str, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    for _ in range(5):
        with httpx.stream("GET", server + path, headers=headers) as answer:
            assert answer.status_code == 200
            blocks = answer.iter_raw()  # hangs up when it is let go of
            next(blocks)
            assert exporting(shop) >= 1
    wait_until(lambda: exporting(shop) == 0)


@contextmanager
def slow_readers(url: str, headers: dict[str, str]) -> Iterator[None]:
    """As many as one customer may have, each with an answer that they have begun to read."""
    readers = []  # each hangs up when it is let go of
    with ExitStack() as exits:
        for _ in range(SLOW_READERS):
            answer = exits.enter_context(httpx.stream("GET", url, headers=headers))
            readers.append(answer.iter_raw())
            next(readers[-1])
        yield


def test_slow_readers_do_not_keep_others_waiting(
    shop: Shop, server: str, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    with slow_readers(server + path, headers):
        assert exporting(shop) == SLOW_READERS
        job = httpx.get(server + path.removesuffix("/export"), headers=headers, timeout=WAIT_S)
        assert job.json()["status"] == "completed"
    wait_until(lambda: exporting(shop) == 0)


def test_a_fifth_long_read_of_a_customer_is_refused_and_others_go_on(
    shop: Shop, server: str, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    with slow_readers(server + path, headers):
        for kind in ("export", "errors", "quality", "quality/changes"):
            refused = httpx.get(server + path.replace("export", kind), headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_reads")
            assert int(refused.headers["Retry-After"]) > 0
        other = shop.do(customers.add_customer, "Other")
        shop.run("update jobs set customer_id = %s", other)
        theirs = {"Authorization": f"Bearer {shop.do(customers.add_customer_key, other)}"}
        found = httpx.get(server + path.replace("export", "errors"), headers=theirs)
        assert found.status_code == 200
    wait_until(lambda: exporting(shop) == 0)


@pytest.fixture
def impatient(api_settings: Settings) -> Settings:
    return msgspec.structs.replace(api_settings, unread_answer_s=1)


def test_a_reader_who_does_not_read_is_cut_off(
    impatient: Settings, shop: Shop, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    with (
        serve(impatient) as url,
        httpx.stream("GET", url + path, headers=headers, timeout=WAIT_S) as answer,
    ):
        blocks = answer.iter_raw()
        next(blocks)
        assert exporting(shop) == 1
        wait_until(lambda: exporting(shop) == 0)
        with pytest.raises(httpx.TransportError):  # and not a body that seems to be whole
            for _ in blocks:
                pass


def test_a_slow_reader_is_not_cut_off(
    api_settings: Settings, shop: Shop, export_url: tuple[str, dict[str, str]]
) -> None:
    """They take longer than a reader may take nothing, and get all of it."""
    path, headers = export_url
    unread_s = 2
    patient = msgspec.structs.replace(api_settings, unread_answer_s=unread_s)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n"
    with serve(patient) as url, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        reader.settimeout(WAIT_S)
        reader.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        reader.sendall(request.encode())
        ends_s = time.monotonic() + 2 * unread_s
        answer = bytearray()
        while time.monotonic() < ends_s:
            time.sleep(unread_s / 10)
            answer += reader.recv(128 * 1024, socket.MSG_WAITALL)
        assert exporting(shop) == 1
        while block := reader.recv(1024 * 1024):
            answer += block
    assert answer.endswith(b"\r\n0\r\n\r\n")
    lines = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", answer)  # pieces may end anywhere
    assert lines.count(b'"task_id"') == ROWS


def test_head_is_answered_without_reading_an_export(
    shop: Shop, server: str, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    with httpx.Client(base_url=server, headers=headers, timeout=30) as client:
        for page in (path, path.removesuffix("/export"), "/v1/jobs", "/health/live", "/schema"):
            answer = client.head(page)
            assert (answer.status_code, answer.content) == (200, b""), page
        assert client.head("/v1/jobs/job_none").status_code == 404
        assert client.head("/v1/tasks").status_code == 405
        assert client.get("/v1/jobs").status_code == 200  # on the same connection
    wait_until(lambda: exporting(shop) == 0)
