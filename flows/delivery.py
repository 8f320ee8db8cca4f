"""Results as objects: JSON lines in parts, with their SHA-256. No Prefect, no SQL."""

import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, cast

import msgspec
import pyarrow as pa

from blocks.buckets import Bucket
from blocks.store.jobs import Job

_EXTENSIONS = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_GZIP_LEVEL = 6


class DeliveredObject(msgspec.Struct, frozen=True):
    """One object of a delivery: `bytes` and `sha256` are of the object as it is stored."""

    key: str
    rows: int
    bytes: int
    sha256: str


def folder_of(job: Job) -> str:
    """Where a job's objects go, without a slash at the end."""
    assert job.delivery is not None  # the flow has looked
    return f"{job.delivery.prefix}/{job.job_id}".lstrip("/")


def compression_of(job: Job) -> str:
    """none, gzip or zstd."""
    assert job.delivery is not None
    return job.delivery.compression


def write_parts(
    bucket: Bucket,
    folder: str,
    blocks: Iterable[bytes],
    *,
    compression: str = "none",
    part_bytes_max: int,
) -> list[DeliveredObject]:
    """Write `blocks` of whole lines to `part-00000.jsonl` and so on.

    A part ends with the block that takes it to `part_bytes_max`, counted before compression.
    """
    parts: list[DeliveredObject] = []
    stream = iter(blocks)
    for first in stream:
        key = f"{folder}/part-{len(parts):05d}.jsonl{_EXTENSIONS[compression]}"
        part = _until(first, stream, part_bytes_max)
        parts.append(write_object(bucket, key, part, compression=compression))
    return parts


def write_object(
    bucket: Bucket, key: str, blocks: Iterable[bytes], *, compression: str = "none"
) -> DeliveredObject:
    """Write `blocks` of whole lines to one object, which appears when all of it is written."""
    rows = 0
    with bucket.write(key) as file:
        hashed = _HashedFile(file)
        with _compressed(hashed, compression) as sink:
            for block in blocks:
                sink.write(block)
                rows += block.count(b"\n")
    return DeliveredObject(key, rows, hashed.bytes, hashed.sha256.hexdigest())


def encode_manifest(job: Job, objects: list[DeliveredObject]) -> bytes:
    """`manifest.json`: every object, and the job's counters. The same bytes whenever it is asked."""
    content = {
        "job_id": job.job_id,
        "format": "jsonl",
        "compression": compression_of(job),
        "total_tasks": job.total_tasks,
        "tasks_done": job.tasks_done,
        "tasks_failed": job.tasks_failed,
        "objects": objects,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _until(first: bytes, stream: Iterator[bytes], bytes_max: int) -> Iterator[bytes]:
    yield first
    written = len(first)
    while written < bytes_max:
        block = next(stream, None)
        if block is None:
            return
        yield block
        written += len(block)


class _HashedFile(io.RawIOBase):
    """Passes on what is written, and keeps its SHA-256 and length."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)
        return len(data)


@contextmanager
def _compressed(file: _HashedFile, compression: str) -> Iterator[IO[bytes]]:
    match compression:
        case "gzip":
            # Without a name and a time the same rows give the same bytes.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as sink:
                yield cast(IO[bytes], sink)
        case "zstd":
            with pa.CompressedOutputStream(file, "zstd") as sink:
                yield cast(IO[bytes], sink)
        case _:
            yield cast(IO[bytes], file)
