"""A store that fails now and then costs time and nothing else; one that refuses is believed at once."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from blocks.buckets.protocol import Bucket
from blocks.domain.errors import (
    AccessDenied,
    InvalidCredentials,
    ObjectChanged,
    ObjectNotFound,
    Terminal,
    Transient,
)
from blocks.domain.model import JobStatus, Pin
from blocks.secrets.credentials import S3Credentials
from blocks.store.database import Database
from deployments.embedded.object_stores import ObjectStoreAddress
from flows.process_job import process_job
from tests.support.faulty_store import (
    BEFORE_THE_ANSWER,
    IN_THE_BODY,
    OF_THE_RANGE,
    Fault,
    FaultyStore,
    Play,
    Refusal,
    is_any,
)
from tests.support.flow_world import FlowShop, check_created, flow_settings, retry_soon, run
from tests.support.manifests import make_manifest
from tests.support.stores import GcsStore, S3Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DATA = bytes(range(256)) * 400
START, END = 1000, 61_000
SHORT_TIMEOUT_S = 1.5
SOON_S = 30.0  # far from the minute that the product waits


@pytest.fixture(scope="module")
def s3(object_store: ObjectStoreAddress) -> Iterator[S3Store]:
    found = S3Store(object_store)
    found.put("data", DATA)
    yield found
    found.client.close()


@pytest.fixture(scope="module")
def gcs(gcs_url: str) -> GcsStore:
    found = GcsStore(gcs_url)
    found.put("data", DATA)
    return found


@dataclass
class Behind:
    """A bucket of ours behind the proxy, and the object `data` in it."""

    proxy: FaultyStore
    bucket: Bucket
    pin: Pin

    def call(self, name: str) -> object:
        if name == "stat":
            return self.bucket.stat("data")
        return self.bucket.read("data", self.pin, START, END)

    def check_it_works(self) -> None:
        self.proxy.script([])
        assert self.bucket.stat("data") == self.pin
        assert self.bucket.read("data", self.pin, START, END) == DATA[START:END]


def behind(store: S3Store | GcsStore, upstream_url: str) -> Iterator[Behind]:
    with pytest.MonkeyPatch.context() as patch, FaultyStore(upstream_url) as proxy:
        patch.setattr("blocks.buckets.answers.READ_TIMEOUT_S", SHORT_TIMEOUT_S)
        bucket = store.open_at(proxy.url)
        yield Behind(proxy, bucket, store.open().stat("data"))


@pytest.fixture(scope="module")
def _s3_behind(s3: S3Store, object_store: ObjectStoreAddress) -> Iterator[Behind]:
    yield from behind(s3, object_store.endpoint_url)


@pytest.fixture(scope="module")
def _gcs_behind(gcs: GcsStore, gcs_url: str) -> Iterator[Behind]:
    yield from behind(gcs, gcs_url)


@pytest.fixture
def s3_behind(_s3_behind: Behind) -> Behind:
    _s3_behind.proxy.reset()
    return _s3_behind


@pytest.fixture
def gcs_behind(_gcs_behind: Behind) -> Behind:
    _gcs_behind.proxy.reset()
    return _gcs_behind


def check_transient(there: Behind, fault: Play, call: str) -> None:
    there.proxy.other_body = DATA
    there.proxy.always(fault, is_any)
    started = time.monotonic()
    with pytest.raises(Transient):
        there.call(call)
    assert time.monotonic() - started < SOON_S
    # aiohttp itself asks once more on a connection that was closed without an answer.
    assert len(there.proxy.played) <= (2 if fault is Fault.RESET else 1)
    there.check_it_works()


@pytest.mark.parametrize("fault", BEFORE_THE_ANSWER)
def test_a_fault_of_s3_at_a_stat_may_mend(s3_behind: Behind, fault: Fault) -> None:
    check_transient(s3_behind, fault, "stat")


@pytest.mark.parametrize("fault", [*BEFORE_THE_ANSWER, *IN_THE_BODY, *OF_THE_RANGE])
def test_a_fault_of_s3_at_a_read_may_mend(s3_behind: Behind, fault: Fault) -> None:
    check_transient(s3_behind, fault, "read")


@pytest.mark.parametrize("fault", [*BEFORE_THE_ANSWER, *IN_THE_BODY])
def test_a_fault_of_gcs_at_a_stat_may_mend(gcs_behind: Behind, fault: Fault) -> None:
    check_transient(gcs_behind, fault, "stat")


@pytest.mark.parametrize("fault", [*BEFORE_THE_ANSWER, *IN_THE_BODY, *OF_THE_RANGE])
def test_a_fault_of_gcs_at_a_read_may_mend(gcs_behind: Behind, fault: Fault) -> None:
    check_transient(gcs_behind, fault, "read")


@pytest.mark.parametrize("start, end", [(START, END), (0, len(DATA))])
def test_what_is_not_the_range_is_not_taken_for_it_though_it_is_as_long(
    s3_behind: Behind, gcs_behind: Behind, start: int, end: int
) -> None:
    for there in (s3_behind, gcs_behind):
        there.proxy.other_body = b"x" * (end - start)
        there.proxy.always(Fault.WHOLE_OBJECT)
        with pytest.raises(Transient, match="something else than the range"):
            there.bucket.read("data", there.pin, start, end)
        there.check_it_works()


def test_a_fault_and_then_another_and_then_the_data(s3_behind: Behind, gcs_behind: Behind) -> None:
    for there in (s3_behind, gcs_behind):
        there.proxy.script([Fault.SLOW_DOWN, Fault.HALF_BODY, None])
        for _ in range(2):
            with pytest.raises(Transient):
                there.call("read")
        assert there.call("read") == DATA[START:END]


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (400, "ExpiredToken", InvalidCredentials),
        (400, "AuthorizationHeaderMalformed", AccessDenied),
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidObjectState", AccessDenied),
        (404, "NoSuchKey", ObjectNotFound),
    ],
)
@pytest.mark.parametrize("call", ["stat", "read"])
def test_what_s3_refuses_for_good_is_known_for_that(
    s3_behind: Behind, call: str, status: int, code: str, kind: type[Terminal]
) -> None:
    s3_behind.proxy.always(Refusal(status, code), is_any)
    with pytest.raises(kind):
        s3_behind.call(call)
    # A stat asks once more, for the reason; and at a 400 botocore asks where the bucket is.
    assert len(s3_behind.proxy.played) <= 3
    s3_behind.check_it_works()


@pytest.mark.parametrize(
    "refusal",
    [Refusal(400, "RequestTimeout"), Refusal(409, "OperationAborted"), Refusal(503, "{0} {odd}")],
)
@pytest.mark.parametrize("call", ["stat", "read"])
def test_what_s3_refuses_for_a_while_is_not_taken_for_good(
    s3_behind: Behind, call: str, refusal: Refusal
) -> None:
    s3_behind.proxy.always(refusal, is_any)
    with pytest.raises(Transient):
        s3_behind.call(call)
    s3_behind.check_it_works()


@pytest.mark.parametrize(
    "status, call, kind",
    [
        (401, "stat", InvalidCredentials),
        (403, "stat", AccessDenied),
        (404, "stat", ObjectNotFound),
        (401, "read", InvalidCredentials),
        (403, "read", AccessDenied),
        (404, "read", ObjectChanged),  # of a generation that is gone GCS says the same
    ],
)
def test_what_gcs_refuses_for_good_is_known_for_that(
    gcs_behind: Behind, call: str, status: int, kind: type[Terminal]
) -> None:
    gcs_behind.proxy.always(Refusal(status, "refused"), lambda request: "/o/data" in request.target)
    with pytest.raises(kind):
        gcs_behind.call(call)
    assert len(gcs_behind.proxy.played) == 1
    gcs_behind.check_it_works()


# The flow


class Place:
    """A manifest in a store behind a proxy, and the shop whose job reads it there."""

    def __init__(self, shop: FlowShop, proxy: FaultyStore, gcs: GcsStore | None) -> None:
        self.shop = shop
        self.proxy = proxy
        self._gcs = gcs

    def put(self, data: bytes) -> None:
        """Straight to the store, past the proxy."""
        if self._gcs:
            self._gcs.put("m.jsonl", data)
        else:
            self.shop.put(data)

    def submit(self) -> str:
        if self._gcs:
            url = f"gs://{self._gcs.name}/m.jsonl"
            return self.shop.submit(manifest_url=url, credentials=None, delivery=None)
        address = self.shop._address
        credentials = S3Credentials(
            access_key_id=address.access_key_id,
            secret_access_key=address.secret_access_key,
            region="us-east-1",
            endpoint_url=self.proxy.url,
        )
        return self.shop.submit(credentials=msgspec.json.encode(credentials), delivery=None)


@pytest.fixture(params=["s3", "gcs"])
def place(
    request: pytest.FixtureRequest,
    prefect_server: None,
    database: Database,
    database_url: str,
    object_store: ObjectStoreAddress,
    gcs_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    gcs = GcsStore(gcs_url) if request.param == "gcs" else None
    retry_soon(monkeypatch)
    monkeypatch.setattr("blocks.buckets.answers.READ_TIMEOUT_S", 1.0)
    # Each range is read by requests of its own, so that there are many.
    monkeypatch.setattr("flows.reading.ranges._REQUEST_BYTES_MIN", 1)
    monkeypatch.setattr("flows.reading.ranges._AHEAD_BYTES", 0)
    with FaultyStore(gcs_url if gcs else object_store.endpoint_url) as proxy:
        changes = {
            "REFINERY_GCS_ENDPOINT_URL": proxy.url,
            "REFINERY_CHUNK_BYTES_MIN": "5000",
            "REFINERY_CHUNK_BYTES_MAX": "5000",
        }
        with flow_settings(monkeypatch, database_url, **changes):
            yield Place(FlowShop(database, object_store), proxy, gcs)


def test_a_manifest_from_a_store_with_every_fault_becomes_just_the_right_tasks(
    place: Place,
) -> None:
    manifest = make_manifest(2500, bad_share=0.05)
    place.put(manifest.data)
    faults = [*BEFORE_THE_ANSWER, *IN_THE_BODY, *OF_THE_RANGE]
    place.proxy.other_body = manifest.data
    # Five retries: one that reads two ranges, each refused twice, has one to spare.
    place.proxy.every(3, faults, times_per_range_max=2)
    job_id = place.submit()
    assert run(process_job, job_id).is_completed()
    check_created(place.shop, job_id, manifest)
    check_bad_lines(place.shop, job_id, [(offset, code) for _, offset, code in manifest.bad])
    assert {fault for fault, _ in place.proxy.played} == set(faults)
    assert len({request.range for request in place.proxy.requests}) > 30


def check_bad_lines(shop: FlowShop, job_id: str, expected: list[tuple[int, str]]) -> None:
    query = "select byte_offset, code from bad_lines join jobs using (job_no) where job_id = %s order by 1"
    with shop.database.transaction() as tx:
        rows: list[dict[str, Any]] = tx.execute(query, [job_id]).fetchall()
    assert [(row["byte_offset"], row["code"]) for row in rows] == expected


@pytest.mark.parametrize("status, code", [(403, "AccessDenied"), (404, "NoSuchKey")])
def test_a_read_that_is_refused_for_good_is_not_tried_again(
    place: Place, status: int, code: str
) -> None:
    place.put(make_manifest(300).data)
    place.proxy.always(Refusal(status, code))
    job_id = place.submit()
    assert run(process_job, job_id).is_failed()
    assert place.shop.job(job_id).status is JobStatus.FAILED
    assert place.proxy.ranged_reads == 1


def test_an_object_that_may_not_be_looked_at_is_not_asked_for_again(place: Place) -> None:
    place.put(make_manifest(300).data)
    place.proxy.always(Refusal(403, "AccessDenied"), is_any)
    job_id = place.submit()
    assert run(process_job, job_id).is_failed()
    assert place.shop.job(job_id).error_code == "access_denied"
    assert len(place.proxy.requests) <= 2


def test_a_manifest_that_is_overwritten_while_it_is_read_fails_the_job(place: Place) -> None:
    manifest = make_manifest(2500, bad_share=0)
    other = manifest.data.replace(b"/img.example.com/", b"/new.example.com/")
    assert len(other) == len(manifest.data)
    place.put(manifest.data)
    place.proxy.before_ranged_read(10, lambda: place.put(other))
    job_id = place.submit()
    assert run(process_job, job_id).is_failed()
    job = place.shop.job(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "manifest_changed")
    urls = [row["data_url"] for row in place.shop.rows(job_id)]
    assert urls
    assert not [url for url in urls if "//new.example.com/" in url]
