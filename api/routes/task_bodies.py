"""The bodies of `POST /v1/tasks` and `POST /v1/tasks/batch`, with every rule on them."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from api.http.bodies import digest
from blocks.bodies.fields import Body, JsonObject, check_json
from blocks.bodies.jobs import (
    Checks,
    ConsensusThreshold,
    HttpsUrl,
    LabelSpecBody,
    SkipsMax,
    check_https_url,
    normalize_callback_url,
)
from blocks.domain import limits
from blocks.domain.data_urls import URL_CHARACTERS_MAX, is_data_url
from blocks.domain.metadata import list_shown_members
from blocks.domain.model import TaskType
from blocks.domain.show_metadata import ShowMetadata
from blocks.domain.wrong_values import why_not_json
from blocks.store.tasks import NewTask, Rule

_TASKS_MAX = 1000
_METADATA_BYTES_MAX = 64 * 1024
_NO_METADATA = msgspec.Raw(b"null")
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


def _check_metadata(metadata: msgspec.Raw) -> None:
    text = bytes(metadata)
    if not text.startswith(b"{") and metadata != _NO_METADATA:
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
        "callback_url": check_https_url,
        "metadata": _check_metadata,
    }

    type: TaskType
    """What annotators are asked to do."""
    data_url: _DataUrl
    """What to look at: an absolute http, https, s3 or gs URL."""
    label_spec: LabelSpecBody
    """The question, and the options to choose from."""
    consensus_threshold: ConsensusThreshold = limits.CONSENSUS_THRESHOLD_DEFAULT
    """How many labels the task collects before agreement is looked at."""
    stop_early: bool = False
    """Settle the task as soon as no other option can win any more."""
    skips_max: SkipsMax = limits.SKIPS_MAX_DEFAULT
    """The task fails once so many annotators have skipped it for the same reason."""
    callback_url: HttpsUrl | None = None
    """Where to tell that the task is settled: https, without a user and a password."""
    show_metadata: ShowMetadata = True
    metadata: JsonObject = msgspec.field(default_factory=lambda: _NO_METADATA)
    """An object of your own, of at most 64 KiB, which results show again byte for byte."""
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """The same key and body gives the same task again."""

    def to_task(self, callback_url: str | None = None) -> NewTask:
        """Return the task to record; `callback_url` is for one that has none of its own."""
        callback_url = normalize_callback_url(self.callback_url or callback_url)
        return NewTask(
            rule=Rule(
                task_type=self.type,
                question=self.label_spec.question,
                options=self.label_spec.options,
                consensus_threshold=self.consensus_threshold,
                stop_early=self.stop_early,
                skips_max=self.skips_max,
                shown_metadata=list_shown_members(self.show_metadata),
            ),
            data_url=self.data_url,
            metadata=None if self.metadata == _NO_METADATA else bytes(self.metadata).decode(),
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
