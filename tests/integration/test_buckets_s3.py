"""What is particular to S3: who may, how fast it is known, and where we do not go."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blocks.buckets.protocol import Bucket
from blocks.buckets.uploads import S3Upload
from blocks.domain.errors import AddressRefused, InvalidCredentials, RefineryError, Transient
from blocks.domain.model import Pin
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.stores import MIB, Killed, S3Store, write

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def store(object_store: ObjectStoreAddress) -> Iterator[S3Store]:
    found = S3Store(object_store)
    yield found
    found.client.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds a bucket waited before each try again; it does not wait for real."""
    found: list[float] = []
    sleep, pause = asyncio.sleep, time.sleep

    def is_buckets() -> bool:
        # Other tests have left threads, of Prefect for one.
        return threading.current_thread().name in {"MainThread", "fsspecIO"}

    async def wait_async(delay: float, result: object = None) -> object:
        if not is_buckets():
            return await sleep(delay, result)
        if delay > 0:
            found.append(delay)
        return await sleep(0, result)

    def wait(delay: float) -> None:
        if is_buckets():
            found.append(delay)
        else:
            pause(delay)

    monkeypatch.setattr(asyncio, "sleep", wait_async)
    monkeypatch.setattr(time, "sleep", wait)
    return found


CALLS: dict[str, Callable[[Bucket], object]] = {
    "stat": lambda bucket: bucket.stat("there"),
    "read": lambda bucket: bucket.read("there", Pin(1, '"x"'), 0, 1),
    "write": lambda bucket: write(bucket, "new", b"x"),
    "write in parts": lambda bucket: write(bucket, "new", b"x" * (17 * MIB)),
    "create": lambda bucket: bucket.create("new", b"x"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"secret_access_key": "not the secret"}, "secret access key is wrong"),
        ({"access_key_id": "AKIANOBODY"}, "does not know the access key id"),
    ],
)
def test_wrong_credentials_are_known_for_what_they_are_at_once(
    store: S3Store, waits: list[float], call: str, wrong: dict[str, str], sentence: str
) -> None:
    store.put("there", b"x")
    bucket = store.open(**wrong)
    with pytest.raises(InvalidCredentials, match=sentence):
        CALLS[call](bucket)
    assert sum(waits) < 1  # s3fs tries once more
    assert store.get("new") is None


def test_no_credential_is_in_an_error(store: S3Store) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        store.open(secret_access_key="canary-secret", access_key_id="canary-id").stat("x")
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_listed_uploads_are_those_that_were_begun(store: S3Store) -> None:
    # Without this, an empty list below would prove nothing.
    upload = store.client.create_multipart_upload(Bucket=store.name, Key="begun")
    assert store.unfinished() == ["begun"]
    store.client.abort_multipart_upload(Bucket=store.name, Key="begun", UploadId=upload["UploadId"])
    assert store.unfinished() == []


def test_a_write_that_is_broken_off_leaves_no_unfinished_upload(store: S3Store) -> None:
    def write_some() -> None:
        with store.open().write("broken") as file:
            file.write(b"x" * (20 * MIB))
            assert store.unfinished() == ["broken"]
            raise Killed

    with pytest.raises(Killed):
        write_some()
    assert store.unfinished() == []


def test_a_write_that_fails_at_its_last_request_leaves_no_unfinished_upload(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(S3Upload, "finish", fail)
    with pytest.raises(Transient):
        write(store.open(), "last", b"x" * (20 * MIB))
    assert store.get("last") is None
    assert store.unfinished() == []


def test_what_others_left_unfinished_below_a_prefix_is_aborted(store: S3Store) -> None:
    for key in ("out/job_1/part", "out/job_1/deep/part", "out/job_10/part"):
        store.client.create_multipart_upload(Bucket=store.name, Key=key)
    store.open().abort_uploads("out/job_1/")
    assert store.unfinished() == ["out/job_10/part"]
    store.open().abort_uploads("out/")
    assert store.unfinished() == []


def test_a_name_that_looks_like_a_version_is_a_name(store: S3Store) -> None:
    write(store.open(), "results?versionId=1/part-00000.jsonl", b"data")
    assert store.get("results") is None
    assert store.get("results?versionId=1/part-00000.jsonl") == b"data"


# Where we do not go

HOSTS = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"]
NETWORKS = ["10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "[fe80::1]", "[fd00::1]"]


@pytest.mark.parametrize("host", [*HOSTS, *NETWORKS])
def test_a_private_endpoint_is_refused(store: S3Store, waits: list[float], host: str) -> None:
    with pytest.raises(AddressRefused):
        store.open(allow="", endpoint_url=f"http://{host}:8333")
    assert waits == []


def test_the_metadata_service_is_refused_though_others_are_allowed(store: S3Store) -> None:
    with pytest.raises(AddressRefused):
        store.open(allow="127.0.0.0/8,10.0.0.0/8", endpoint_url="http://169.254.169.254")


@pytest.mark.parametrize(
    "allow", ["localhost", "127.0.0.1,::1", "127.0.0.0/8, ::1/128", "LOCALHOST"]
)
def test_what_the_operator_allows_is_reached_by_its_name(
    store: S3Store, object_store: ObjectStoreAddress, allow: str
) -> None:
    store.put("allowed", b"x")
    url = object_store.endpoint_url.replace("127.0.0.1", "localhost")
    assert store.open(allow=allow, endpoint_url=url).stat("allowed").size == 1


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to: one address after the other, the last for ever."""
    found: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host not in found:
            return real(host, port, *rest, **options)
        addresses = found[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


def rename(address: ObjectStoreAddress, name: str) -> str:
    return address.endpoint_url.replace("127.0.0.1", name)


def test_a_name_that_resolves_to_a_private_address_is_refused(
    store: S3Store, object_store: ObjectStoreAddress, names: dict[str, list[str]]
) -> None:
    names["storage.example.com"] = ["127.0.0.1"]
    with pytest.raises(AddressRefused, match=r"storage\.example\.com"):
        store.open(allow="", endpoint_url=rename(object_store, "storage.example.com"))


@pytest.mark.parametrize("call", ["read", "write in parts"])
def test_a_name_that_turns_private_after_it_was_checked_is_refused_at_once(
    store: S3Store,
    object_store: ObjectStoreAddress,
    names: dict[str, list[str]],
    waits: list[float],
    call: str,
) -> None:
    names["turn.example.com"] = ["93.184.216.34", "127.0.0.1"]
    bucket = store.open(allow="", endpoint_url=rename(object_store, "turn.example.com"))
    with pytest.raises(AddressRefused):
        CALLS[call](bucket)
    assert sum(waits) < 1  # s3fs tries once more
    assert store.get("new") is None


def test_a_name_that_does_not_resolve_is_refused_with_a_sentence(store: S3Store) -> None:
    with pytest.raises(RefineryError, match="cannot be resolved"):
        store.open(allow="", endpoint_url="http://nowhere.invalid")
