"""A bucket that is a dict, and a delivery into it."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from blocks.buckets.protocol import Entry, ObjectFile
from blocks.domain.errors import NotSupported, ObjectExists, ObjectNotFound, Transient
from blocks.domain.model import Compression, DeliveryStatus, JobStatus, Pin, TaskType
from blocks.domain.object_urls import StoreType
from blocks.store.jobs import DeliveryTarget, Job


class MemoryFile(io.BytesIO):
    """What is written to a bucket that is a dict. Compressors close it, as they do with any."""

    def close(self) -> None:
        pass

    @property
    def size(self) -> int:
        return len(self.getvalue())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.getvalue()).hexdigest()


class MemoryBucket:
    """A bucket that is a dict. `fails_at_close` is a store that refuses to complete an upload."""

    def __init__(self, *, fails_at_close: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []
        self.aborted: list[str] = []
        self.knows_no_conditions = False
        self.heeds_no_conditions = False
        self.fails_at_close = fails_at_close

    def console_url(self, prefix: str) -> None:
        return None

    def stat(self, key: str) -> Pin:
        if key not in self.objects:
            raise ObjectNotFound(f"There is no object {key!r}.")
        return Pin(len(self.objects[key]), hashlib.md5(self.objects[key]).hexdigest())

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        assert self.stat(key) == pin
        return self.objects[key][start:end]

    @contextmanager
    def write(self, key: str) -> Iterator[ObjectFile]:
        file = MemoryFile()
        yield file
        if self.fails_at_close:
            raise Transient("The store cannot be reached.")
        self.objects[key] = file.getvalue()
        self.written.append(key)

    def probe_write(self, key: str) -> None:
        del key

    def entries(self, prefix: str, *, seconds_max: float = 0.0) -> Iterator[Entry]:
        del seconds_max
        at = datetime.now(UTC)
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield Entry(key, self.stat(key), at)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def abort_uploads(self, prefix: str) -> None:
        self.aborted.append(prefix)

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        if is_conditional and self.knows_no_conditions:
            raise NotSupported("The store does not support that.")
        heeded = key in self.objects or not self.heeds_no_conditions
        if self.objects.setdefault(key, data) != data:
            raise ObjectExists(f"Another object stands in {key}.")
        return heeded


def make_job(prefix: str = "p", compression: Compression = Compression.NONE) -> Job:
    return Job(
        job_no=1,
        job_id="job_1",
        task_key=1,
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
        delivery=DeliveryTarget(StoreType.S3, "results", prefix, compression),
        delivery_status=DeliveryStatus.DELIVERING,
        delivery_error_code=None,
        delivery_error_message=None,
        delivery_objects=None,
        delivery_part_bytes=None,
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
