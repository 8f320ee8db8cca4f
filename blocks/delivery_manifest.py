"""The `manifest.json` of a delivery, which lists its objects."""

import msgspec

from blocks.domain.model import Compression, ResultFormat
from blocks.store.jobs import Job

MANIFEST_BYTES_MAX = 16 * 1024 * 1024
"""As much as a manifest of 80,000 parts has. Others may put anything under its name."""


class DeliveredObject(msgspec.Struct, frozen=True):
    """One object of a delivery; `bytes` and `sha256` are of the object as it is stored."""

    key: str
    rows: int
    bytes: int
    sha256: str


class DeliveryManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Every object of a delivery, and the job's counters.

    `format` and `compression` are those of the parts; errors.jsonl is plain. `conditional_put` is false
    where the store cannot write on condition, or takes no notice of it, so that it was asked what stands
    there before `manifest.json` was written.
    """

    job_id: str
    format: ResultFormat
    compression: Compression
    total_tasks: int
    tasks_done: int
    tasks_failed: int
    conditional_put: bool = True
    objects: list[DeliveredObject]


def folder_of(job: Job) -> str:
    """Return the folder that a job's objects are delivered to, without a slash at the end."""
    assert job.delivery is not None  # the caller has looked
    return f"{job.delivery.prefix}/{job.job_id}".lstrip("/")
