"""Jobs: try one out before it is submitted, and see its first lines as annotators will."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api.auth import customer_id
from api.http import threads
from api.http.errors import with_faults
from api.http.refusals import refusals
from api.preflight import Lines, Preflights
from api.routes.job_views import LabelSpec, label_spec_of
from blocks.bodies.fields import Fault
from blocks.bodies.jobs import JobBody
from blocks.domain.errors import ObjectNotFound
from blocks.domain.metadata import show_members
from blocks.domain.model import BadLine, GoodLine, LineCode, TaskType
from blocks.domain.object_urls import InvalidObjectUrl, parse_object_url
from blocks.secrets.credentials import decode_credentials
from blocks.secrets.signing import NotSignable, Signer, open_signer
from blocks.settings import Settings
from blocks.store.customers import Principal
from blocks.store.jobs import NewJob

_SIGNED_S = 300
_RAW_CHARACTERS_MAX = 2_000
_NO_BUCKET = Fault("delivery", "There is no bucket 'labels'.", ObjectNotFound.code)


class TaskPreview(msgspec.Struct, frozen=True, kw_only=True):
    """A line as annotators will see it."""

    line: int
    """Its number, from 1 on."""
    data_url: str | None
    """What to look at; null where there is a `text`."""
    signed_url: str | msgspec.UnsetType = msgspec.UNSET
    """With `sign_urls`: the URL to load instead, for 5 minutes."""
    text: str | msgspec.UnsetType = msgspec.UNSET
    """What to read, where the line has a text; else missing."""
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What `show_metadata` shows of its metadata; missing where that is nothing."""
    gold: str | msgspec.UnsetType = msgspec.UNSET
    """The right answer of a gold line, which annotators do not see; else missing."""


class BadLinePreview(msgspec.Struct, frozen=True, kw_only=True):
    """A line that will be no task."""

    line: int
    """Its number, from 1 on."""
    code: LineCode
    """What is wrong with it, for programs."""
    message: str
    """The same, for people."""
    raw: str
    """The line; its first 2,000 characters where it is longer."""


class JobPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a job will be: the first ten lines of its manifest."""

    task_type: TaskType
    """What annotators are asked to do."""
    label_spec: LabelSpec
    """The question, and the options to choose from."""
    tasks: list[TaskPreview]
    """The good ones of the first lines."""
    bad_lines: list[BadLinePreview]
    """The bad ones."""


@post(
    "/preview",
    operation_id="preview_job",
    summary="Try a job out",
    status_code=HTTPStatus.OK,
    responses=refusals(
        with_faults(HTTPStatus.UNPROCESSABLE_ENTITY, "preflight_failed", [_NO_BUCKET]),
        takes=JobBody,
    ),
)
async def preview(
    request: Request[Principal, Any, Any],
    data: JSONBody[JobBody],
    preflights: NamedDependency[Preflights],
    settings: NamedDependency[Settings],
) -> JobPreview:
    """Try to read the manifest, to write the delivery and to reach the callback; nothing is recorded.

    What does not work is a 422 with a fault for each field, as with `?preflight=true` of a job.
    """
    new = data.to_job(customer_id(request))
    lines = await preflights.check(new, request.app.state.threads.preflights)
    return await threads.run(request.app.state.threads.preflights, _show, new, lines, settings)


def _show(new: NewJob, lines: Lines, settings: Settings) -> JobPreview:
    """Show the first lines of a job; in a thread, as signing takes 3 ms with a key of Google's."""
    signer = _signer(new, settings) if new.sign_urls else None
    return JobPreview(
        task_type=new.task_type,
        label_spec=label_spec_of(new),
        tasks=[_task(line, new, signer) for line in lines if isinstance(line, GoodLine)],
        bad_lines=list(_bad_lines(line for line in lines if isinstance(line, BadLine))),
    )


def _signer(new: NewJob, settings: Settings) -> Signer | None:
    store = parse_object_url(new.manifest_url).store
    credentials = decode_credentials(store, new.credentials)
    if credentials is None:
        return None
    return open_signer(credentials, gcs_endpoint_url=settings.gcs_endpoint_url)


def _task(line: GoodLine, new: NewJob, signer: Signer | None) -> TaskPreview:
    metadata = show_members(line.metadata, new.shown_metadata)
    return TaskPreview(
        line=line.line,
        data_url=line.data_url,
        signed_url=_sign(line.data_url, signer) or msgspec.UNSET,
        text=msgspec.UNSET if line.text is None else line.text,
        metadata=msgspec.UNSET if metadata is None else msgspec.Raw(metadata),
        gold=new.options[line.gold - 1] if line.gold else msgspec.UNSET,
    )


def _sign(data_url: str | None, signer: Signer | None) -> str | None:
    if signer is None or data_url is None:
        return None
    try:
        url = parse_object_url(data_url)
        if url.store is not signer.store:
            return None
        return signer.sign(url, expires_s=_SIGNED_S, at=datetime.now(UTC))
    except (InvalidObjectUrl, NotSignable):
        return None


def _bad_lines(lines: Iterator[BadLine]) -> Iterator[BadLinePreview]:
    for line in lines:
        raw = line.raw.decode(errors="replace")[:_RAW_CHARACTERS_MAX]
        yield BadLinePreview(line=line.line, code=line.code, message=line.message, raw=raw)


HANDLERS = [preview]
