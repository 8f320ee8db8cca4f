"""What is asked of a job: the options of `jobs submit` and `jobs preview`, and those of deliveries."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.consensus import CONSENSUS, Consensus
from api.cli.exits import UsageError
from api.cli.fields import field_option
from api.cli.files import read_object
from api.cli.guidance import Guidance
from api.cli.review_options import REVIEW, Review
from blocks.bodies.jobs import DeliveryBody, JobBody
from blocks.domain.object_urls import StoreType

CredentialsFile = Annotated[
    Path | None,
    Parameter(
        help="Credentials as JSON, as in the API; `-` reads them from standard input.",
        allow_leading_hyphen=True,
    ),
]
BodyFile = Annotated[
    Path | None,
    Parameter(
        help="The body of the request, as JSON; `-` reads it from standard input.",
        allow_leading_hyphen=True,
    ),
]
Delivery = Annotated[
    str | None, Parameter(help="Where the results go: s3://bucket/prefix or gs://bucket/prefix.")
]
Format = Annotated[
    str | None, field_option(DeliveryBody, "format", "What the results are written as.")
]
Compression = Annotated[
    str | None, field_option(DeliveryBody, "compression", "How each object is compressed.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is asked, and how it is decided."""

    question: Annotated[str | None, Parameter(help="What annotators are asked.")] = None
    option: Annotated[
        tuple[str, ...], Parameter(help="What they choose from, once for each: 2 to 100.")
    ] = ()
    threshold: Annotated[
        int | None,
        field_option(
            JobBody, "consensus_threshold", "Labels of a task before agreement is looked at."
        ),
    ] = None
    consensus: Consensus = CONSENSUS
    gold_share: Annotated[
        float | None,
        field_option(JobBody, "gold_share", "How many of an annotator's tasks are gold."),
    ] = None
    min_accuracy: Annotated[
        float | None,
        field_option(JobBody, "min_accuracy", "Who is right on less of the gold gets no more."),
    ] = None
    min_gold_seen: Annotated[
        int | None,
        field_option(JobBody, "min_gold_seen", "After how many gold tasks that is looked at."),
    ] = None
    include_labels: Annotated[
        bool | None,
        Parameter(negative=(), help="Show single labels in the export and the delivery."),
    ] = None
    review: Review = REVIEW
    task_type: Annotated[
        str | None, field_option(JobBody, "task_type", "What annotators are asked to do.")
    ] = None
    priority: Annotated[
        int | None, field_option(JobBody, "priority", "Tasks of a higher one are handed out first.")
    ] = None
    stop_early: Annotated[
        bool | None,
        Parameter(negative=(), help="Settle a task as soon as no other option can win any more."),
    ] = None
    skips_max: Annotated[
        int | None,
        field_option(JobBody, "skips_max", "Skips of one reason with which a task fails."),
    ] = None
    failure_threshold_percent: Annotated[
        float | None,
        field_option(
            JobBody,
            "failure_threshold_percent",
            "Fail the job once more than this share of its lines is bad; 100 is never.",
        ),
    ] = None
    sign_urls: Annotated[
        bool | None,
        Parameter(
            negative=(),
            help="Give annotators signed https URLs of `s3://` and `gs://` data, made with the "
            "credentials, which are then kept until the job has ended.",
        ),
    ] = None
    callback_url: Annotated[
        str | None, Parameter(help="Where to tell of the job's progress: an https URL.")
    ] = None
    metadata: Annotated[
        dict[str, str] | None, Parameter(help="Texts of your own: --metadata.order 17")
    ] = None
    delivery: Delivery = None
    format: Format = None
    compression: Compression = None
    kms_key_id: Annotated[
        str | None, Parameter(help="S3 only: the KMS key that objects are encrypted with.")
    ] = None
    acl: Annotated[
        str | None, field_option(DeliveryBody, "acl", "S3 only: the canned ACL of the objects.")
    ] = None
    credentials_file: CredentialsFile = None

    def body(self, guidance: Guidance) -> dict[str, Any]:
        """Return the fields of the API that were given, and of `guidance` those of the label_spec."""
        found = {
            "consensus_threshold": self.threshold,
            "gold_share": self.gold_share,
            "min_accuracy": self.min_accuracy,
            "min_gold_seen": self.min_gold_seen,
            "include_labels": self.include_labels,
            "task_type": self.task_type,
            "priority": self.priority,
            "stop_early": self.stop_early,
            "skips_max": self.skips_max,
            "failure_threshold_percent": self.failure_threshold_percent,
            "sign_urls": self.sign_urls,
            "callback_url": self.callback_url,
            "metadata": self.metadata,
            "delivery": delivery_of(self.delivery, vars(self)),
            "credentials": self.credentials_file and read_object(self.credentials_file),
        }
        details = guidance.details(self.option)
        if self.question is not None or self.option:
            asked = {"question": self.question or "", "options": list(self.option)}
            found["label_spec"] = asked | details
        given = {name: value for name, value in found.items() if value is not None}
        return given | self.consensus.body() | self.review.body()


SPEC = Spec()


def request_of(
    manifest_url: str | None, file: Path | None, spec: Spec, guidance: Guidance
) -> dict[str, Any]:
    """Return the body of a job: what `file` has, and in its place what the options say."""
    body: dict[str, Any] = dict(read_object(file)) if file else {}
    body |= spec.body(guidance) | guidance.body()
    return body | ({"manifest_url": manifest_url} if manifest_url else {})


def delivery_of(uri: str | None, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the field of the API for a delivery; None without a place.

    Raises:
        UsageError: the place is none.
    """
    if uri is None:
        return None
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    store = StoreType.of_scheme(scheme)
    if store is None or not bucket:
        raise UsageError(f"{uri!r} is not s3://bucket/prefix or gs://bucket/prefix.")
    names = ("format", "compression", "kms_key_id", "acl")
    given = {name: options.get(name) for name in names if options.get(name) is not None}
    return {"type": store, "bucket": bucket, "prefix": prefix} | given
