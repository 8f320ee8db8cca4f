"""The vocabulary of the service: its states and the arrows between them, and lines. Pure.

The rules of consensus are in blocks/domain/consensus.py, and as functions in blocks/store/schema.sql.
"""

from enum import StrEnum

import msgspec

LINE_BYTES_MAX = 1024 * 1024


class JobStatus(StrEnum):
    """The state of a job."""

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """True if no arrow leads on."""
        return not JOB_ARROWS[self]


JOB_ARROWS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.ACCEPTED: frozenset({JobStatus.PROCESSING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.PROCESSING: frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


class DeliveryStatus(StrEnum):
    """The state of the delivery of a job's results."""

    PENDING = "pending"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        """True if no run is to do it."""
        return self in (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED)


class ResultFormat(StrEnum):
    """How the results of a job are written: as JSON lines, or as Parquet."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class Compression(StrEnum):
    """How an object of lines is compressed, or, in Parquet, the pages inside it."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        """What the name of such an object of lines ends with: `.gz`, `.zst` or nothing."""
        return {Compression.NONE: "", Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}[self]


class WaitsFor(StrEnum):
    """What a job waits for; `operator` where one has paused it."""

    STORE = "store"
    DELIVERY = "delivery"
    PREFECT = "prefect"
    TURN = "turn"
    ANNOTATORS = "annotators"
    REVIEWERS = "reviewers"
    OPERATOR = "operator"


class TaskStatus(StrEnum):
    """The state of a task: pending → in_progress → settled or failed."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    SETTLED = "settled"
    FAILED = "failed"


class TaskReason(StrEnum):
    """Why a task failed."""

    NO_CONSENSUS = "no_consensus"
    SKIPPED_UNCLEAR = "skipped_unclear"
    SKIPPED_BROKEN = "skipped_broken"
    SKIPPED_NONE_OF_THESE = "skipped_none_of_these"
    CANCELLED = "cancelled"
    JOB_FAILED = "job_failed"


class SkipReason(StrEnum):
    """Why an annotator does not label a task."""

    UNCLEAR = "unclear"
    BROKEN = "broken"
    NONE_OF_THESE = "none_of_these"

    @property
    def number(self) -> int:
        """Return its number in the tables: 1 for the first."""
        return list(SkipReason).index(self) + 1

    @classmethod
    def of_number(cls, number: int) -> "SkipReason":
        """Return the reason that has a number in the tables."""
        return list(cls)[number - 1]


def why_failed(outcome: int) -> TaskReason:
    """Return why a task failed, by its outcome in the tables, which is 0 or less."""
    if outcome == 0:
        return TaskReason.NO_CONSENSUS
    return TaskReason(f"skipped_{SkipReason.of_number(-outcome)}")


UNDER_REVIEW = -9
"""The outcome in the tables of a task that waits for a reviewer; the twin of under_review() there."""


class ReviewReason(StrEnum):
    """Why a reviewer decides a task that would have ended."""

    NO_CONSENSUS = "no_consensus"
    LOW_CONFIDENCE = "low_confidence"
    SAMPLE = "sample"
    FLAGGED = "flagged"


class Failure(StrEnum):
    """Why a reviewer fails a task, or why it would fail without one."""

    NO_CONSENSUS = "no_consensus"
    UNCLEAR = "unclear"
    BROKEN = "broken"
    NONE_OF_THESE = "none_of_these"

    @property
    def outcome(self) -> int:
        """The outcome of such a task in the tables."""
        return 0 if self is Failure.NO_CONSENSUS else -SkipReason(self).number

    @classmethod
    def of_outcome(cls, outcome: int) -> "Failure":
        """Return the failure that has an outcome in the tables, which is 0 or less."""
        return cls(SkipReason.of_number(-outcome)) if outcome else cls.NO_CONSENSUS


class Queue(StrEnum):
    """What a claim takes: tasks to label, or tasks under review, to decide."""

    LABEL = "label"
    REVIEW = "review"


class SettledBy(StrEnum):
    """Who settled a task: its annotators by the rule, or a reviewer."""

    CONSENSUS = "consensus"
    REVIEW = "review"


class ReviewOutcome(StrEnum):
    """The outcome of one decision that a reviewer handed in."""

    SETTLED = "settled"
    FAILED = "failed"
    SENT_BACK = "sent_back"
    DUPLICATE = "duplicate"
    NOT_HELD = "not_held"
    ALREADY_SETTLED = "already_settled"
    UNKNOWN_OPTION = "unknown_option"
    UNKNOWN_TASK = "unknown_task"


class ReleaseOutcome(StrEnum):
    """The outcome of handing one task back."""

    RELEASED = "released"
    NOT_HELD = "not_held"


class UnsignedReason(StrEnum):
    """Why a task of a job that asks for signed URLs has none."""

    NO_CREDENTIALS = "no_credentials"
    """The job's credentials were wiped."""
    CREDENTIALS_UNREADABLE = "credentials_unreadable"
    """The job's credentials cannot be opened with the service's keys, or cannot sign."""
    OTHER_PLACE = "other_place"
    """The object is where the credentials are not for: in the other kind of store, or outside of the
    bucket and prefix of a stream."""
    NOT_SIGNABLE = "not_signable"
    """The URL names no object, or one whose key has a part `.` or `..`, which URLs cannot have."""


class RenewOutcome(StrEnum):
    """The outcome of holding one task longer."""

    RENEWED = "renewed"
    NOT_HELD = "not_held"


class TaskType(StrEnum):
    """What annotators are asked to do."""

    IMAGE_CLASSIFICATION = "image_classification"
    TEXT_CLASSIFICATION = "text_classification"
    SENTIMENT = "sentiment"
    MODERATION = "moderation"

    @property
    def takes_text(self) -> bool:
        """True if a task may have its text inline, and no URL."""
        return self is not TaskType.IMAGE_CLASSIFICATION


class OptionDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What helps annotators to choose one of the options."""

    option: str
    """The option that this is about."""
    description: str | None = None
    """When it is the right one, in a sentence or two."""
    hotkey: str | None = None
    """One character; the key that chooses it."""


class ConsensusMethod(StrEnum):
    """How labels decide a task: by their number, or by what is known of their annotators."""

    MAJORITY = "majority"
    WEIGHTED = "weighted"


class InferenceMethod(StrEnum):
    """How the true options of tasks are inferred from their labels."""

    ONE_COIN = "one_coin"
    DAWID_SKENE = "dawid_skene"


class LabelOutcome(StrEnum):
    """The outcome of one label, or of a skip or a change of a label, that was handed in."""

    ACCEPTED = "accepted"
    SETTLED = "settled"
    SKIPPED = "skipped"
    REPLACED = "replaced"
    WITHDRAWN = "withdrawn"
    DUPLICATE = "duplicate"
    ALREADY_SETTLED = "already_settled"
    NOT_LABELLED = "not_labelled"
    EXCLUDED = "excluded"
    UNKNOWN_OPTION = "unknown_option"
    UNKNOWN_TASK = "unknown_task"


class LineCode(StrEnum):
    """Why a manifest line is bad; a closed list, and part of the HTTP contract."""

    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_DATA_URL = "missing_data_url"
    INVALID_DATA_URL = "invalid_data_url"
    INVALID_METADATA = "invalid_metadata"
    DUPLICATE_KEY = "duplicate_key"
    INVALID_UTF8 = "invalid_utf8"
    LINE_TOO_LONG = "line_too_long"
    UNKNOWN_FIELD = "unknown_field"
    INVALID_TEXT = "invalid_text"  # an extension, of jobs that take texts
    INVALID_GOLD = "invalid_gold"  # an extension


NOT_JSON = frozenset({LineCode.MALFORMED_JSON, LineCode.INVALID_UTF8})


class Pin(msgspec.Struct, frozen=True):
    """One version of one object: `size` in bytes, `version` an S3 ETag or a GCS generation."""

    size: int
    version: str


class GoodLine(msgspec.Struct, frozen=True, gc=False):
    """A line that becomes a task: `line` is 1-based in its chunk, `metadata` the verbatim JSON.

    It has a `data_url` or a `text`, and the other one is None. `gold` is the right option, 1-based, if
    the line says it; pages do not keep it.
    """

    byte_offset: int
    line: int
    data_url: str | None
    metadata: str | None
    text: str | None = None
    gold: int | None = None


class BadLine(msgspec.Struct, frozen=True, gc=False):
    """A line that becomes no task: `raw` has its bytes, cut only where the line was too long."""

    byte_offset: int
    line: int
    code: LineCode
    message: str
    raw: bytes
