"""The body of a job with every rule on it, for `POST /v1/jobs` and for streams of manifests."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from blocks.bodies.consensus import (
    MAJORITY,
    ConsensusBody,
    GoldShare,
    MinAccuracy,
    MinGoldSeen,
    decision_of,
    method_faults,
    to_parts,
)
from blocks.bodies.fields import Body, Checks, Fault, RawObject, struct_faults, value_of
from blocks.bodies.label_spec import LabelSpecBody
from blocks.domain import limits
from blocks.domain.data_urls import URL_CHARACTERS_MAX, has_user, is_data_url, normalize_url
from blocks.domain.errors import Terminal
from blocks.domain.metadata import list_shown_members
from blocks.domain.model import Compression, ResultFormat, TaskType
from blocks.domain.object_urls import StoreType, is_bucket_name, parse_object_url
from blocks.domain.show_metadata import ShowMetadata
from blocks.secrets.credentials import credentials_type
from blocks.secrets.signing import check_signing_key
from blocks.store.jobs import DeliveryTarget, NewJob

# A rule of the `checks`, for the schema alone: as a pattern of the type its message would be worse.
_MANIFEST_URL = {"pattern": "^([sS]3|[gG][sS]|[hH][tT][tT][pP][sS])://"}

_Url = Annotated[
    str, Meta(max_length=limits.OBJECT_URL_CHARACTERS_MAX, extra_json_schema=_MANIFEST_URL)
]
_Bucket = Annotated[
    str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]$"})
]
ConsensusThreshold = Annotated[
    int, Meta(ge=limits.CONSENSUS_THRESHOLD_MIN, le=limits.CONSENSUS_THRESHOLD_MAX)
]
ReviewShare = Annotated[float, Meta(ge=limits.REVIEW_SHARE_MIN, le=1)]
ReviewConfidence = Annotated[float, Meta(ge=limits.REVIEW_CONFIDENCE_MIN, le=1)]
ReviewDeadline = Annotated[
    float, Meta(ge=limits.REVIEW_DEADLINE_MIN, le=limits.REVIEW_DEADLINE_MAX)
]
SkipsMax = Annotated[int, Meta(ge=limits.SKIPS_MAX_MIN, le=limits.SKIPS_MAX_MAX)]
HttpsUrl = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": "^[hH][tT][tT][pP][sS]://",
            "maxLength": URL_CHARACTERS_MAX,
        }
    ),
]
Instructions = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": r"\S",
            "maxLength": limits.INSTRUCTIONS_BYTES_MAX,
        }
    ),
]
_NULL = msgspec.Raw(b"null")
_NOTHING_TO_SIGN_WITH = (
    "URLs are signed with the job's credentials, and it has none: give credentials that may read the "
    "objects, or leave sign_urls out."
)


def _check_manifest_url(url: str) -> None:
    try:
        parse_object_url(url)
    except Terminal as error:
        raise ValueError(error.message) from error


def check_instructions(text: str) -> None:
    """Pass if annotators can be given these instructions.

    Raises:
        ValueError: they are blank, or too long.
    """
    if not text.strip():
        raise ValueError("The instructions must not be empty; null stands for none.")
    if (size := len(text.encode())) > limits.INSTRUCTIONS_BYTES_MAX:
        raise ValueError(
            f"The instructions must be at most {limits.INSTRUCTIONS_BYTES_MAX:,} bytes of UTF-8; "
            f"these are {size:,}."
        )


def _check_bucket(bucket: str) -> None:
    if not is_bucket_name(bucket):
        raise ValueError(
            "The name of a bucket has 3 to 222 letters, digits, dots, dashes and underscores, and "
            f"begins and ends with a letter or a digit; this is {bucket!r}."
        )


def _check_prefix(prefix: str) -> None:
    if any(part in {".", ".."} for part in prefix.split("/")) or "//" in prefix.strip("/"):
        raise ValueError("The prefix must not have empty parts, nor the parts '.' or '..'.")


def check_https_url(url: str) -> None:
    """Pass if messages may be sent to `url`.

    Raises:
        ValueError: it is not an https URL, has a user or a password, or is too long.
    """
    if not url.lower().startswith("https://") or not is_data_url(url):
        raise ValueError("This must be an https URL with a valid host.")
    if has_user(url):
        raise ValueError(
            "This must be a URL without a user and a password: verify the signature instead."
        )
    if len(normalize_url(url)) > URL_CHARACTERS_MAX:
        raise ValueError(
            f"This must be of at most {URL_CHARACTERS_MAX:,} characters, percent-encoded."
        )


def normalize_callback_url(url: str | None) -> str | None:
    """Return a URL that `check_https_url` accepts in the form that is stored, sent to and shown."""
    return normalize_url(url) if url else None


def _to_parts(share: float | None) -> int | None:
    return None if share is None else to_parts(share)


def _encode(metadata: dict[str, str] | None) -> str | None:
    return None if metadata is None else msgspec.json.encode(metadata).decode()


class DeliveryBody(Body, frozen=True, kw_only=True):
    """Where the results go. `kms_key_id` and `acl` are for S3."""

    checks: ClassVar[Checks] = {"bucket": _check_bucket, "prefix": _check_prefix}
    json_schema: ClassVar[Mapping[str, Any]] = {
        "if": {"properties": {"type": {"const": StoreType.GCS.value}}},
        "then": {"properties": {"kms_key_id": {"type": "null"}, "acl": {"type": "null"}}},
    }

    type: StoreType
    """The store; the same as that of the manifest."""
    bucket: _Bucket
    """The bucket to write to."""
    prefix: Annotated[str, Meta(max_length=512)] = ""
    """What the names of all objects begin with; the job's id follows it."""
    compression: Compression = Compression.NONE
    """How each object is compressed."""
    format: ResultFormat = ResultFormat.JSONL
    """JSON lines or Parquet."""
    kms_key_id: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    """S3 only: the KMS key that objects are encrypted with."""
    acl: (
        Literal[
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "aws-exec-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ]
        | None
    ) = None
    """S3 only: the canned ACL of the objects."""

    def to_target(self) -> DeliveryTarget:
        """Return the delivery to record."""
        fields = msgspec.structs.asdict(self)
        return DeliveryTarget(**fields | {"prefix": self.prefix.strip("/")})


class CredentialsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For S3 `access_key_id`, `secret_access_key` and `region`; for GCS `service_account_json`.

    What is required follows from the store that `manifest_url` names. `service_account_json` is the key
    file of a Google service account as one string: a JSON object of strings, with `type`
    `service_account`, `client_email` and `private_key`.
    """

    json_schema: ClassVar[Mapping[str, Any]] = {
        "anyOf": [
            {"required": ["access_key_id", "secret_access_key", "region"]},
            {"required": ["service_account_json"]},
        ]
    }

    access_key_id: str | None = None
    """S3: the access key's id."""
    secret_access_key: str | None = None
    """S3: the secret access key."""
    region: str | None = None
    """S3: the region of the bucket, such as `eu-central-1`."""
    session_token: str | None = None
    """S3: the token of temporary credentials."""
    endpoint_url: str | None = None
    """S3: the address of a store that is compatible with S3, and is not Amazon's."""
    service_account_json: str | None = None
    """GCS: the key file of a service account, as one string."""

    def list_given(self) -> dict[str, str]:
        """Return the fields that were given."""
        return {k: v for k, v in msgspec.to_builtins(self).items() if v is not None}

    def encode(self, store: StoreType) -> bytes:
        """Return them as JSON, to be sealed."""
        return msgspec.json.encode(msgspec.convert(self.list_given(), credentials_type(store)))

    def __repr__(self) -> str:
        return "CredentialsBody(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class RawDelivery(msgspec.Struct, frozen=True):
    """The fields of a delivery that depend on other fields, whatever else is wrong with it."""

    type: msgspec.Raw = _NULL
    kms_key_id: msgspec.Raw = _NULL
    acl: msgspec.Raw = _NULL

    @property
    def store(self) -> StoreType | None:
        """The store that `type` names; None if it names none."""
        return value_of(self.type, StoreType)


def s3_only_faults(store: object, delivery: RawDelivery) -> Iterator[Fault]:
    """Yield the fields of a delivery that GCS does not have."""
    for field in ("kms_key_id", "acl"):
        if store != StoreType.S3 and getattr(delivery, field) != _NULL:
            yield Fault(f"delivery.{field}", "This is for S3 only.")


def _signing_key_faults(credentials: Mapping[str, msgspec.Raw]) -> Iterator[Fault]:
    try:
        check_signing_key(msgspec.json.decode(credentials["service_account_json"], type=str))
    except ValueError as error:
        yield Fault("credentials.service_account_json", str(error))


class JobBody(Body, frozen=True, kw_only=True):
    """A manifest, a question about each of its lines, and where the answers go."""

    checks: ClassVar[Checks] = {
        "manifest_url": _check_manifest_url,
        "callback_url": check_https_url,
        "instructions": check_instructions,
    }
    json_schema: ClassVar[Mapping[str, Any]] = {
        "if": {"properties": {"sign_urls": {"const": True}}, "required": ["sign_urls"]},
        "then": {"properties": {"credentials": {"type": "object"}}, "required": ["credentials"]},
    }

    manifest_url: _Url
    """The manifest, JSON lines, as `s3://bucket/key`, `gs://bucket/key` or the https form of
    the same. A name in `.gz` or `.zst` is read as compressed."""
    label_spec: LabelSpecBody
    """The question, and the options to choose from."""
    consensus_threshold: ConsensusThreshold = limits.CONSENSUS_THRESHOLD_DEFAULT
    """How many labels a task collects before agreement is looked at. With 1, the first label is the
    result."""
    consensus: ConsensusBody = MAJORITY
    """How labels decide; without it, by their number."""
    gold_share: GoldShare = limits.GOLD_SHARE_DEFAULT
    """How many of the tasks that an annotator is given are lines with `gold`, where there are any; the
    first few come early."""
    min_accuracy: MinAccuracy | None = None
    """Annotators who are right on fewer gold tasks than this share get no more tasks of the job."""
    min_gold_seen: MinGoldSeen = limits.MIN_GOLD_SEEN_DEFAULT
    """How many gold tasks an annotator has labelled before `min_accuracy` is looked at."""
    include_labels: bool = False
    """Show the single labels of each task in the export and in the delivery, so that the results can be
    computed again."""
    review_no_consensus: bool = False
    """Have a reviewer decide tasks that would fail for want of a consensus."""
    review_confidence_below: ReviewConfidence | None = None
    """Have a reviewer decide tasks that would settle with a confidence of less than this."""
    review_share: ReviewShare | None = None
    """Have a reviewer decide this share of the tasks that labels end; the same ones each time."""
    review_flagged: bool = False
    """Have a reviewer decide tasks that would fail by `skips_max`."""
    review_deadline: ReviewDeadline = limits.REVIEW_DEADLINE_DEFAULT
    """How many hours a task waits for a reviewer at the most; then it ends as it would have without."""
    task_type: TaskType = TaskType.IMAGE_CLASSIFICATION
    """What annotators are asked to do."""
    callback_url: HttpsUrl | None = None
    """Where to tell of the job's progress: https, without a user and a password."""
    credentials: CredentialsBody | None = None
    """Used to read the manifest and to write the delivery. Without them, the manifest is read
    anonymously."""
    delivery: DeliveryBody | None = None
    """Where to write the results. Without it, they can be exported."""
    metadata: Annotated[dict[str, str], Meta(max_length=limits.METADATA_KEYS_MAX)] | None = None
    """Texts of your own, which the job shows again."""
    priority: Annotated[int, Meta(ge=limits.PRIORITY_MIN, le=limits.PRIORITY_MAX)] = (
        limits.PRIORITY_DEFAULT
    )
    """Tasks of jobs with a higher one are given to annotators first."""
    stop_early: bool = False
    """Settle a task as soon as no other option can win any more."""
    skips_max: SkipsMax = limits.SKIPS_MAX_DEFAULT
    """A task fails once so many annotators have skipped it for the same reason."""
    failure_threshold_percent: Annotated[
        float,
        Meta(ge=limits.FAILURE_THRESHOLD_PERCENT_MIN, le=limits.FAILURE_THRESHOLD_PERCENT_MAX),
    ] = limits.FAILURE_THRESHOLD_PERCENT_DEFAULT
    """Fail the job once more than this share of its lines is bad; 100 is never."""
    show_metadata: ShowMetadata = True
    instructions: Instructions | None = None
    """What annotators read before they label: Markdown, of at most 64 KiB of UTF-8."""
    sign_urls: bool = False
    """Give annotators, beside each `s3://` or `gs://` URL, an https URL that is signed with the
    `credentials` and runs out soon after their lease. The credentials are then kept until the job has
    ended."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield fields that the method of consensus does not have."""
        yield from method_faults(self)

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield faults of credentials and a delivery that are not of the store of the manifest."""
        if value_of(raw.get("sign_urls"), bool) and raw.get("credentials", _NULL) == _NULL:
            yield Fault("sign_urls", _NOTHING_TO_SIGN_WITH)
        try:
            store = parse_object_url(value_of(raw.get("manifest_url"), _Url) or "").store
        except Terminal:
            return
        credentials = value_of(raw.get("credentials"), dict[str, msgspec.Raw])
        if credentials is not None:
            faults = list(struct_faults(credentials, credentials_type(store), "credentials"))
            yield from faults
            if not faults and store is StoreType.GCS and value_of(raw.get("sign_urls"), bool):
                yield from _signing_key_faults(credentials)
        delivery = value_of(raw.get("delivery"), RawDelivery)
        if delivery is None:
            return
        if delivery.store not in {None, store}:
            message = f"The manifest lies in {store}, and its credentials are used for both."
            yield Fault("delivery.type", message)
        yield from s3_only_faults(store, delivery)

    def to_job(self, customer_id: str) -> NewJob:
        """Return the job to record."""
        return NewJob(
            customer_id=customer_id,
            manifest_url=self.manifest_url,
            question=self.label_spec.question,
            options=self.label_spec.options,
            option_details=self.label_spec.list_details(),
            gold_share=to_parts(self.gold_share),
            min_accuracy=_to_parts(self.min_accuracy),
            min_gold_seen=self.min_gold_seen,
            include_labels=self.include_labels,
            review_no_consensus=self.review_no_consensus,
            review_confidence_below=_to_parts(self.review_confidence_below),
            review_share=_to_parts(self.review_share),
            review_flagged=self.review_flagged,
            review_deadline=self.review_deadline,
            task_type=self.task_type,
            callback_url=normalize_callback_url(self.callback_url),
            metadata=_encode(self.metadata),
            priority=self.priority,
            skips_max=self.skips_max,
            failure_threshold_percent=self.failure_threshold_percent,
            credentials=self.credentials.encode(self._store) if self.credentials else None,
            delivery=self.delivery.to_target() if self.delivery else None,
            shown_metadata=list_shown_members(self.show_metadata),
            instructions=self.instructions,
            sign_urls=self.sign_urls,
            **decision_of(self),
        )

    @property
    def _store(self) -> StoreType:
        return parse_object_url(self.manifest_url).store
