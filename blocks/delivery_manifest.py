"""The `manifest.json` of a delivery, which lists its objects."""

import msgspec

from blocks.domain.consensus import ALL
from blocks.domain.model import Compression, ConsensusMethod, ResultFormat
from blocks.store.jobs import Job

MANIFEST_BYTES_MAX = 16 * 1024 * 1024
"""As much as a manifest of 80,000 parts has. Others may put anything under its name."""


class DeliveredObject(msgspec.Struct, frozen=True):
    """One object of a delivery; `bytes` and `sha256` are of the object as it is stored."""

    key: str
    rows: int
    bytes: int
    sha256: str


class DeliveredRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How labels decided: what `refinery verify --recompute` needs beside the lines.

    Of `majority` there are `threshold` and `stop_early`, of `weighted` the others.
    """

    method: ConsensusMethod
    threshold: int | None = None
    stop_early: bool | None = None
    target_confidence: float | None = None
    labels_min: int | None = None
    labels_max: int | None = None


class DeliveredLabels(msgspec.Struct, frozen=True):
    """How many single labels the lines have, and the sum of their skills, 0 where none are weighed.

    So a skill that was changed is found, though the confidence comes out the same.
    """

    count: int
    skill_sum: float

    @classmethod
    def of(cls, count: int, skills: int) -> "DeliveredLabels":
        """Return it by the sum of skills in ten-thousandths."""
        return cls(count, skills / ALL)


class DeliveryManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Every object of a delivery, and the job's counters.

    `format` and `compression` are those of the parts; errors.jsonl is plain. `conditional_put` is false
    where the store cannot write on condition, or takes no notice of it, so that it was asked what stands
    there before `manifest.json` was written. Only a job that `has_gold` has lines with `gold`, and only
    one that `has_review` has lines with `settled_by`. `consensus` is None, and there are no `options`,
    where a version before 0.2.0 wrote it.
    """

    job_id: str
    format: ResultFormat
    compression: Compression
    total_tasks: int
    tasks_done: int
    tasks_failed: int
    conditional_put: bool = True
    options: list[str] = []
    consensus: DeliveredRule | None = None
    include_labels: bool = False
    has_gold: bool = False
    has_review: bool = False
    labels: DeliveredLabels | None = None
    objects: list[DeliveredObject]


def rule_of(job: Job) -> DeliveredRule:
    """Return how the labels of a job decided."""
    if job.target_confidence is None or job.labels_max is None:
        return DeliveredRule(
            method=ConsensusMethod.MAJORITY,
            threshold=job.consensus_threshold,
            stop_early=job.stop_early,
        )
    return DeliveredRule(
        method=ConsensusMethod.WEIGHTED,
        target_confidence=job.target_confidence / ALL,
        labels_min=job.consensus_threshold,
        labels_max=job.labels_max,
    )


def folder_of(job: Job) -> str:
    """Return the folder that a job's objects are delivered to, without a slash at the end."""
    assert job.delivery is not None  # the caller has looked
    return f"{job.delivery.prefix}/{job.job_id}".lstrip("/")
