"""What every bucket does, whichever store it is in; each store is read and written behind our back too."""

import hashlib
import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.buckets.gcs import GcsBucket
from blocks.buckets.protocol import Bucket
from blocks.buckets.s3 import S3Bucket
from blocks.buckets.uploads import GcsUpload, S3Upload
from blocks.domain.errors import (
    BucketNotFound,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    Transient,
)
from blocks.domain.model import Pin
from deployments.embedded.ports import free_port
from tests.support.stores import MIB, GcsStore, Killed, S3Store, Store, write

pytestmark = [
    pytest.mark.integration,
    # aiohttp on the way that gcsfs sends the parts of an upload.
    pytest.mark.filterwarnings("ignore:Sending a large body directly"),
]
NAMES = [
    "plain", "with space", "a+b", "100%", "a%20b", "a#1", "a?x=1", "a&b=c;d:e,f", "Ünï/🦊.jsonl",
    "deep/er/name", "quote'\"s", "[1]{2}", "back\\slash", "~.-_", "a#1795457815048434",
    "a?generation=1795457815048434",
]  # fmt: skip


@pytest.fixture(scope="module", params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "s3":
        s3 = S3Store(request.getfixturevalue("object_store"))
        yield s3
        s3.client.close()
    else:
        yield GcsStore(request.getfixturevalue("gcs_url"))


@pytest.fixture(scope="module")
def bucket(store: Store) -> Bucket:
    return store.open()


def test_stat_tells_the_size(store: Store, bucket: Bucket) -> None:
    store.put("stat", b"0123456789")
    assert bucket.stat("stat").size == 10


def test_the_version_stays_until_the_object_is_replaced(store: Store, bucket: Bucket) -> None:
    store.put("version", b"one")
    first = bucket.stat("version")
    assert bucket.stat("version") == first
    store.put("version", b"two")
    assert bucket.stat("version").version != first.version


@pytest.mark.parametrize("start, end", [(0, 10), (0, 1), (3, 7), (9, 10)])
def test_a_ranged_read_has_just_those_bytes(
    store: Store, bucket: Bucket, start: int, end: int
) -> None:
    data = b"0123456789"
    store.put("range", data)
    assert bucket.read("range", bucket.stat("range"), start, end) == data[start:end]


def test_a_read_beyond_the_end_is_not_taken_for_whole(store: Store, bucket: Bucket) -> None:
    store.put("short", b"0123456789")
    with pytest.raises(Transient, match="10 bytes where 20"):
        bucket.read("short", bucket.stat("short"), 0, 20)


def test_an_object_that_was_replaced_is_not_read(store: Store, bucket: Bucket) -> None:
    store.put("replaced", b"one")
    pin = bucket.stat("replaced")
    assert bucket.read("replaced", pin, 0, 3) == b"one"
    store.put("replaced", b"two")
    with pytest.raises(ObjectChanged, match="replaced"):
        bucket.read("replaced", pin, 0, 3)
    assert bucket.read("replaced", bucket.stat("replaced"), 0, 3) == b"two"


def test_an_object_that_was_deleted_is_not_read(store: Store, bucket: Bucket) -> None:
    store.put("deleted", b"one")
    pin = bucket.stat("deleted")
    store.delete("deleted")
    with pytest.raises((ObjectChanged, ObjectNotFound)):
        bucket.read("deleted", pin, 0, 3)


def test_what_is_written_is_there_when_the_file_is_closed(store: Store, bucket: Bucket) -> None:
    with bucket.write("written") as file:
        file.write(b"one, ")
        file.write(b"two")
        assert store.get("written") is None
    assert store.get("written") == b"one, two"


def test_an_empty_object_can_be_written(store: Store, bucket: Bucket) -> None:
    write(bucket, "empty", b"")
    assert store.get("empty") == b""
    assert bucket.stat("empty").size == 0


def test_writing_replaces_what_stands_there(store: Store, bucket: Bucket) -> None:
    store.put("again", b"something longer")
    write(bucket, "again", b"new")
    assert store.get("again") == b"new"


@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB + 1, 37 * MIB + 5])
def test_an_object_of_many_parts_has_the_same_bytes(
    store: Store, bucket: Bucket, size: int
) -> None:
    data = secrets.token_bytes(MIB + 7) * (size // MIB + 1)
    data = data[:size]
    with bucket.write("large") as file:
        for at in range(0, size, 3 * MIB):
            file.write(data[at : at + 3 * MIB])
    found = store.get("large")
    assert found is not None
    assert len(found) == size
    assert found == data
    pin = bucket.stat("large")
    middle = 16 * MIB - 10
    assert bucket.read("large", pin, middle, size) == data[middle:]


def break_off(bucket: Bucket, key: str, data: bytes, error: BaseException) -> None:
    """Write, and raise before the end."""
    with bucket.write(key) as file:
        file.write(data)
        raise error


@pytest.mark.parametrize("size", [0, 10, 20 * MIB])
def test_a_write_that_is_broken_off_leaves_no_object(
    store: Store, bucket: Bucket, size: int
) -> None:
    with pytest.raises(Killed):
        break_off(bucket, f"broken {size}", b"x" * size, Killed())
    assert store.get(f"broken {size}") is None


@pytest.mark.parametrize("size", [10, 20 * MIB])
def test_a_write_that_is_broken_off_leaves_the_old_object(
    store: Store, bucket: Bucket, size: int
) -> None:
    store.put(f"old {size}", b"old")
    with pytest.raises(Killed):
        break_off(bucket, f"old {size}", b"x" * size, Killed())
    assert store.get(f"old {size}") == b"old"


def test_an_error_of_the_writer_is_not_taken_for_one_of_the_store(bucket: Bucket) -> None:
    with pytest.raises(KeyError):
        break_off(bucket, "writer", b"x", KeyError("a mistake of ours"))


def test_an_object_is_created(store: Store, bucket: Bucket) -> None:
    bucket.create("created", b"{}")
    assert store.get("created") == b"{}"


def test_creating_the_same_object_again_passes(store: Store, bucket: Bucket) -> None:
    for _ in range(3):
        bucket.create("twice", b"same")
    assert store.get("twice") == b"same"


def test_creating_another_object_under_the_name_is_refused(store: Store, bucket: Bucket) -> None:
    store.put("taken", b"theirs")
    with pytest.raises(ObjectExists) as caught:
        bucket.create("taken", b"ours")
    assert store.get("taken") == b"theirs"
    assert "{" not in caught.value.message
    assert "taken" in caught.value.message


def test_a_missing_object_is_told_by_its_name(bucket: Bucket) -> None:
    with pytest.raises(ObjectNotFound, match="no such object") as caught:
        bucket.stat("no such object")
    assert "There is no object" in caught.value.message


def test_a_prefix_is_no_object(store: Store, bucket: Bucket) -> None:
    store.put("folder/file", b"x")
    with pytest.raises(ObjectNotFound):
        bucket.stat("folder")


def test_a_missing_bucket_is_told_from_a_missing_object(store: Store) -> None:
    with pytest.raises(BucketNotFound, match="no-such-bucket-here"):
        store.open("no-such-bucket-here").stat("file")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_as_they_are(store: Store, bucket: Bucket, name: str) -> None:
    data = f"the object {name}".encode()
    write(bucket, name, data)
    assert store.get(name) == data
    pin = bucket.stat(name)
    assert pin == Pin(len(data), pin.version)
    assert bucket.read(name, pin, 4, len(data)) == data[4:]
    bucket.create(f"{name} new", data)
    bucket.create(f"{name} new", data)
    assert store.get(f"{name} new") == data


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs tries six times, with half a minute in between."""

    async def sleep(_: float) -> None:
        return

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=sleep))


def test_a_store_that_cannot_be_reached_may_be_there_later(store: Store, no_waiting: None) -> None:
    away = store.open_at(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Transient):
        away.read("any", Pin(1, "1"), 0, 1)


class DeadServer:
    """Takes connections, counts them, and hangs up."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_retries_are_ours_alone_and_the_client_makes_none(store: Store, no_waiting: None) -> None:
    with closing(DeadServer()) as server:
        bucket = store.open_at(server.url)
        with pytest.raises(Transient):
            bucket.read("any", Pin(1, "1"), 0, 1)
        # aiohttp itself asks once more on a connection that was closed without an answer.
        assert server.connections <= 2


def test_objects_below_a_prefix_are_listed_and_deleted(store: Store, bucket: Bucket) -> None:
    began = datetime.now(UTC)
    for name in ("listed/a", "listed/b/c", "listed-not"):
        store.put(name, b"x")
    found = list(bucket.entries("listed/"))
    assert [entry.key for entry in found] == ["listed/a", "listed/b/c"]
    for entry in found:
        assert entry.pin == bucket.stat(entry.key)
        assert abs(entry.modified_at - began) < timedelta(seconds=30)
    bucket.delete("listed/a")
    bucket.delete("listed/a")
    assert [entry.key for entry in bucket.entries("listed/")] == ["listed/b/c"]
    assert list(bucket.entries("there is nothing/")) == []


@pytest.mark.parametrize("store", ["s3"], indirect=True)  # the emulator of GCS takes 20 s for them
def test_a_listing_goes_on_from_page_to_page(store: Store, bucket: Bucket) -> None:
    names = [f"paged/{n:04d}" for n in range(1005)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.put(name, b"x"), names))
    assert [entry.key for entry in bucket.entries("paged/")] == names


def test_a_file_knows_what_was_written(bucket: Bucket) -> None:
    data = secrets.token_bytes(17 * MIB)
    with bucket.write("known") as file:
        file.write(data)
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", [10, 20 * MIB])
def test_what_arrived_otherwise_is_not_taken_for_written(
    store: Store, bucket: Bucket, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the store had lost a bit: its checksum is another, and so are the bytes."""
    for upload in (S3Upload, GcsUpload):
        finish = upload.finish

        def damage(self: Any, finish: Any = finish) -> None:
            finish(self)
            store.put("damaged", b"y" * size)

        monkeypatch.setattr(upload, "finish", damage)
    with pytest.raises(Transient, match="other bytes"):
        write(bucket, "damaged", b"x" * size)


@pytest.mark.parametrize("size", [10, 20 * MIB])
def test_where_checksums_tell_nothing_the_object_is_read_back(
    bucket: Bucket, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the store encrypts: its checksum is not of what was sent."""
    finish = S3Upload.finish

    def encrypt(self: S3Upload) -> None:
        finish(self)
        self.expected_etag = '"of something else"'

    monkeypatch.setattr(S3Upload, "finish", encrypt)
    monkeypatch.setattr(GcsUpload, "md5", "of something else")
    reads: list[str] = []
    for kind in (S3Bucket, GcsBucket):
        read = kind.read

        def note(self: Any, key: str, *where: Any, read: Any = read) -> bytes:
            reads.append(key)
            found: bytes = read(self, key, *where)
            return found

        monkeypatch.setattr(kind, "read", note)
    with bucket.write("encrypted") as file:
        file.write(b"x" * size)
    assert reads
