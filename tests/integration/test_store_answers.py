"""What a store answers costs no more than was asked for, and its bytes are what it holds."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

import pytest

from blocks.buckets.protocol import Bucket
from blocks.domain.errors import (
    AccessDenied,
    BucketNotFound,
    ContentEncodingRefused,
    ListingEndless,
    NotSupported,
    ObjectExists,
    RefineryError,
    StoreAnswerInvalid,
    Terminal,
    Transient,
    WrongRegion,
)
from blocks.domain.model import Pin
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.faulty_store import Answer, FaultyStore, Refusal, Request, is_any
from tests.support.raw_store import RawStore
from tests.support.stores import GcsStore, S3Store, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MIB = 1024 * 1024
DATA = b"0123456789"
# What a bounded answer may have, and what is on its way in the buffers of two sockets.
SENT_BYTES_MAX = 16 * MIB + 24 * MIB
FLOOD = (b"x" * MIB, 400)


@dataclass
class Behind:
    """Our bucket behind a store that lies, and the store."""

    proxy: FaultyStore
    store: S3Store | GcsStore
    bucket: Bucket
    pin: Pin

    @property
    def is_s3(self) -> bool:
        return isinstance(self.store, S3Store)

    def open(self) -> Bucket:
        """Return another bucket, with the bounds that are set by now."""
        return self.store.open_at(self.proxy.url)


@contextmanager
def _proxied(url: str, store: S3Store | GcsStore) -> Iterator[Behind]:
    store.put("data", DATA)
    with FaultyStore(url) as proxy:
        bucket = store.open_at(proxy.url)
        yield Behind(proxy, store, bucket, bucket.stat("data"))
    if isinstance(store, S3Store):
        store.client.close()


@pytest.fixture(scope="module")
def _s3(object_store: ObjectStoreAddress) -> Iterator[Behind]:
    with _proxied(object_store.endpoint_url, S3Store(object_store)) as found:
        yield found


@pytest.fixture(scope="module")
def _gcs(gcs_url: str) -> Iterator[Behind]:
    with _proxied(gcs_url, GcsStore(gcs_url)) as found:
        yield found


@pytest.fixture(params=["s3", "gcs"])
def behind(request: pytest.FixtureRequest) -> Behind:
    found: Behind = request.getfixturevalue(f"_{request.param}")
    found.proxy.reset()
    return found


@pytest.fixture
def s3(_s3: Behind) -> Behind:
    """For answers that GCS does not have."""
    _s3.proxy.reset()
    return _s3


CALLS: dict[str, Callable[[Bucket, Pin], object]] = {
    "stat": lambda bucket, _: bucket.stat("data"),
    "read": lambda bucket, pin: bucket.read("data", pin, 0, 10),
    "entries": lambda bucket, _: list(bucket.entries("")),
    "write": lambda bucket, _: write(bucket, "new", b"x"),
    "create": lambda bucket, _: bucket.create("new", b"x"),
    "probe": lambda bucket, _: bucket.probe_write("probe"),
    "delete": lambda bucket, _: bucket.delete("data"),
}


# How many bytes


@pytest.mark.parametrize("size", [1, 9])
def test_a_read_ends_with_the_range_whatever_the_store_sends(behind: Behind, size: int) -> None:
    block, times = FLOOD
    headers = {"Content-Range": f"bytes 0-{size - 1}/10", "ETag": behind.pin.version}
    behind.proxy.always(Answer(206, headers, block, times))
    with pytest.raises(Transient, match=f"more than {size} bytes"):
        behind.bucket.read("data", behind.pin, 0, size)
    assert behind.proxy.bytes_answered < 24 * MIB


def test_a_store_that_sends_the_whole_object_is_cut_off(behind: Behind) -> None:
    block, times = FLOOD
    behind.proxy.always(Answer(200, {"ETag": behind.pin.version}, block, times))
    with pytest.raises(Transient):
        behind.bucket.read("data", behind.pin, 0, 5)
    assert behind.proxy.bytes_answered < 24 * MIB


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 400, 404, 409, 412, 500])
def test_no_answer_is_read_without_a_bound(behind: Behind, call: str, status: int) -> None:
    block, times = FLOOD
    behind.proxy.always(Answer(status, {}, block, times), is_any)
    with suppress(RefineryError):  # some take no notice of the body of a 200
        CALLS[call](behind.bucket, behind.pin)
    assert behind.proxy.bytes_answered < SENT_BYTES_MAX * len(behind.proxy.played)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [100, 103])
def test_interim_answers_without_an_end_are_cut_off(behind: Behind, call: str, status: int) -> None:
    """By a store that anybody may write: each of them would renew the wait for the real answer."""
    answer = b"HTTP/1.1 %d Wait\r\n\r\n" % status * 1000
    flood = RawStore(answer, endless=True)
    with flood, pytest.raises(Transient, match="interim answers"):
        CALLS[call](behind.store.open_at(flood.url), behind.pin)


def test_a_few_interim_answers_are_passed_over(s3: Behind) -> None:
    found = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "1"\r\n\r\n'
    with RawStore(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + found) as store:
        assert s3.store.open_at(store.url).stat("data") == Pin(10, '"1"')


@pytest.mark.parametrize("status", [400, 403, 404, 418, 500, 501, 999])
@pytest.mark.parametrize("code", ["C" * 60_000, "<b>&amp;\n[x](y)", "{bucket}", "ö"])
def test_a_code_that_is_none_is_not_repeated(s3: Behind, status: int, code: str) -> None:
    text = f"<Error><Code><![CDATA[{code}]]></Code></Error>".encode()
    s3.proxy.always(Answer(status, {"Content-Type": "application/xml"}, text))
    with pytest.raises(RefineryError) as caught:
        s3.bucket.read("data", s3.pin, 0, 5)
    assert code not in caught.value.message
    assert str(status) in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("status", [402, 405, 406, 411, 416, 418, 451])
@pytest.mark.parametrize("call", CALLS)
def test_what_a_store_refuses_it_is_not_asked_again(behind: Behind, call: str, status: int) -> None:
    behind.proxy.always(Refusal(status, "Odd"), is_any)
    with pytest.raises(Terminal):
        CALLS[call](behind.bucket, behind.pin)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_what_time_may_mend_is_transient(behind: Behind, status: int) -> None:
    behind.proxy.always(Refusal(status, "Odd"), is_any)
    with pytest.raises(Transient, match="The store"):
        behind.bucket.stat("data")


@pytest.mark.parametrize(
    "headers, missing",
    [({}, "length"), ({"ETag": '"1"'}, "length"), ({"Content-Length": "10"}, "version")],
)
def test_an_object_of_which_too_little_is_told_is_refused(
    behind: Behind, headers: dict[str, str], missing: str
) -> None:
    if behind.is_s3:
        lines = ["HTTP/1.1 200 OK", "Connection: close", *map(": ".join, headers.items())]
        answer = "\r\n".join([*lines, "", ""])
    else:
        found = {"size": headers.get("Content-Length"), "generation": headers.get("ETag")}
        text = json.dumps(found)
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    with RawStore(answer.encode()) as store, pytest.raises(StoreAnswerInvalid, match=missing):
        behind.store.open_at(store.url).stat("data")


# For how long


def test_a_body_that_comes_too_slowly_is_given_up(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.buckets.answers._SLOW_S_MAX", 0.2)
    headers = {"Content-Range": "bytes 0-9/10", "ETag": behind.pin.version}
    behind.proxy.always(Answer(206, headers, b"x", times=10, pause_s=0.1))
    with pytest.raises(Transient, match="less than 16 KiB a second"):
        behind.bucket.read("data", behind.pin, 0, 10)


@pytest.mark.parametrize("call", ["stat", "read", "entries", "create"])
def test_a_store_that_drips_meets_the_deadline_of_a_request(
    behind: Behind, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.buckets.answers.REQUEST_S_MAX", 0.5)
    bucket = behind.open()
    headers = {"Content-Range": "bytes 0-9/10", "ETag": behind.pin.version}
    drip = Answer(206, headers, b"x", times=10, pause_s=0.1)
    behind.proxy.always(drip, lambda request: request.method != "HEAD")
    if call == "stat" and behind.is_s3:
        behind.proxy.script([Refusal(403, ""), drip, drip], is_any)
        # The body that would have told the reason is not waited for.
        with pytest.raises(AccessDenied):
            bucket.stat("data")
        return
    with pytest.raises(Transient, match="did not answer in time"):
        CALLS[call](bucket, behind.pin)


# How many pages


def page(behind: Behind, token: str) -> Answer:
    """Return one page of a listing, with an object in it, that names another page."""
    if behind.is_s3:
        text = (
            "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>k</Key><Size>1</Size>"
            '<ETag>"1"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>'
            f"<NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, text.encode())
    found = {"name": "k", "size": "1", "generation": "1", "updated": "2026-01-01T00:00:00Z"}
    text = json.dumps({"items": [found], "nextPageToken": token})
    return Answer(200, {"Content-Type": "application/json"}, text.encode())


def is_listing(request: Request) -> bool:
    return "list-type=2" in request.target or "/o?" in request.target or "uploads" in request.target


@pytest.mark.parametrize("tokens", [["a"], ["a", "b"], ["a", "b", "b"], [""]])
def test_a_listing_that_repeats_a_token_is_given_up(behind: Behind, tokens: list[str]) -> None:
    behind.proxy.script([page(behind, token) for token in tokens * 10], is_listing)
    with pytest.raises(ListingEndless, match="given before"):
        list(islice(behind.bucket.entries(""), 50))
    assert len(behind.proxy.played) <= len(tokens) + 1


def test_a_listing_that_never_ends_is_given_up(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.buckets.answers._PAGES_MAX", 5)
    behind.proxy.script([page(behind, f"t{n}") for n in range(50)], is_listing)
    with pytest.raises(ListingEndless, match="more than 5 pages"):
        list(islice(behind.bucket.entries(""), 40))


def empty_page(behind: Behind, n: int) -> Answer:
    if behind.is_s3:
        text = (
            f"<R><IsTruncated>true</IsTruncated><NextContinuationToken>{n}</NextContinuationToken>"
            f"<NextKeyMarker>{n}</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker></R>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, text.encode())
    return Answer(200, {}, json.dumps({"items": [], "nextPageToken": str(n)}).encode())


def test_nor_is_one_of_empty_pages_waited_for(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.buckets.s3._ABORTS_S_MAX", 0.0)
    behind.proxy.script([empty_page(behind, n) for n in range(50)], is_listing)
    with pytest.raises(Transient, match="took longer"):
        list(behind.bucket.entries("", seconds_max=0.0))
    assert len(behind.proxy.played) == 1
    if behind.is_s3:
        with pytest.raises(Transient, match="took longer"):
            behind.bucket.abort_uploads("out/")
        assert len(behind.proxy.played) == 2


def test_so_is_one_of_unfinished_uploads(s3: Behind) -> None:
    text = (
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>"
        "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>"
        "</ListMultipartUploadsResult>"
    )
    s3.proxy.always(Answer(200, {"Content-Type": "application/xml"}, text.encode()), is_listing)
    with pytest.raises(ListingEndless):
        s3.bucket.abort_uploads("out/")
    assert len(s3.proxy.played) == 2


# Content-Encoding


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", "aws-chunked,gzip", "br", "zstd", "identity, x"]
)
def test_an_object_that_is_stored_with_an_encoding_is_refused(
    behind: Behind, encoding: str
) -> None:
    if behind.is_s3:
        headers = {"Content-Encoding": encoding, "ETag": '"1"'}
        answer = Answer(200, headers, gzip.compress(DATA))
    else:
        found = {"size": "10", "generation": "1", "contentEncoding": encoding}
        answer = Answer(200, {}, json.dumps(found).encode())
    behind.proxy.always(answer, is_any)
    with pytest.raises(
        ContentEncodingRefused, match=r"Content-Encoding.*Store it without"
    ) as caught:
        behind.bucket.stat("data")
    assert caught.value.code == "content_encoding_not_supported"


@pytest.mark.parametrize("encoding", ["aws-chunked", "identity", "", "aws-chunked, identity"])
def test_what_changes_no_bytes_passes(s3: Behind, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "ETag": '"1"'}
    s3.proxy.always(Answer(200, headers, DATA), is_any)
    assert s3.bucket.stat("data") == Pin(10, '"1"')


def test_s3_itself_keeps_the_encoding_of_an_object(s3: Behind) -> None:
    assert isinstance(s3.store, S3Store)
    s3.store.client.put_object(
        Bucket=s3.store.name, Key="packed", Body=gzip.compress(DATA), ContentEncoding="gzip"
    )
    with pytest.raises(ContentEncodingRefused):
        s3.bucket.stat("packed")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_an_answer_that_says_it_is_packed_is_not_unpacked(behind: Behind, encoding: str) -> None:
    packed = gzip.compress(b"y" * 1000)
    headers = {
        "Content-Range": f"bytes 0-{len(packed) - 1}/10",
        "Content-Encoding": encoding,
        "ETag": behind.pin.version,
    }
    behind.proxy.always(Answer(206, headers, packed))
    with pytest.raises(ContentEncodingRefused):
        behind.bucket.read("data", behind.pin, 0, len(packed))
    asked = [request for request in behind.proxy.requests if request.is_ranged_read]
    assert {request.headers.get("accept-encoding") for request in asked} == {"identity"}


# What a store never does


@pytest.mark.parametrize("size", [1, 17 * MIB])
def test_a_body_waits_for_no_leave(s3: Behind, size: int) -> None:
    """A store that does not know `Expect` reads on, and so would both of them, for ever."""
    write(s3.bucket, "large", b"x" * size)
    sent = [request for request in s3.proxy.requests if request.method == "PUT"]
    assert sent
    assert not any("expect" in request.headers for request in sent)


def is_conditional(request: Request) -> bool:
    return "if-none-match" in request.headers


def test_without_conditions_an_object_is_created_all_the_same(s3: Behind) -> None:
    s3.proxy.always(Refusal(501, "NotImplemented"), is_conditional)
    with pytest.raises(NotSupported, match="NotImplemented"):
        s3.bucket.create("plain", b"1")
    for _ in range(2):
        s3.bucket.create("plain", b"1", is_conditional=False)
    assert s3.store.get("plain") == b"1"
    with pytest.raises(ObjectExists):
        s3.bucket.create("plain", b"2", is_conditional=False)
    assert s3.store.get("plain") == b"1"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", ["NotImplemented", "Odd{}", ""])
def test_501_is_for_good(behind: Behind, call: str, code: str) -> None:
    behind.proxy.always(Refusal(501, code), is_any)
    with pytest.raises(NotSupported):
        CALLS[call](behind.bucket, behind.pin)


# Preflight's probe


def test_a_probe_leaves_nothing_behind(behind: Behind) -> None:
    before = [entry.key for entry in behind.bucket.entries("")]
    behind.bucket.probe_write("out/probe")
    assert [entry.key for entry in behind.bucket.entries("")] == before
    if isinstance(behind.store, S3Store):
        assert any(is_conditional(request) for request in behind.proxy.requests)
        assert behind.store.unfinished() == []


def test_a_probe_makes_no_bucket(behind: Behind) -> None:
    with pytest.raises(BucketNotFound, match="no bucket 'not-made-yet'"):
        behind.store.open("not-made-yet").probe_write("out/probe")
    with pytest.raises(BucketNotFound):
        behind.store.open("not-made-yet").stat("x")
    if isinstance(behind.store, S3Store):
        buckets = behind.store.client.list_buckets()["Buckets"]
        assert "not-made-yet" not in {bucket["Name"] for bucket in buckets}


def test_a_probe_passes_where_a_delivery_would_fall_back(s3: Behind) -> None:
    s3.proxy.always(Refusal(501, "NotImplemented"), is_conditional)
    s3.bucket.probe_write("out/probe")
    assert s3.store.get("out/probe") is None


def test_a_probe_removes_no_object_that_it_has_not_made(s3: Behind) -> None:
    s3.store.put("theirs", b"theirs")
    s3.bucket.probe_write("theirs")
    s3.proxy.always(Refusal(501, "NotImplemented"), is_conditional)
    s3.bucket.probe_write("theirs")
    assert s3.store.get("theirs") == b"theirs"


@pytest.mark.parametrize("heeds", [True, False])
def test_a_probe_leaves_no_version_behind(s3: Behind, heeds: bool) -> None:
    assert isinstance(s3.store, S3Store)
    client, name = s3.store.client, s3.store.name
    status = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration=status)

    def remove(request: Request) -> None:
        if is_conditional(request):
            client.delete_object(Bucket=name, Key="versioned/probe")

    try:
        if not heeds:
            s3.proxy._choose = remove
        s3.bucket.probe_write("versioned/probe")
        found = client.list_object_versions(Bucket=name, Prefix="versioned/")
        assert found.get("Versions", []) == []
    finally:
        status = {"Status": "Suspended"}
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration=status)


@pytest.mark.parametrize("method, target", [("DELETE", "/probe"), ("HEAD", "")])
def test_who_may_write_but_neither_delete_nor_look_passes(
    s3: Behind, method: str, target: str
) -> None:
    s3.proxy.always(
        Refusal(403, "AccessDenied"),
        lambda request: (
            request.method == method
            and request.target.partition("?")[0].endswith(target)
            and "uploadId" not in request.target
        ),
    )
    s3.bucket.probe_write("probe")
    s3.proxy.reset()
    s3.bucket.delete("probe")


@pytest.mark.parametrize("what", ["if-none-match", "uploads"])
def test_a_probe_finds_what_a_delivery_may_not_do(s3: Behind, what: str) -> None:
    s3.proxy.always(
        Refusal(403, "AccessDenied"),
        lambda request: what in request.headers or what in request.target,
    )
    with pytest.raises(AccessDenied):
        s3.bucket.probe_write("out/probe")
    s3.proxy.reset()
    assert s3.store.get("out/probe") is None


# A wrong region

XML = {"Content-Type": "application/xml"}
MALFORMED = (
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-central-1'</Message>"
    b"<Region>eu-central-1</Region></Error>"
)
MOVED = b"<Error><Code>PermanentRedirect</Code><Message>moved</Message></Error>"
REGION = {"x-amz-bucket-region": "eu-central-1"}
REGIONS = {
    "in the body alone": (Answer(400, XML), Answer(400, XML, MALFORMED)),
    "in a header": (Answer(400, REGION), Answer(400, XML | REGION, MALFORMED)),
    "a redirect without a place": (Answer(301, REGION), Answer(301, XML | REGION, MOVED)),
}


@pytest.mark.parametrize("where", REGIONS)
@pytest.mark.parametrize("call", ["stat", "read", "entries", "write", "create", "probe"])
def test_a_wrong_region_is_told_with_the_right_one(s3: Behind, where: str, call: str) -> None:
    head, other = REGIONS[where]
    s3.proxy.always(other, lambda request: "/us-east-1/" in signed_for(request))
    choose = s3.proxy._choose
    s3.proxy._choose = lambda request: head if request.method == "HEAD" else choose(request)
    with pytest.raises(WrongRegion, match=r"'eu-central-1'.*'us-east-1'"):
        CALLS[call](s3.open(), s3.pin)


def signed_for(request: Request) -> str:
    return request.headers.get("authorization", "")
