"""The bodies of `POST /v1/tasks` and `POST /v1/tasks/batch`, with every rule on them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from api.http.bodies import digest
from blocks.bodies.consensus import MAJORITY, ConsensusBody, decision_of, method_faults
from blocks.bodies.fields import (
    Body,
    Checks,
    Fault,
    JsonObject,
    RawObject,
    check_json,
    value_of,
)
from blocks.bodies.jobs import (
    ConsensusThreshold,
    HttpsUrl,
    Instructions,
    SkipsMax,
    check_https_url,
    check_instructions,
    normalize_callback_url,
)
from blocks.bodies.label_spec import LabelSpecBody
from blocks.domain import limits
from blocks.domain.data_urls import URL_CHARACTERS_MAX, is_data_url
from blocks.domain.metadata import list_shown_members
from blocks.domain.model import LINE_BYTES_MAX, TaskType
from blocks.domain.show_metadata import ShowMetadata
from blocks.domain.wrong_values import why_not_json
from blocks.lines.exact_path import BLANK_TEXT
from blocks.store.tasks import NewTask, Rule

_TASKS_MAX = 1000
_METADATA_BYTES_MAX = 64 * 1024
_NULL = msgspec.Raw(b"null")
_TEXT = {"pattern": r"[^ \t\r\n]", "maxLength": LINE_BYTES_MAX}
_DataUrl = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": "^([hH][tT][tT][pP][sS]?|[sS]3|[gG][sS])://",
            "maxLength": URL_CHARACTERS_MAX,
        }
    ),
]


def _check_data_url(url: str) -> None:
    if not is_data_url(url):
        raise ValueError(
            "This must be an absolute http, https, s3 or gs URL with a valid host, of at most "
            "2,048 characters."
        )


def _check_text(text: str) -> None:
    if not text.strip(BLANK_TEXT):
        raise ValueError("The text must not be blank; null stands for none.")
    if len(text.encode()) > LINE_BYTES_MAX:
        raise ValueError(f"The text must be at most {LINE_BYTES_MAX:,} bytes of UTF-8.")


def _data_faults(type_: TaskType | None, *, has_url: bool, has_text: bool) -> Iterator[Fault]:
    """Yield what is wrong with the URL and the text of a task, where its type may be wrong as well."""
    if has_text and type_ is not None and not type_.takes_text:
        yield Fault("text", f"A task of the type {type_} has a data_url, and no text.")
    elif has_text and has_url:
        yield Fault("text", "A task has either data_url or text, and this one has both.")
    if not has_text and not has_url:
        takes_text = type_ is not None and type_.takes_text
        message = (
            "One of data_url and text is required." if takes_text else "This field is required."
        )
        yield Fault("data_url", message)


def _check_metadata(metadata: msgspec.Raw) -> None:
    text = bytes(metadata)
    if not text.startswith(b"{") and metadata != _NULL:
        raise ValueError("The metadata must be a JSON object.")
    if len(text) > _METADATA_BYTES_MAX:
        raise ValueError(f"The metadata must be at most {_METADATA_BYTES_MAX:,} bytes of JSON.")
    try:
        check_json(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"The metadata is not valid JSON: {why_not_json(error)}") from error


class TaskBody(Body, frozen=True, kw_only=True):
    """One thing to look at, and a question about it."""

    checks: ClassVar[Checks] = {
        "data_url": _check_data_url,
        "text": _check_text,
        "callback_url": check_https_url,
        "metadata": _check_metadata,
        "instructions": check_instructions,
    }
    known_elsewhere: ClassVar[Mapping[str, str]] = {
        "sign_urls": "An inline task has no credentials to sign with: give a data_url that annotators "
        "can load, or post a job with a manifest and credentials."
    }

    json_schema: ClassVar[Mapping[str, Any]] = {
        "oneOf": [
            {"required": [field], "properties": {field: {"type": "string"}}}
            for field in ("data_url", "text")
        ],
        "if": {"properties": {"type": {"const": TaskType.IMAGE_CLASSIFICATION.value}}},
        "then": {"properties": {"text": {"type": "null"}}},
    }

    type: TaskType
    """What annotators are asked to do."""
    data_url: _DataUrl | None = None
    """What to look at: an absolute http, https, s3 or gs URL. Required where there is no `text`."""
    text: Annotated[str, Meta(extra_json_schema=_TEXT)] | None = None
    """What to read, instead of `data_url`: of at most 1 MiB of UTF-8, and not blank. A task of the type
    `image_classification` has none."""
    gold: str | None = None
    """The right option, where it is known: the task then measures annotators, and is settled from the
    beginning."""
    label_spec: LabelSpecBody
    """The question, and the options to choose from."""
    consensus_threshold: ConsensusThreshold = limits.CONSENSUS_THRESHOLD_DEFAULT
    """How many labels the task collects before agreement is looked at. With 1, the first label is the
    result."""
    consensus: ConsensusBody = MAJORITY
    """How labels decide; without it, by their number."""
    stop_early: bool = False
    """Settle the task as soon as no other option can win any more."""
    skips_max: SkipsMax = limits.SKIPS_MAX_DEFAULT
    """The task fails once so many annotators have skipped it for the same reason."""
    callback_url: HttpsUrl | None = None
    """Where to tell that the task is settled: https, without a user and a password."""
    show_metadata: ShowMetadata = True
    instructions: Instructions | None = None
    """What annotators read before they label: Markdown, of at most 64 KiB of UTF-8."""
    metadata: JsonObject = msgspec.field(default_factory=lambda: _NULL)
    """An object of your own, of at most 64 KiB, which results show again byte for byte."""
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """The same key and body gives the same task again."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield what is wrong unless the task has either a URL or a text, and fields of its method."""
        has_url, has_text = self.data_url is not None, self.text is not None
        yield from _data_faults(self.type, has_url=has_url, has_text=has_text)
        yield from method_faults(self)
        if self.gold is not None and self.gold not in self.label_spec.options:
            yield Fault("gold", "This is none of the options.")

    @classmethod
    def raw_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield the same of a task with a field of a wrong type."""
        has_url, has_text = (raw.get(field, _NULL) != _NULL for field in ("data_url", "text"))
        found = value_of(raw.get("type"), TaskType)
        yield from _data_faults(found, has_url=has_url, has_text=has_text)

    def to_task(self, callback_url: str | None = None) -> NewTask:
        """Return the task to record; `callback_url` is for one that has none of its own."""
        callback_url = normalize_callback_url(self.callback_url or callback_url)
        return NewTask(
            rule=Rule(
                task_type=self.type,
                question=self.label_spec.question,
                options=self.label_spec.options,
                option_details=self.label_spec.list_details(),
                skips_max=self.skips_max,
                shown_metadata=list_shown_members(self.show_metadata),
                instructions=self.instructions,
                **decision_of(self),
            ),
            data_url=self.data_url,
            text=self.text,
            gold=None if self.gold is None else self.label_spec.options.index(self.gold) + 1,
            metadata=None if self.metadata == _NULL else bytes(self.metadata).decode(),
            callback_url=callback_url,
            idempotency_key=self.idempotency_key,
            body_hash=digest(self, callback_url),
        )


class TasksBody(Body, frozen=True, kw_only=True):
    """Up to 1,000 tasks; `callback_url` is for those that have none of their own."""

    checks: ClassVar[Checks] = {"callback_url": check_https_url}

    tasks: Annotated[list[TaskBody], Meta(min_length=1, max_length=_TASKS_MAX)]
    """The tasks; all of them are recorded, or none."""
    callback_url: HttpsUrl | None = None
    """The `callback_url` of tasks that have none of their own."""

    def to_tasks(self) -> list[NewTask]:
        """Return the tasks to record, in their order."""
        return [task.to_task(self.callback_url) for task in self.tasks]
