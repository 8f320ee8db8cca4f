"""Results as objects: whole, in parts of bounded size, the same bytes every time."""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.buckets import Bucket
from blocks.errors import ObjectExists, ObjectNotFound, Transient
from blocks.model import DeliveryStatus, JobStatus, Pin, TaskType
from blocks.store.jobs import DeliveryTarget, Job
from flows.delivery import (
    DeliveredObject,
    compression_of,
    encode_manifest,
    folder_of,
    write_object,
    write_parts,
)

COMPRESSIONS = ["none", "gzip", "zstd"]
EXTENSIONS = {"none": "", "gzip": ".gz", "zstd": ".zst"}


class MemoryBucket:
    """A bucket that is a dict. `fails_at_close` is a store that refuses to complete an upload."""

    def __init__(self, *, fails_at_close: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []
        self.fails_at_close = fails_at_close

    def stat(self, key: str) -> Pin:
        if key not in self.objects:
            raise ObjectNotFound(f"There is no object {key!r}.")
        return Pin(len(self.objects[key]), hashlib.md5(self.objects[key]).hexdigest())

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        assert self.stat(key) == pin
        return self.objects[key][start:end]

    @contextmanager
    def write(self, key: str) -> Iterator[IO[bytes]]:
        file = io.BytesIO()
        yield file
        if self.fails_at_close:
            raise Transient("The store cannot be reached.")
        self.objects[key] = file.getvalue()
        self.written.append(key)

    def create(self, key: str, data: bytes) -> None:
        if self.objects.setdefault(key, data) != data:
            raise ObjectExists(f"Another object stands in {key}.")


def decompress(data: bytes, compression: str) -> bytes:
    match compression:
        case "gzip":
            return gzip.decompress(data)
        case "zstd":
            with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
                plain: bytes = stream.read()
                return plain
    return data


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(b'{"line":%d,"x":"%d"}\n' % (n, n * n) for n in range(first, first + count))


BLOCKS = [lines(1000), lines(1), lines(500, 7), '{"x":"ä😀"}\n'.encode()]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_object_holds_what_was_written_and_its_description_is_of_what_is_stored(
    compression: str,
) -> None:
    bucket: Bucket = (memory := MemoryBucket())
    found = write_object(bucket, "a/b.jsonl", iter(BLOCKS), compression=compression)
    stored = memory.objects["a/b.jsonl"]
    assert decompress(stored, compression) == b"".join(BLOCKS)
    assert found == DeliveredObject(
        "a/b.jsonl", 1502, len(stored), hashlib.sha256(stored).hexdigest()
    )
    assert (len(stored) < len(b"".join(BLOCKS)) / 2) == (compression != "none")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nothing_to_write_is_an_object_without_rows(compression: str) -> None:
    bucket = MemoryBucket()
    found = write_object(bucket, "errors.jsonl", [], compression=compression)
    assert decompress(bucket.objects["errors.jsonl"], compression) == b""
    assert found.rows == 0
    assert found.bytes == len(bucket.objects["errors.jsonl"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_same_rows_give_the_same_bytes_at_any_time(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = MemoryBucket(), MemoryBucket()
    before = write_parts(first, "f", BLOCKS, compression=compression, part_bytes_max=20_000)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    after = write_parts(second, "f", BLOCKS, compression=compression, part_bytes_max=20_000)
    assert first.objects == second.objects
    assert before == after
    assert len(before) == 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_and_however_they_are_cut_into_blocks(compression: str) -> None:
    data = lines(30_000)
    hashes = set()
    for size in (1000, 4096, 65_537, len(data)):
        blocks = [data[at : at + size] for at in range(0, len(data), size)]
        hashes.add(write_object(MemoryBucket(), "k", blocks, compression=compression).sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_part_ends_with_the_block_that_takes_it_to_its_size(compression: str) -> None:
    bucket = MemoryBucket()
    blocks = [b"x" * 9 + b"\n" for _ in range(7)]
    parts = write_parts(bucket, "p/job_1", blocks, compression=compression, part_bytes_max=25)
    assert [part.rows for part in parts] == [3, 3, 1]
    keys = [f"p/job_1/part-{n:05d}.jsonl{EXTENSIONS[compression]}" for n in range(3)]
    assert [part.key for part in parts] == keys == bucket.written
    plain = [decompress(bucket.objects[key], compression) for key in keys]
    assert plain == [b"".join(blocks[:3]), b"".join(blocks[3:6]), blocks[6]]


@pytest.mark.parametrize(
    "part_bytes_max, rows",
    [
        (1, [1, 1, 1, 1]),
        (10, [1, 1, 1, 1]),
        (11, [2, 2]),
        (20, [2, 2]),
        (21, [3, 1]),
        (40, [4]),
        (10**9, [4]),
    ],
)
def test_no_part_is_empty_and_none_is_missing(part_bytes_max: int, rows: list[int]) -> None:
    blocks = [b"x" * 9 + b"\n"] * 4
    parts = write_parts(MemoryBucket(), "f", blocks, part_bytes_max=part_bytes_max)
    assert [part.rows for part in parts] == rows


def test_no_results_are_no_parts() -> None:
    bucket = MemoryBucket()
    assert write_parts(bucket, "f", [], part_bytes_max=100) == []
    assert bucket.objects == {}


@given(st.lists(st.binary(min_size=1, max_size=30)), st.integers(1, 100))
def test_the_parts_together_are_the_blocks(blocks: list[bytes], part_bytes_max: int) -> None:
    bucket = MemoryBucket()
    parts = write_parts(bucket, "f", blocks, part_bytes_max=part_bytes_max)
    assert b"".join(bucket.objects[part.key] for part in parts) == b"".join(blocks)
    assert sum(part.bytes for part in parts) == sum(map(len, blocks))
    assert sum(part.rows for part in parts) == b"".join(blocks).count(b"\n")
    assert all(part.bytes < part_bytes_max + 30 for part in parts)
    assert all(part.bytes >= part_bytes_max for part in parts[:-1])


def test_blocks_are_written_as_they_come_and_not_collected() -> None:
    given_out = 0

    def blocks() -> Iterator[bytes]:
        nonlocal given_out
        for _ in range(100):
            given_out += 1
            yield b"x" * 9 + b"\n"

    class Watching(MemoryBucket):
        @contextmanager
        def write(self, key: str) -> Iterator[IO[bytes]]:
            with super().write(key) as file:
                opened.append(given_out)
                yield file

    opened: list[int] = []
    write_parts(Watching(), "f", blocks(), part_bytes_max=100)
    assert opened == list(range(1, 100, 10))


class Broken(Exception):
    """The connection to the database went away."""


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("before", [0, 1, 50])
def test_an_exception_in_the_middle_leaves_no_object(compression: str, before: int) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(before):
            yield lines(5000)
        raise Broken

    bucket = MemoryBucket()
    with pytest.raises(Broken):
        write_object(bucket, "f/errors.jsonl", blocks(), compression=compression)
    assert bucket.objects == {}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_exception_in_a_later_part_leaves_the_parts_before_it_only(compression: str) -> None:
    def blocks() -> Iterator[bytes]:
        yield from [lines(10), lines(10), lines(10)]
        raise Broken

    bucket = MemoryBucket()
    with pytest.raises(Broken):
        write_parts(
            bucket, "f", blocks(), compression=compression, part_bytes_max=len(lines(10)) + 1
        )
    name = f"f/part-00000.jsonl{EXTENSIONS[compression]}"
    assert list(bucket.objects) == [name]
    assert decompress(bucket.objects[name], compression) == lines(10) * 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_upload_that_could_not_be_completed_is_not_delivered(compression: str) -> None:
    bucket = MemoryBucket(fails_at_close=True)
    with pytest.raises(Transient):
        write_parts(bucket, "f", [lines(1)], compression=compression, part_bytes_max=100)
    assert bucket.objects == {}


def make_job(prefix: str = "p", compression: str = "none") -> Job:
    return Job(
        job_no=1,
        job_id="job_1",
        customer_id="cust_1",
        status=JobStatus.PROCESSING,
        manifest_url="s3://bucket/key",
        question="Cat?",
        options=["yes", "no"],
        consensus_threshold=3,
        task_type=TaskType.IMAGE_CLASSIFICATION,
        callback_url=None,
        metadata=None,
        priority=5,
        stop_early=False,
        failure_threshold_percent=100,
        credentials=b"sealed-secret",
        delivery=DeliveryTarget("s3", "results", prefix, compression, None, None),
        delivery_status=DeliveryStatus.DELIVERING,
        delivery_error_code=None,
        delivery_error_message=None,
        delivery_objects=None,
        delivered_at=None,
        manifest_bytes=10,
        manifest_version='"etag"',
        chunk_bytes=10,
        error_code=None,
        error_message=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        started_at=None,
        ingested_at=None,
        settled_at=None,
        completed_at=None,
        total_tasks=5,
        tasks_done=3,
        tasks_failed=2,
        lines_read=6,
    )


@pytest.mark.parametrize(
    "prefix, folder", [("", "job_1"), ("p", "p/job_1"), ("a/b c", "a/b c/job_1")]
)
def test_the_objects_of_a_job_go_to_a_folder_of_its_own(prefix: str, folder: str) -> None:
    assert folder_of(make_job(prefix)) == folder


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_manifest_lists_every_object_and_the_counters(compression: str) -> None:
    job = make_job(compression=compression)
    objects = [DeliveredObject("p/job_1/part-00000.jsonl", 3, 99, "ab" * 32)]
    encoded = encode_manifest(job, objects)
    assert compression_of(job) == compression
    assert json.loads(encoded) == {
        "job_id": "job_1",
        "format": "jsonl",
        "compression": compression,
        "total_tasks": 5,
        "tasks_done": 3,
        "tasks_failed": 2,
        "objects": [
            {"key": "p/job_1/part-00000.jsonl", "rows": 3, "bytes": 99, "sha256": "ab" * 32}
        ],
    }
    assert encoded.endswith(b"}\n")
    assert encoded == encode_manifest(job, objects)
    assert b"sealed-secret" not in encoded
