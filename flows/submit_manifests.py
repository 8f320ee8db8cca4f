"""Recurring ETL: new manifests in a bucket of the operator's become jobs.

Requires: blocks for the bucket and the delivery (`refinery blocks register` has the types), and a
customer that the jobs belong to.

A stream makes exactly one job of each version of each manifest, whatever reruns, redeploys, backfills,
overlapping slots or late files come: job and manifest are bound in one transaction.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import BaseModel, Field

from blocks import markdown
from blocks.buckets import Entry
from blocks.metadata import named_members
from blocks.model import TaskType
from blocks.prefect_api import PrefectApi
from blocks.prefect_blocks import load_delivery, load_source
from blocks.store import streams
from blocks.store.jobs import NewJob
from blocks.store.streams import Manifest, Stream
from flows.monitor import only_shown, run_log
from flows.policy import NETWORK_TASK
from flows.resources import database, settings
from flows.sources import Slot, Source, Verdict, utc

_KNOWN_PAGE = 1000
_ROWS_MAX = 500
_DEFAULT_STREAM = "default"
_NOT_IN_A_KEY = re.compile("[^a-z0-9]+")

_Text = Annotated[str, Field(min_length=1)]


class LabelSpec(BaseModel):
    """What annotators are asked."""

    question: _Text
    options: Annotated[list[_Text], Field(min_length=2, max_length=100)]


class JobOptions(BaseModel):
    """The other fields of a job, as `POST /v1/jobs` has them."""

    consensus_threshold: Annotated[int, Field(ge=2, le=10)] = 3
    task_type: TaskType = TaskType.IMAGE_CLASSIFICATION
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    stop_early: bool = False
    failure_threshold_percent: Annotated[float, Field(ge=0, le=100)] = 100
    callback_url: str | None = None
    metadata: dict[str, str] | None = None
    show_metadata: bool | list[str] = Field(
        default=True,
        description="What annotators see of a line's metadata: all, none, or the members named here.",
    )


class Find(BaseModel):
    """Which manifests a run takes."""

    catch_up: bool = Field(
        default=False,
        description="Also those that were there before the deployment of the stream was made.",
    )
    manifests_max: Annotated[int, Field(ge=1)] = Field(
        default=100,
        description="Jobs that one run makes at most; the rest is left for the next slot.",
    )
    min_age_s: Annotated[int, Field(ge=0)] = Field(
        default=60, description="Younger ones may still be written, and are left for the next slot."
    )
    suffixes: list[str] = [".jsonl", ".jsonl.gz", ".jsonl.zst"]
    timezone: str = Field(default="UTC", description="Of the dates in `source`.")
    slot: datetime | None = Field(
        default=None, description="For a backfill: the time of the slot; by default the run's own."
    )


class Found(msgspec.Struct, frozen=True):
    """One manifest and what became of it."""

    manifest: Manifest
    bytes: int
    outcome: str
    job_id: str | None = None


@flow(name="submit-manifests", flow_run_name="submit manifests of {stream}")
def submit_manifests(  # noqa: PLR0913, PLR0917 - what an ETL owner sets, as a form in the Prefect UI
    customer: str,
    block: str,
    source: str,
    label_spec: LabelSpec,
    delivery: str | None = None,
    stream: str = _DEFAULT_STREAM,
    options: JobOptions = JobOptions(),  # noqa: B008 - never changed
    find: Find = Find(),  # noqa: B008 - never changed
    dry_run: bool = False,
) -> State[Any]:
    """Make a job of each new manifest.

    Args:
        customer: Whose jobs they are: `cust_…`.
        block: The Refinery Manifest Source that the manifests lie in.
        source: A prefix of keys in it, such as `in/`, or one with the slot's date:
            `in/{date:%Y/%m/%d}/`.
        label_spec: What annotators are asked.
        delivery: The Refinery Results Delivery that the results go to.
        stream: A name for what belongs together: within it no manifest becomes two jobs.
        options: The other fields of the jobs.
        find: Which manifests are taken.
        dry_run: Only say what would be done.
    """
    of = Stream(customer, stream)
    new = new_job(customer, block, label_spec, delivery, options)
    due, left = find_manifests(of, block, source, find)
    if dry_run:
        found = [msgspec.structs.replace(each, outcome="would be submitted") for each in due]
    else:
        found = [submit(of, each, new) for each in due]
    found += left
    show(of, found)
    return Completed(message=_summary(found, dry_run=dry_run))


@task(task_run_name="check parameters", **NETWORK_TASK)
def new_job(
    customer: str, block: str, label_spec: LabelSpec, delivery: str | None, options: JobOptions
) -> NewJob:
    """What all jobs of the run have in common."""
    source = load_source(block)
    target = load_delivery(delivery).target() if delivery else None
    return NewJob(
        customer_id=customer,
        manifest_url=source.bucket_url,
        question=label_spec.question,
        options=label_spec.options,
        consensus_threshold=options.consensus_threshold,
        task_type=options.task_type,
        callback_url=options.callback_url,
        metadata=msgspec.json.encode(options.metadata).decode() if options.metadata else None,
        priority=options.priority,
        stop_early=options.stop_early,
        failure_threshold_percent=options.failure_threshold_percent,
        credentials=None,
        credentials_block=block,
        delivery=target,
        block_delivers_to=target.url if target else None,
        shown_metadata=named_members(options.show_metadata),
    )


@task(task_run_name="find manifests", **NETWORK_TASK)
def find_manifests(
    stream: Stream, block: str, source: str, find: Find
) -> tuple[list[Found], list[Found]]:
    """The manifests that are to be submitted, and those that are left, each with the reason."""
    where = load_source(block)
    place = Source(source, timezone=find.timezone, suffixes=find.suffixes)
    deployed_at = _deployed_at(stream)
    with database().transaction() as tx:
        began_at = streams.begin(tx, stream, deployed_at or datetime.now(UTC))
    slot = Slot(
        at=utc(find.slot or flow_run.scheduled_start_time),
        now=datetime.now(UTC),
        stream_began_at=began_at,
        min_age=timedelta(seconds=find.min_age_s),
        catch_up=find.catch_up,
    )
    due: list[Found] = []
    left: list[Found] = []
    top = msgspec.structs.replace(where.place, key=place.prefix)
    listed = where.open(settings(), top).entries(place.prefix)
    for entry in _unknown(stream, where.url_of, (e for e in listed if place.is_manifest(e.key))):
        found = Found(Manifest(where.url_of(entry.key), entry.pin.version), entry.pin.size, "")
        verdict = place.judge(entry, slot)
        if verdict is Verdict.DUE and len(due) < find.manifests_max:
            due.append(found)
        else:
            reason = "over the bound" if verdict is Verdict.DUE else str(verdict)
            left.append(msgspec.structs.replace(found, outcome=f"left: {reason}"))
    return due, left


@task(task_run_name="submit {found.manifest.url}", **NETWORK_TASK)
def submit(stream: Stream, found: Found, new: NewJob) -> Found:
    """Make the job, pinned to the version that was found."""
    manifest = found.manifest
    job = msgspec.structs.replace(
        new,
        manifest_url=manifest.url,
        manifest_bytes=found.bytes,
        manifest_version=manifest.version,
    )
    with database().transaction() as tx:
        job_id = streams.submit(tx, stream, manifest, job, settings().vault())
    outcome = "submitted" if job_id else "submitted by another run"
    event = "manifest.submitted" if job_id else "manifest.there_already"
    run_log(manifest=manifest.url, version=manifest.version).info(event, job_id=job_id)
    return msgspec.structs.replace(found, outcome=outcome, job_id=job_id)


def _deployed_at(stream: Stream) -> datetime | None:
    """When the stream's deployment was made: what comes between that and its first slot belongs to it.

    None for a run without a deployment, or with another stream than its deployment has.
    """
    if deployment.id is None:
        return None
    with PrefectApi(settings()) as prefect:
        found = prefect.deployment(deployment.id)
    return (
        found.created_at
        if found.parameters.get("stream", _DEFAULT_STREAM) == stream.stream
        else None
    )


def _unknown(stream: Stream, url_of: Any, entries: Iterator[Entry]) -> Iterator[Entry]:
    """Those that the stream has made no jobs of, a page of them looked up at a time."""
    page: list[Entry] = []
    for entry in entries:
        page.append(entry)
        if len(page) == _KNOWN_PAGE:
            yield from _unknown_of(stream, url_of, page)
            page = []
    yield from _unknown_of(stream, url_of, page)


def _unknown_of(stream: Stream, url_of: Any, page: list[Entry]) -> Iterator[Entry]:
    asked = {Manifest(url_of(entry.key), entry.pin.version): entry for entry in page}
    with database().transaction() as tx:
        known = streams.known(tx, stream, list(asked))
    return (entry for manifest, entry in asked.items() if manifest not in known)


@only_shown
def show(stream: Stream, found: list[Found]) -> None:
    """A table in the Prefect UI of what was found, under the stream's name."""
    if not found:
        return
    table = [
        {
            "manifest": each.manifest.url,
            "version": each.manifest.version,
            "bytes": each.bytes,
            "outcome": each.outcome,
            "job": each.job_id or "",
        }
        for each in found[:_ROWS_MAX]
    ]
    name = f"manifests {stream.customer_id} {stream.stream}".lower()
    create_table_artifact(
        key=_NOT_IN_A_KEY.sub("-", name).strip("-"),
        table=table,
        description=f"Found in the stream {markdown.text(stream.stream)}: {len(found)}",
    )


def _summary(found: list[Found], *, dry_run: bool) -> str:
    outcomes: dict[str, int] = {}
    for each in found:
        outcomes[each.outcome] = outcomes.get(each.outcome, 0) + 1
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    prefix = "Dry run: " if dry_run else ""
    return f"{prefix}{said or 'no new manifests'}."
