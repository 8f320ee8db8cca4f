"""The stream of events: who is told what, when it ends, and what a browser that comes back has missed."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import httpx
import pytest

from api.routes import job_feed
from blocks.domain.model import JobStatus
from blocks.settings import Settings
from blocks.store import customers, job_lists, jobs
from blocks.store.database import DatabaseUnavailable, Transaction
from blocks.store.jobs import Job
from tests.support.api_world import Api, serve
from tests.support.blockades import closed_database
from tests.support.side import Side, wait_until
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration

WAIT_S = 20.0
PATH = "/v1/jobs/events"


class Event(NamedTuple):
    """One event, as a browser reads it."""

    id: str | None
    name: str
    data: Any


class Stream:
    """An open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._events = self._read()

    def _read(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self.response.iter_lines():
            name, _, value = line.partition(": ")
            fields[name] = value
            if not line and "data" in fields:
                yield Event(fields.get("id"), fields["event"], json.loads(fields["data"]))
            if not line:
                fields = {}

    def next(self) -> Event:
        return next(self._events)

    def alive(self) -> str:
        """Wait until a stream that has begun says that it is alive; where it stands then."""
        return cast(str, self.until(lambda e: e.name == "alive" and e.id is not None).id)

    def begin(self) -> bool:
        """Wait for the beginning; whether it goes on where it stopped."""
        return cast(bool, self.until(lambda e: e.name == "begin").data["resumed"])

    def until(self, is_it: Callable[[Event], bool]) -> Event:
        """Wait for the first event that is as wanted."""
        return next(event for event in self._events if is_it(event))

    def job(self, **wanted: Any) -> Event:
        """Wait for an event of a job that has these values."""
        return self.until(lambda e: e.name == "job" and wanted.items() <= e.data.items())

    def rest(self) -> list[Event]:
        """What comes until the stream ends."""
        return list(self._events)


@contextmanager
def follow(server: str, key: str, **headers: str) -> Iterator[Stream]:
    with (
        httpx.Client(base_url=server, timeout=WAIT_S) as client,
        client.stream("GET", PATH, headers=Api.bearer(key) | headers) as response,
    ):
        assert response.status_code == 200, response.read()
        yield Stream(response)


def resumes(server: str, key: str, last_id: str) -> bool:
    """Whether a stream goes on where an earlier one stopped."""
    with follow(server, key, **{"Last-Event-ID": last_id}) as stream:
        return stream.begin()


def is_open_to(server: str, key: str) -> bool:
    """Whether one more stream may be opened."""
    with httpx.stream("GET", server + PATH, headers=Api.bearer(key)) as response:
        return response.status_code == 200


def new_key(shop: Shop, customer_id: str | None = None) -> str:
    found: str = shop.do(customers.add_customer_key, customer_id or shop.customer_id)
    return found


@pytest.fixture
def key(shop: Shop) -> str:
    return new_key(shop)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_feed, "LOOK_S", 0.02)
    monkeypatch.setattr(job_feed, "BEAT_S", 0.1)
    monkeypatch.setattr(job_feed, "CHECK_S", 0.1)


@pytest.fixture
def _impatient(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server, and not the test's own pool, give a database that is away up soon."""
    monkeypatch.setattr("blocks.store.database._WAIT_FOR_CONNECTION_S", 0.5)


Looks = list[tuple[list[str], list[int]]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The customers and the jobs of each look at the database."""
    found: Looks = []

    def noted(
        tx: Transaction, customer_ids: Sequence[str], job_nos: Sequence[int], *, limit: int
    ) -> list[Job]:
        found.append((list(customer_ids), list(job_nos)))
        return job_lists.list_followed(tx, customer_ids, job_nos, limit=limit)

    monkeypatch.setattr(job_feed, "list_followed", noted)
    return found


def test_a_job_is_followed_to_its_end(server: str, shop: Shop, key: str) -> None:
    with follow(server, key) as stream:
        kind = stream.response.headers["content-type"]
        assert kind.startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        assert not stream.begin()
        job = shop.processing(make_chunk(2, bad=1), delivery=DELIVERY)
        told = stream.job(job_id=job.job_id, total_tasks=3, tasks_failed=1)
        while (told.data["waiting_for"] or {}).get("what") != "annotators":  # it has just been read
            told = stream.job(job_id=job.job_id)
        for annotator in shop.annotators(3):
            shop.answer(annotator, "cat")
        stream.job(job_id=job.job_id, tasks_done=2, delivery_status="pending")
        shop.begin_delivery(job)
        shop.do(jobs.finish_delivery, job.job_no, 3)
        last = stream.job(job_id=job.job_id, status="completed").data
        shown = httpx.get(f"{server}/v1/jobs/{job.job_id}", headers=Api.bearer(key)).json()
        also = {"delivery_status": "delivered", "lines_read": 3}
        assert last == {name: shown[name] for name in last if name in shown} | also


def test_nobody_is_told_of_the_jobs_of_others(server: str, shop: Shop, key: str) -> None:
    other = new_key(shop, shop.do(customers.add_customer, "Other"))
    with follow(server, other) as stream, follow(server, key) as mine:
        job = shop.processing(make_chunk(1))
        mine.job(job_id=job.job_id)
        shop.do(jobs.cancel, job.job_no)
        mine.job(job_id=job.job_id, status="cancelled")
        stream.begin()
        assert [stream.next().name for _ in range(2)] == ["alive", "alive"]


def test_an_operator_is_told_of_all_jobs(server: str, shop: Shop, looks: Looks) -> None:
    other_id = shop.do(customers.add_customer, "Other")
    with follow(server, shop.do(customers.add_admin_key, "Olga")) as stream:
        made = [shop.submit(), shop.submit(customer_id=other_id)]
        for job in made:
            stream.job(job_id=job.job_id)
        shop.do(jobs.cancel, made[0].job_no)
        stream.job(job_id=made[0].job_id, status="cancelled")
    assert looks == []  # no customer follows


def test_one_look_is_for_all_streams(server: str, shop: Shop, key: str, looks: Looks) -> None:
    other_id = shop.do(customers.add_customer, "Other")
    with ExitStack() as stack:
        for each in (key, key, new_key(shop, other_id)):
            stack.enter_context(follow(server, each)).alive()
        looks.clear()
        wait_until(lambda: len(looks) > 1)
    assert {frozenset(whose) for whose, _ in looks} == {frozenset({shop.customer_id, other_id})}


def test_a_stream_that_is_hung_up_makes_room(
    server: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "_STREAMS_PER_CUSTOMER_MAX", 1)
    with follow(server, key) as stream:
        stream.next()
        refused = httpx.get(server + PATH, headers=Api.bearer(key))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
    wait_until(lambda: is_open_to(server, key))


def test_a_stream_too_many_of_all_is_not_laid_at_the_customers_door(
    server: str, shop: Shop, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "_STREAMS_MAX", 1)
    with follow(server, new_key(shop, shop.do(customers.add_customer, "Other"))) as stream:
        stream.next()
        refused = httpx.get(server + PATH, headers=Api.bearer(key))
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert refused.json()["error"].startswith("1 streams of all customers are open")


def test_nobody_looks_for_who_has_left(
    server: str, shop: Shop, key: str, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "_KEEP_S", 0.0)
    other_id = shop.do(customers.add_customer, "Other")
    with follow(server, new_key(shop, other_id)) as other:
        with follow(server, key) as stream:
            stream.alive()
        other.next()
        wait_until(lambda: looks[-1][0] == [other_id])


def test_who_comes_back_is_told_what_has_changed(server: str, shop: Shop, key: str) -> None:
    changed, same = (shop.processing(make_chunk(1)) for _ in range(2))
    with follow(server, key) as stream:
        seen = {stream.job().data["job_id"]: None, stream.job().data["job_id"]: None}
        last_id = stream.alive()
    assert seen.keys() == {changed.job_id, same.job_id}
    shop.do(jobs.cancel, changed.job_no)
    with follow(server, key, **{"Last-Event-ID": last_id}) as stream:
        assert stream.begin()
        ended = stream.job()
        assert (ended.data["job_id"], ended.data["status"]) == (changed.job_id, "cancelled")
        assert stream.next().name == "alive"


def test_a_stream_begins_anew_if_more_jobs_have_ended_than_are_kept(
    server: str, shop: Shop, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "_ENDED_MAX", 1)
    made = [shop.submit() for _ in range(3)]
    with follow(server, key) as stream:
        stream.begin()
        stream.job(job_id=made[-1].job_id)
        with shop.database.transaction() as tx:  # one look sees all of them ended
            for job in made:
                jobs.cancel(tx, job.job_no)
        assert not stream.begin()
        last = stream.job(job_id=made[-1].job_id, status="cancelled")
    assert resumes(server, key, cast(str, last.id))


@pytest.mark.parametrize("has_jobs", [True, False])
def test_who_comes_back_after_nobody_has_looked_begins_anew(
    server: str, shop: Shop, key: str, monkeypatch: pytest.MonkeyPatch, *, has_jobs: bool
) -> None:
    monkeypatch.setattr(job_feed, "_KEEP_S", 0.0)
    job = shop.processing(make_chunk(1)) if has_jobs else None
    with follow(server, key) as stream:
        last_id = stream.alive()
    if job:
        shop.do(jobs.cancel, job.job_no)
    # The first stream is not forgotten at once.
    wait_until(lambda: not resumes(server, key, last_id))


def test_who_comes_back_goes_on_though_there_was_no_job(server: str, key: str) -> None:
    with follow(server, key) as stream:
        last_id = stream.alive()
    assert resumes(server, key, last_id)


@pytest.mark.parametrize("last_id", ["", "ffffffff.1", "1", "\U0001f600", "0" * 100])
def test_an_id_of_another_process_begins_anew(
    server: str, shop: Shop, key: str, last_id: str
) -> None:
    job = shop.processing(make_chunk(1))
    with follow(server, key, **{"Last-Event-ID": last_id.encode()}) as stream:  # type: ignore[arg-type]
        assert not stream.begin()
        assert stream.next().data["job_id"] == job.job_id


def test_a_stream_ends_with_its_session(server: str, shop: Shop, key: str) -> None:
    with httpx.Client(base_url=server, timeout=WAIT_S) as browser:
        csrf_token = browser.post("/v1/session", json={"key": key}).json()["csrf_token"]
        with browser.stream("GET", PATH) as response:
            stream = Stream(response)
            stream.alive()
            browser.delete("/v1/session", headers={"X-CSRF-Token": csrf_token})
            stream.rest()
        assert browser.get(PATH).status_code == 401


def test_a_stream_ends_with_its_key(server: str, shop: Shop, key: str) -> None:
    with follow(server, key) as stream:
        stream.alive()
        shop.run("update api_keys set revoked_at = now()")
        stream.rest()


def test_a_key_is_looked_at_more_often_than_a_stream_says_that_it_is_alive(
    server: str, shop: Shop, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "BEAT_S", 3600.0)
    with follow(server, key) as stream:
        stream.begin()
        shop.run("update api_keys set revoked_at = now()")
        assert stream.rest() == []


@pytest.fixture
def _no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no look at the jobs succeed, while keys can be looked up."""

    def fail(*_: object, **__: object) -> list[Job]:
        raise DatabaseUnavailable("It is away.")

    monkeypatch.setattr(job_feed, "list_followed", fail)


@pytest.mark.usefixtures("_no_look")
def test_a_stream_that_cannot_begin_says_so_and_ends_after_its_hour(
    server: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "_STREAM_S_MAX", 0.5)
    with follow(server, key) as stream:
        told = stream.rest()
    assert told
    assert told == [Event(None, "alive", {"looked_at": None})] * len(told)


@pytest.mark.usefixtures("_no_look")
def test_a_stream_that_cannot_begin_ends_with_its_key(server: str, shop: Shop, key: str) -> None:
    with follow(server, key) as stream:
        assert stream.next().name == "alive"
        shop.run("update api_keys set revoked_at = now()")
        stream.rest()


def test_a_stream_does_not_hold_up_the_end_of_the_process(api_settings: Settings, key: str) -> None:
    with ExitStack() as stack:
        server = ExitStack()
        url = server.enter_context(serve(api_settings))
        stream = stack.enter_context(follow(url, key))
        stream.next()
        stopping = Side(server.close)
        stream.rest()
        stopping.join()


@pytest.mark.usefixtures("_impatient")
def test_a_stream_outlives_a_database_that_is_away(server: str, shop: Shop, key: str) -> None:
    with follow(server, key) as stream:
        stream.alive()
        with closed_database(shop):
            last, repeated = None, 0
            while repeated < 5:  # its key is looked at meanwhile, in vain
                looked_at = stream.until(lambda e: e.name == "alive").data["looked_at"]
                last, repeated = looked_at, repeated + 1 if looked_at == last else 0
        job = shop.submit()
        stream.job(job_id=job.job_id, status=JobStatus.ACCEPTED)
        assert stream.until(lambda e: e.name == "alive").data["looked_at"] > last


def test_the_head_of_a_stream_is_answered(server: str, key: str) -> None:
    assert httpx.head(server + PATH, headers=Api.bearer(key)).status_code == 200
