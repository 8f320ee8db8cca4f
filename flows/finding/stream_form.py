"""Describe what an ETL owner sets of a stream: the form in the Prefect UI, and the jobs made of it.

The rules for a job's fields are those of `POST /v1/jobs`, and stand with its body type alone.
"""

import difflib
from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.bodies.jobs import JobBody
from blocks.bodies.reading import read_body
from blocks.domain import limits
from blocks.domain.errors import RefineryError
from blocks.domain.model import ConsensusMethod, TaskType
from blocks.prefect.blocks import ManifestSource
from blocks.store.jobs import DeliveryTarget, NewJob

DEFAULT_STREAM = "default"

_OF_THE_BODY = {"label_spec", "delivery", "manifest_url"}


class InvalidParameters(RefineryError):
    """The parameters of a stream make no job that `POST /v1/jobs` would take."""

    code = "invalid_parameters"


def _with_known_names(schema: dict[str, Any]) -> None:
    """Have Prefect refuse unknown names at once, with a list of the known ones."""
    schema["propertyNames"] = {"enum": list(schema["properties"])}


class _Form(BaseModel):
    """Group fields; refuse an unknown name with the nearest known one."""

    model_config = ConfigDict(json_schema_extra=_with_known_names)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in given.keys() - cls.model_fields.keys():
                near = difflib.get_close_matches(str(name), cls.model_fields, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{name!r} is not known.{hint} There are {', '.join(cls.model_fields)}."
                )
        return given


class OptionDetail(_Form):
    """What helps annotators to choose one of the options."""

    option: str = Field(description="The option that this is about, as it stands in `options`.")
    description: str | None = Field(
        default=None,
        description="When it is the right one: at most "
        f"{limits.OPTION_DESCRIPTION_CHARACTERS_MAX} characters.",
    )
    hotkey: str | None = Field(
        default=None, description="One character: the key that chooses it. Each is another one."
    )


class LabelSpec(_Form):
    """What annotators are asked."""

    question: str = Field(description="Such as: Which animal is it?")
    options: list[str] = Field(
        description="The answers to choose from: "
        f"{limits.OPTIONS_MIN} to {limits.OPTIONS_MAX}, each different."
    )
    option_details: list[OptionDetail] = Field(
        default=[], description="Descriptions and hotkeys of options, for those that need any."
    )


class Consensus(_Form):
    """How labels decide a task."""

    method: ConsensusMethod = Field(
        default=ConsensusMethod.MAJORITY,
        description="majority: by the number of labels. weighted: by the skill of their annotators.",
    )
    target_confidence: float | None = Field(
        default=None,
        ge=limits.TARGET_CONFIDENCE_MIN,
        le=limits.TARGET_CONFIDENCE_MAX,
        description="weighted: how likely an option has to be. "
        f"By default {limits.TARGET_CONFIDENCE_DEFAULT}.",
    )
    labels_min: int | None = Field(
        default=None,
        ge=limits.CONSENSUS_THRESHOLD_MIN,
        le=limits.CONSENSUS_THRESHOLD_MAX,
        description="weighted: labels of a task at the least. "
        f"By default {limits.LABELS_MIN_DEFAULT}.",
    )
    labels_max: int | None = Field(
        default=None,
        ge=1,
        le=limits.LABELS_MAX,
        description="weighted: labels of a task at the most. "
        f"By default {limits.LABELS_MAX_DEFAULT}.",
    )


class JobOptions(_Form):
    """The other fields of a job, as in `POST /v1/jobs`."""

    consensus_threshold: int = Field(
        default=limits.CONSENSUS_THRESHOLD_DEFAULT,
        ge=limits.CONSENSUS_THRESHOLD_MIN,
        le=limits.CONSENSUS_THRESHOLD_MAX,
        description="With how many labels a task is settled; with 1, the first label is the result.",
    )
    consensus: Consensus = Field(default=Consensus(), description="How labels decide a task.")
    gold_share: float = Field(
        default=limits.GOLD_SHARE_DEFAULT,
        ge=limits.GOLD_SHARE_MIN,
        le=limits.GOLD_SHARE_MAX,
        description="How many of an annotator's tasks are lines with `gold`, where there are any.",
    )
    min_accuracy: float | None = Field(
        default=None,
        ge=limits.MIN_ACCURACY_MIN,
        le=limits.MIN_ACCURACY_MAX,
        description="Annotators who are right on less of the gold get no more of a job.",
    )
    min_gold_seen: int = Field(
        default=limits.MIN_GOLD_SEEN_DEFAULT,
        ge=limits.MIN_GOLD_SEEN_MIN,
        le=limits.MIN_GOLD_SEEN_MAX,
        description="After how many gold tasks that is looked at.",
    )
    include_labels: bool = Field(
        default=False, description="Show the single labels in the delivery and the export."
    )
    review_no_consensus: bool = Field(
        default=False, description="Have reviewers decide tasks without a consensus."
    )
    review_confidence_below: float | None = Field(
        default=None,
        ge=limits.REVIEW_CONFIDENCE_MIN,
        le=1,
        description="Have reviewers decide tasks that would settle with less confidence.",
    )
    review_share: float | None = Field(
        default=None,
        ge=limits.REVIEW_SHARE_MIN,
        le=1,
        description="Have reviewers decide this share of the tasks that labels end.",
    )
    review_flagged: bool = Field(
        default=False, description="Have reviewers decide tasks that would fail by skips."
    )
    review_deadline: float = Field(
        default=limits.REVIEW_DEADLINE_DEFAULT,
        ge=limits.REVIEW_DEADLINE_MIN,
        le=limits.REVIEW_DEADLINE_MAX,
        description="Hours that a task waits for a reviewer at the most.",
    )
    task_type: TaskType = Field(
        default=TaskType.IMAGE_CLASSIFICATION, description="What annotators are shown."
    )
    priority: int = Field(
        default=limits.PRIORITY_DEFAULT,
        ge=limits.PRIORITY_MIN,
        le=limits.PRIORITY_MAX,
        description="Jobs with a higher one are handed out first.",
    )
    stop_early: bool = Field(
        default=False,
        description="Settle a task as soon as no other option can win any more.",
    )
    skips_max: int = Field(
        default=limits.SKIPS_MAX_DEFAULT,
        ge=limits.SKIPS_MAX_MIN,
        le=limits.SKIPS_MAX_MAX,
        description="A task fails once so many annotators have skipped it for the same reason.",
    )
    failure_threshold_percent: float = Field(
        default=limits.FAILURE_THRESHOLD_PERCENT_DEFAULT,
        ge=limits.FAILURE_THRESHOLD_PERCENT_MIN,
        le=limits.FAILURE_THRESHOLD_PERCENT_MAX,
        description="The job fails once more than this share of its lines is bad.",
    )
    callback_url: str | None = Field(
        default=None, description="An https URL that is told when a job ends."
    )
    metadata: dict[str, str] | None = Field(
        default=None,
        description="Kept with each job and shown with it; up to "
        f"{limits.METADATA_KEYS_MAX} members.",
    )
    show_metadata: bool | list[str] = Field(
        default=True,
        description="What annotators see of a line's metadata: all, none, or the members named here.",
    )
    sign_urls: bool = Field(
        default=False,
        description="Give annotators signed https URLs of objects in the block's place. Each job keeps "
        "a copy of the block's credentials until it has ended.",
    )
    instructions: str | None = Field(
        default=None,
        description="What annotators read before they label: Markdown, of at most 64 KiB.",
    )


class Find(_Form):
    """Which manifests a run takes."""

    catch_up: bool = Field(
        default=False,
        description="Also those that were there before the deployment of the stream was made.",
    )
    manifests_max: int = Field(
        default=100,
        ge=1,
        description="Jobs that one run makes at most; the rest is left for the next slot.",
    )
    min_age_s: int = Field(
        default=60,
        ge=0,
        description="Seconds. Younger ones may still be written, and are left for the next slot.",
    )
    suffixes: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[
            f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in ("", ".gz", ".zst")
        ],
        min_length=1,
        description="What the names of manifests end with, in small letters or capital ones.",
    )
    timezone: str = Field(default="UTC", description="Of the dates in `source`.")
    retry_failed: int = Field(
        default=0,
        ge=0,
        le=100,
        description="How often a manifest is tried again whose job or delivery has failed.",
    )
    slot: datetime | None = Field(
        default=None, description="For a backfill: the time of the slot; by default the run's own."
    )


def job_of(
    customer: str,
    source: ManifestSource,
    label_spec: LabelSpec,
    options: JobOptions,
    target: DeliveryTarget | None,
) -> NewJob:
    """Return what all jobs of a stream have in common; each gets its own `manifest_url`.

    Raises:
        InvalidParameters: with everything that `POST /v1/jobs` would refuse.
        UnusableBlock: URLs are to be signed, and the block holds no key.
    """
    body = {
        "manifest_url": source.url_of("manifest"),
        "label_spec": label_spec.model_dump(mode="json"),
        "delivery": msgspec.to_builtins(target),
        **options.model_dump(mode="json"),
    }
    if options.sign_urls:
        # They are looked at alone; a job copies those that its block has when it is read.
        body["credentials"] = msgspec.to_builtins(source.read_key())
    job, faults = read_body(msgspec.json.encode(body), JobBody)
    if job is None or faults:
        raise InvalidParameters(
            " ".join(f"{_place(fault.field)}: {fault.message}" for fault in faults)
        )
    return msgspec.structs.replace(
        job.to_job(customer),
        credentials=None,
        block_delivers_to=target.url if target else None,
    )


def _place(field: str) -> str:
    """Return the parameter in which an owner sets a field of the body."""
    first = field.partition(".")[0].partition("[")[0]
    return field if first in _OF_THE_BODY else f"options.{field}"
