"""What hangs, or is locked, costs those who need it a 503, soon, and the others nothing."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from httpx import Response
from litestar.testing import TestClient

from blocks.settings import Settings
from tests.support.api_world import JOB_BODY, Api, make_app, serve
from tests.support.blockades import locked, stopped_postgresql
from tests.support.fake_prefect import FakePrefect
from tests.support.side import WAIT_S, Side, wait_until
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

PLACES = 4


@pytest.fixture(autouse=True)
def _soon(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the service wait for nothing for long; the test's own pool, of `shop`, is as patient as ever."""
    monkeypatch.setattr("api.app._LOCK_S_MAX", 0.2)
    monkeypatch.setattr("api.http.threads._LOOK_S", 0.05)
    monkeypatch.setattr("api.probes._KEPT_S", 0.0)
    monkeypatch.setattr("api.probes._FRESH_S", 0.5)
    monkeypatch.setattr("blocks.store.database._WAIT_FOR_CONNECTION_S", 1.0)


@pytest.fixture
def few_places(api_settings: Settings, shop: Shop) -> Iterator[Api]:
    settings = msgspec.structs.replace(api_settings, database_connections_max=PLACES)
    with TestClient(make_app(settings)) as client:
        yield Api(client, shop)


class Desk(msgspec.Struct, frozen=True):
    """What requests are about: a job with a held task each, and the keys of who is concerned."""

    api: Api
    job_id: str
    task_id: str

    def ask(self, name: str, headers: dict[str, str] | None = None) -> Response:
        """Make one of the requests that are known by name."""
        job, task = self.job_id, self.task_id
        labels = {"labels": [{"task_id": task, "label": "cat"}]}
        annotator = headers or self.api.annotator
        asked: dict[str, Callable[[], Response]] = {
            "job": lambda: self.api.get(f"/v1/jobs/{job}", headers),
            "jobs": lambda: self.api.get("/v1/jobs", headers),
            "errors": lambda: self.api.get(f"/v1/jobs/{job}/errors", headers),
            "quality": lambda: self.api.get(f"/v1/jobs/{job}/quality", headers),
            "submit": lambda: self.api.post("/v1/jobs", JOB_BODY, headers),
            "task": lambda: self.api.get(f"/v1/tasks/{task}", headers),
            "webhooks": lambda: self.api.get("/v1/webhooks", headers),
            "cancel": lambda: self.api.post(f"/v1/jobs/{job}/cancel", None, headers),
            "claim": lambda: self.api.post("/v1/annotation/claim", {"limit": 1}, annotator),
            "leases": lambda: self.api.get("/v1/annotation/leases", annotator),
            "labels": lambda: self.api.post("/v1/annotation/labels", labels, annotator),
            "release": lambda: self.api.post(
                "/v1/annotation/release", {"task_ids": [task]}, annotator
            ),
        }
        return asked[name]()


def desk_of(api: Api) -> Desk:
    job = api.shop.processing(make_chunk(20, bad=1))
    body = {"limit": 1, "job_id": job.job_id}
    (task,) = api.post("/v1/annotation/claim", body, api.annotator).json()["tasks"]
    return Desk(api, job.job_id, task["task_id"])


@pytest.fixture
def desk(few_places: Api) -> Desk:
    return desk_of(few_places)


ROW = "select from jobs where job_id = '{job_id}' for update"
TALLIES = "lock table tallies in access exclusive mode"
PAGES = "lock table pages in access exclusive mode"
JOBS = "lock table jobs in access exclusive mode"
RUNS = "lock table runs in access exclusive mode"
CHUNKS = "select from chunks for update"
LEASES = "select from leases for update"

BLOCKED = {
    ROW: {"cancel"},
    TALLIES: {"labels", "task"},
    PAGES: {"claim", "task"},
    JOBS: {"job", "jobs", "errors", "quality", "submit", "claim", "labels", "cancel", "task"},
    RUNS: {"submit", "cancel"},
    LEASES: {"labels", "release"},
}
FREE = {
    ROW: {"job", "jobs", "errors", "submit", "claim", "labels", "webhooks", "task"},
    TALLIES: {"submit", "leases", "webhooks"},
    PAGES: {"submit", "webhooks"},
    JOBS: {"webhooks"},
    RUNS: {"claim", "labels", "webhooks"},
    LEASES: {"job", "jobs", "claim", "submit", "webhooks"},
}


@pytest.mark.parametrize("lock", BLOCKED)
def test_who_needs_what_is_locked_is_told_so_while_it_is_and_others_are_served(
    desk: Desk, lock: str
) -> None:
    shop = desk.api.shop
    with locked(shop, lock, desk.job_id):
        answers = {name: desk.ask(name) for name in sorted(BLOCKED[lock])}
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(
            answers, 503
        )
        for answer in answers.values():
            assert answer.json()["code"] == "locked"
            assert int(answer.headers["Retry-After"]) > 0
        served = {name: desk.ask(name) for name in sorted(FREE[lock])}
        assert {name for name, answer in served.items() if not answer.is_success} == set()
        # The first look at the database may take longer than a request waits for it.
        wait_until(lambda: desk.api.client.get("/health/ready").status_code == 200)
    assert {desk.ask(name).status_code for name in sorted(BLOCKED[lock] - {"cancel"})} <= {200, 202}


# Many who wait, at a real server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, _soon: None) -> None:
    """Have everything waited for for longer than the test takes."""
    for name in (
        "api.app._LOCK_S_MAX",
        "api.app._REQUEST_S_MAX",
        "api.http.threads._HANDLER_S_MAX",
        "blocks.store.database._WAIT_FOR_CONNECTION_S",
    ):
        monkeypatch.setattr(name, 2 * WAIT_S)


@pytest.fixture
def crowd(api_settings: Settings, shop: Shop) -> Iterator[Api]:
    settings = msgspec.structs.replace(api_settings, database_connections_max=PLACES)
    with serve(settings) as url, httpx.Client(base_url=url, timeout=WAIT_S) as client:
        yield Api(cast(Any, client), shop)


LOCKED_TALLIES = (
    "select from tallies y join jobs j using (job_no) where job_id = '{job_id}' for update of y"
)
LOCK_WAITERS = (
    "select count(*) from pg_stat_activity "
    "where datname = current_database() and wait_event_type = 'Lock'"
)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "lock, stuck, annotators", [(LOCKED_TALLIES, "labels", True), (ROW, "cancel", False)]
)
def test_one_locked_row_leaves_places_to_everybody_else(
    crowd: Api, lock: str, stuck: str, annotators: bool
) -> None:
    shop = crowd.shop
    desk, other = desk_of(crowd), desk_of(crowd)
    assert desk.ask("labels").status_code == 200
    headers = [crowd.new_annotator() if annotators else crowd.customer for _ in range(3 * PLACES)]
    with locked(shop, lock, desk.job_id):
        waiting = [Side(partial(desk.ask, stuck, each)) for each in headers]
        shop.wait_for_waiters(PLACES // 2)
        for name in ("labels", "claim"):
            assert other.ask(name).status_code == 200
        assert crowd.get("/v1/jobs", crowd.new_customer()).status_code == 200
        assert shop.value(LOCK_WAITERS) == PLACES // 2
    assert {side.join().status_code for side in waiting} <= {200, 202, 409}


@pytest.mark.usefixtures("patient")
def test_more_than_can_wait_are_refused_at_once(
    crowd: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.places._WAITING_MAX", 4)
    shop, desk = crowd.shop, desk_of(crowd)
    with locked(shop, ROW, desk.job_id):
        waiting = [Side(partial(desk.ask, "cancel")) for _ in range(PLACES)]
        shop.wait_for_waiters(PLACES // 2)
        wait_until(lambda: desk.ask("job").status_code == 503)
        refused = desk.ask("job")
        assert refused.json()["code"] == "overloaded"
        assert int(refused.headers["Retry-After"]) > 0
        assert crowd.get("/v1/jobs", crowd.new_customer()).status_code == 200
    assert 202 in {side.join().status_code for side in waiting}


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "lock, method, page",
    [
        (ROW, "POST", "/cancel"),
        ("lock table bad_lines in access exclusive mode", "GET", "/errors"),
        ("lock table labels in access exclusive mode", "GET", "/quality"),
    ],
)
def test_who_hangs_up_leaves_no_statement_behind(
    crowd: Api, caplog: pytest.LogCaptureFixture, lock: str, method: str, page: str
) -> None:
    caplog.set_level(logging.INFO, "refinery.api")
    shop, desk = crowd.shop, desk_of(crowd)
    address = urlsplit(str(crowd.client.base_url))
    with locked(shop, lock, desk.job_id):
        leaving = socket.create_connection((address.hostname, address.port))
        leaving.sendall(
            f"{method} /v1/jobs/{desk.job_id}{page} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
            f"Authorization: {crowd.customer['Authorization']}\r\n\r\n".encode()
        )
        shop.wait_for_waiters(1)
        leaving.close()
        wait_until(lambda: shop.value(LOCK_WAITERS) == 0)
        wait_until(lambda: "request." in caplog.text)
    assert "Traceback" not in caplog.text
    assert shop.job(desk.job_id).status == "processing"


# Servers that hang


ROUTES = [
    "job", "jobs", "errors", "quality", "submit", "task", "webhooks", "cancel",
    "claim", "leases", "labels", "release",
]  # fmt: skip


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing take longer than a busy machine does."""
    monkeypatch.setattr("api.http.threads._KEY_S_MAX", 1.0)
    monkeypatch.setattr("api.http.threads._HANDLER_S_MAX", 2.0)


@pytest.mark.usefixtures("hasty")
def test_a_database_that_hangs_is_told_on_every_route_and_comes_back(crowd: Api) -> None:
    desk = desk_of(crowd)
    with stopped_postgresql(crowd.shop):
        asked = {name: Side(partial(desk.ask, name)) for name in ROUTES}
        ready, metrics = crowd.client.get("/health/ready"), crowd.client.get("/metrics")
        assert (ready.status_code, ready.json()["database"]) == (503, "unreachable")
        assert "refinery_database_up 0.0" in metrics.text
        assert "refinery_claimed_tasks_total" in metrics.text
        assert {name: side.join().status_code for name, side in asked.items()} == dict.fromkeys(
            ROUTES, 503
        )
        assert crowd.client.get("/health/live").status_code == 200
    wait_until(lambda: crowd.client.get("/health/ready").status_code == 200)
    wait_until(lambda: desk.ask("claim").status_code == 200)


def test_an_application_stops_while_its_database_hangs(
    api_settings: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.background.launcher._STOP_S", 0.2)
    monkeypatch.setattr("api.background.dispatcher._STOP_S", 0.2)
    with ExitStack() as stack:
        client = stack.enter_context(TestClient(make_app(api_settings)))
        api = Api(client, shop)
        assert api.get("/v1/jobs").status_code == 200
        with stopped_postgresql(shop):
            assert Side(stack.close).wait(WAIT_S)


def test_a_prefect_that_hangs_is_told_and_keeps_nothing_from_working(
    settings: Settings, shop: Shop
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        hung = msgspec.structs.replace(settings, prefect_api_url=url)
        with TestClient(make_app(hung)) as client:
            api = Api(client, shop)
            ready = client.get("/health/ready")
            assert (ready.status_code, ready.json()["prefect"]) == (200, "unreachable")
            assert "refinery_prefect_up 0.0" in client.get("/metrics").text
            assert api.submit().status_code == 202
            assert desk_of(api).ask("labels").status_code == 200
            silent.close()


# Databases that take no writes


def test_a_database_that_takes_no_writes_is_not_ready(api: Api) -> None:
    shop = api.shop
    name = shop.value("select current_database()")
    shop.run(f"alter database {name} set default_transaction_read_only = on")
    shop.run(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        " and datname = current_database()"
    )
    wait_until(lambda: api.client.get("/health/ready").json()["database"] == "read_only")
    assert api.client.get("/health/ready").status_code == 503
    refused = api.submit()
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert api.get("/v1/jobs").status_code == 200


def test_metrics_say_whether_prefect_is_up(settings: Settings) -> None:
    prefect = FakePrefect()
    try:
        there = msgspec.structs.replace(settings, prefect_api_url=prefect.url)
        with TestClient(make_app(there)) as client:
            assert "refinery_prefect_up 1.0" in client.get("/metrics").text
            assert client.get("/health/ready").json()["prefect"] == "ok"
            prefect.out.set()
            wait_until(lambda: "refinery_prefect_up 0.0" in client.get("/metrics").text)
    finally:
        prefect.stop()
