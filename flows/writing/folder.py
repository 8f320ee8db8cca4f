"""Write results as objects: JSON lines or Parquet in parts, with their SHA-256. No Prefect, no SQL."""

import gzip
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import msgspec
import pyarrow as pa

from blocks import tracing
from blocks.buckets.protocol import Bucket, ObjectFile
from blocks.delivery_manifest import (
    MANIFEST_BYTES_MAX,
    DeliveredLabels,
    DeliveredObject,
    DeliveryManifest,
    folder_of,
    rule_of,
)
from blocks.domain.errors import AccessDenied, NotSupported, ObjectExists, ObjectNotFound
from blocks.domain.model import Compression, ResultFormat
from blocks.lines.result_lines import Results, count_line_bytes
from blocks.store.jobs import Job
from flows.writing import parquet

_GZIP_LEVEL = 6
_TIDY_S_MAX = 60.0
_OURS = re.compile(r"part-[0-9]{5,}\.(parquet|jsonl(\.gz|\.zst)?)")


Block = bytes | Results
"""Whole lines, or, for Parquet, the results that they are made of."""


class Layout(msgspec.Struct, frozen=True):
    """Describe how objects are written.

    `format` is jsonl or parquet; `compression` is none, gzip or zstd, of a jsonl object as a whole, of
    Parquet's pages.
    """

    format: ResultFormat
    compression: Compression

    @property
    def extension(self) -> str:
        if self.format is ResultFormat.PARQUET:
            return "parquet"
        return f"jsonl{self.compression.suffix}"


LINES = Layout(ResultFormat.JSONL, Compression.NONE)


def layout_of(job: Job) -> Layout:
    """Return how the objects of a job are written."""
    assert job.delivery is not None
    return Layout(job.delivery.format, job.delivery.compression)


def write_parts(
    bucket: Bucket,
    folder: str,
    blocks: Iterable[Block],
    *,
    layout: Layout = LINES,
    part_bytes_max: int,
) -> list[DeliveredObject]:
    """Write `blocks` of whole lines to `part-00000.jsonl` and so on, or `Results` to Parquet files.

    A part ends with the block that takes it to `part_bytes_max`, counted as lines before compression.
    """
    parts: list[DeliveredObject] = []
    stream = iter(blocks)
    for first in stream:
        key = f"{folder}/part-{len(parts):05d}.{layout.extension}"
        part = _until(first, stream, part_bytes_max)
        parts.append(write_object(bucket, key, part, layout=layout))
    return parts


def write_object(
    bucket: Bucket,
    key: str,
    blocks: Iterable[Block],
    *,
    layout: Layout = LINES,
) -> DeliveredObject:
    """Write `blocks` to one object, which appears when all of it is written.

    They are whole lines, or `Results` for Parquet.
    """
    with tracing.span("write object") as note:
        with bucket.write(key) as file:
            if layout.format is ResultFormat.PARQUET:
                results = cast(Iterable[Results], blocks)
                rows = parquet.write(file, results, compression=layout.compression)
            else:
                rows = _write_lines(file, cast(Iterable[bytes], blocks), layout.compression)
        note(rows=rows, bytes=file.size)
    return DeliveredObject(key, rows, file.size, file.sha256)


def _write_lines(file: ObjectFile, blocks: Iterable[bytes], compression: Compression) -> int:
    rows = 0
    with _compressed(file, compression) as sink:
        for block in blocks:
            sink.write(block)
            rows += block.count(b"\n")
    return rows


def write_manifest(
    bucket: Bucket,
    job: Job,
    objects: list[DeliveredObject],
    labels: DeliveredLabels | None = None,
) -> None:
    """Write `manifest.json`, unless the same one is there.

    Raises:
        ObjectExists: another object is there.
    """
    key = f"{folder_of(job)}/manifest.json"
    unconditional = encode_manifest(job, objects, labels, conditional_put=False)
    try:
        if bucket.create(key, encode_manifest(job, objects, labels)):
            return
    except (NotSupported, ObjectExists):  # another run may have written it without the condition
        bucket.create(key, unconditional, is_conditional=False)
        return
    with bucket.write(key) as file:
        file.write(unconditional)


def encode_manifest(
    job: Job,
    objects: list[DeliveredObject],
    labels: DeliveredLabels | None = None,
    *,
    conditional_put: bool = True,
) -> bytes:
    """Return `manifest.json`: every object, and the job's counters. Equal arguments give equal bytes."""
    layout = layout_of(job)
    manifest = DeliveryManifest(
        job_id=job.job_id,
        format=layout.format,
        compression=layout.compression,
        total_tasks=job.total_tasks,
        tasks_done=job.tasks_done,
        tasks_failed=job.tasks_failed,
        conditional_put=conditional_put,
        options=job.options,
        consensus=rule_of(job),
        include_labels=job.include_labels,
        has_gold=job.has_gold,
        has_review=job.has_review,
        labels=labels,
        objects=objects,
    )
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def find_delivery(bucket: Bucket, job: Job) -> list[DeliveredObject] | None:
    """Return the objects of a complete delivery: those that its manifest names; None without one.

    A run that died between its last object and the commit leaves one. To write it again could give other
    bytes, where a part's size or the compressor has changed since.

    Raises:
        ObjectExists: there is a manifest, but of other results, or its objects are not there.
    """
    key = f"{folder_of(job)}/manifest.json"
    try:
        pin = bucket.stat(key)
    except (ObjectNotFound, AccessDenied):
        return None
    if pin.size > MANIFEST_BYTES_MAX:
        raise ObjectExists(f"Another object stands in {key}, of {pin.size:,} bytes.")
    try:
        manifest = msgspec.json.decode(bucket.read(key, pin, 0, pin.size), type=DeliveryManifest)
    except msgspec.DecodeError as error:
        raise ObjectExists(f"Another object stands in {key}.") from error
    counted = (manifest.job_id, manifest.total_tasks, manifest.tasks_done, manifest.tasks_failed)
    if counted != (job.job_id, job.total_tasks, job.tasks_done, job.tasks_failed):
        raise ObjectExists(f"{key} is the manifest of other results.")
    for each in manifest.objects:
        if bucket.stat(each.key).size != each.bytes:
            raise ObjectExists(f"{key} does not describe what stands in {each.key}.")
    return manifest.objects


def tidy(bucket: Bucket, folder: str, objects: Iterable[DeliveredObject]) -> None:
    """Remove the leftovers of earlier attempts: unfinished uploads, and parts of another layout.

    It ends after a minute, whatever is left: readers go by the manifest.

    Raises:
        RefineryError: the store refuses, or fails just now.
    """
    ends_at = time.monotonic() + _TIDY_S_MAX
    kept = {each.key for each in objects}
    bucket.abort_uploads(f"{folder}/")
    for entry in bucket.entries(f"{folder}/", seconds_max=_TIDY_S_MAX):
        if time.monotonic() > ends_at:
            return
        if entry.key not in kept and _OURS.fullmatch(entry.key.removeprefix(f"{folder}/")):
            bucket.delete(entry.key)


def _until(first: Block, stream: Iterator[Block], bytes_max: int) -> Iterator[Block]:
    yield first
    written = _count_bytes(first)
    while written < bytes_max:
        block = next(stream, None)
        if block is None:
            return
        yield block
        written += _count_bytes(block)


def _count_bytes(block: Block) -> int:
    return len(block) if isinstance(block, bytes) else count_line_bytes(block)


@contextmanager
def _compressed(file: Any, compression: Compression) -> Iterator[IO[bytes]]:
    match compression:
        case Compression.GZIP:
            # Without a name and a time in the header, the same rows give the same bytes.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as sink:
                yield cast(IO[bytes], sink)
        case Compression.ZSTD:
            with pa.CompressedOutputStream(file, "zstd") as sink:
                yield cast(IO[bytes], sink)
        case _:
            yield cast(IO[bytes], file)
