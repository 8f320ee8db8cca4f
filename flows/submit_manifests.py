"""Recurring ETL: new manifests in a bucket of the operator's become jobs.

Requires: blocks for the bucket and the delivery (`refinery blocks register` has the types), and a
customer that the jobs belong to.

A stream makes exactly one job of each version of each manifest, whatever reruns, redeploys, backfills,
overlapping slots or late files come: job and manifest are bound in one transaction.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed

from blocks.buckets.protocol import Entry
from blocks.prefect import markdown
from blocks.prefect.api import PrefectApi
from blocks.prefect.blocks import ManifestSource, load_delivery, load_source
from blocks.store import streams
from blocks.store.jobs import NewJob
from blocks.store.streams import Manifest, Stream
from flows.finding.listed import Listed
from flows.finding.own_results import OwnResults, check_delivery
from flows.finding.sources import Slot, Source, Verdict, utc
from flows.finding.stream_failures import tell_of_failures
from flows.finding.stream_form import Find, JobOptions, LabelSpec, job_of
from flows.running.monitor import only_shown, run_log
from flows.running.policy import NETWORK_TASK
from flows.running.resources import database, settings

_PAGE = 1000
_ROWS_MAX = 500
_LEFT_ROWS_MAX = 100
_DEFAULT_STREAM = "default"
_OVER_THE_BOUND = "for the next slot (find.manifests_max)"
_DONE = {False: "submitted", True: "tried again"}
_NOT_IN_A_KEY = re.compile("[^a-z0-9]+")


class Found(msgspec.Struct, frozen=True):
    """One manifest and what became of it."""

    manifest: Manifest
    bytes: int
    outcome: str
    job_id: str | None = None
    is_again: bool = False


class Listing(msgspec.Struct, frozen=True):
    """What lies below a source: `due` is to be submitted, `left` is not, each with the reason.

    `notes` are sentences without their full stops about what no owner would see otherwise.
    """

    due: list[Found]
    left: list[Found]
    notes: list[str]


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

    The run ends as `Failed` as long as manifests of the stream have no result: their jobs failed, or
    their deliveries, and nobody has had them tried again or ignored.

    Args:
        customer: Whose jobs they are: `cust_…`.
        block: The Refinery Manifest Source that the manifests lie in.
        source: A prefix of keys in it, such as `in/`, or one with the slot's date:
            `in/{date:%Y/%m/%d}/`.
        label_spec: What annotators are asked.
        delivery: The Refinery Results Delivery that the results go to, beside the source; without one
            they are exported over HTTP.
        stream: A name for what belongs together: within it no manifest becomes two jobs.
        options: The other fields of the jobs.
        find: Which manifests are taken.
        dry_run: Only say what would be done.
    """
    of = Stream(customer, stream)
    where, new = check_parameters(
        customer, block, source, find, label_spec=label_spec, delivery=delivery, options=options
    )
    listing = find_manifests(of, where, source, find)
    if dry_run:
        found = [
            msgspec.structs.replace(each, outcome="would be submitted") for each in listing.due
        ]
    else:
        found = [submit(of, each, new) for each in listing.due]
    found += listing.left
    show(of, found, dry_run=dry_run)
    said = _summary(found, listing.notes, dry_run=dry_run)
    if dry_run or not (failed := tell_of_failures(of)):
        return Completed(message=f"{said}.")
    return Failed(message=f"{failed}; {said}.")


@task(task_run_name="check parameters", **NETWORK_TASK)
def check_parameters(
    customer: str,
    block: str,
    source: str,
    find: Find,
    *,
    label_spec: LabelSpec,
    delivery: str | None,
    options: JobOptions,
) -> tuple[ManifestSource, NewJob]:
    """The block of the source, and what all jobs of the run have in common."""
    where = load_source(block)
    target = load_delivery(delivery).target() if delivery else None
    if target:
        check_delivery(target, where.place, _source(source, find))
    new = job_of(customer, where, label_spec, options, target)
    return where, msgspec.structs.replace(new, credentials_block=block)


@task(task_run_name="find manifests", **NETWORK_TASK)
def find_manifests(stream: Stream, where: ManifestSource, template: str, find: Find) -> Listing:
    """What lies below the source, and what this slot has to submit of it."""
    source = _source(template, find)
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
    listed = Listed(source)
    bucket = where.open(settings(), msgspec.structs.replace(where.place, key=source.prefix))
    results = OwnResults(database(), bucket, where.place)
    for page in _pages(bucket.entries(source.prefix)):
        mine = listed.manifests_of(page, results.are_among(page))
        for entry, found in _open_of(stream, where, mine, find.retry_failed):
            verdict = Verdict.DUE if found.is_again else source.judge(entry, slot)
            if verdict is Verdict.DUE and len(due) < find.manifests_max:
                due.append(found)
            else:
                reason = _OVER_THE_BOUND if verdict is Verdict.DUE else str(verdict)
                left.append(msgspec.structs.replace(found, outcome=f"left: {reason}"))
    return Listing(due, left, listed.notes())


@task(task_run_name="submit {found.manifest.url}", **NETWORK_TASK)
def submit(stream: Stream, found: Found, new: NewJob) -> Found:
    """Make the job, pinned to the version that was found, or try again what has failed."""
    manifest = found.manifest
    job = msgspec.structs.replace(
        new,
        manifest_url=manifest.url,
        manifest_bytes=found.bytes,
        manifest_version=manifest.version,
    )
    with database().transaction() as tx:
        begin = streams.resubmit if found.is_again else streams.submit
        job_id = begin(tx, stream, manifest, settings().vault(), job)
    outcome = _DONE[found.is_again] if job_id else "submitted by another run"
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


def _source(template: str, find: Find) -> Source:
    return Source(template, timezone=find.timezone, suffixes=find.suffixes)


def _pages(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while page := list(islice(entries, _PAGE)):
        yield page


def _open_of(
    stream: Stream, where: ManifestSource, page: list[Entry], retries: int
) -> Iterator[tuple[Entry, Found]]:
    """Those that the stream has made no jobs of, and those that it tries again."""
    asked = {Manifest(where.url_of(entry.key), entry.pin.version): entry for entry in page}
    with database().transaction() as tx:
        known = streams.find_known(tx, stream, list(asked))
    for manifest, entry in asked.items():
        before = known.get(manifest)
        if before is None or (before.has_failed and before.attempts <= retries):
            yield entry, Found(manifest, entry.pin.size, "", is_again=before is not None)


@only_shown
def show(stream: Stream, found: list[Found], *, dry_run: bool) -> None:
    """A table in the Prefect UI of what was found, under the stream's name, where it has changed."""
    if not found:
        return
    begun = [each for each in found if each.job_id]
    left = [each for each in found if not each.job_id]
    table = [
        {
            "manifest": each.manifest.url,
            "version": each.manifest.version,
            "bytes": each.bytes,
            "outcome": each.outcome,
            "job": each.job_id or "",
        }
        for each in [*begun[:_ROWS_MAX], *left[:_LEFT_ROWS_MAX]]
    ]
    digest = hashlib.sha256(repr(table).encode()).digest()
    with database().transaction() as tx:
        if not dry_run and not streams.record_shown(tx, stream, digest):
            return
        name = f"manifests {stream.customer_id} {stream.stream}".lower()
        create_table_artifact(
            key=_NOT_IN_A_KEY.sub("-", name).strip("-"),
            table=table,
            description=f"Found in the stream {markdown.text(stream.stream)}: {len(found)}, "
            f"of which {len(table)} are shown",
        )


def _summary(found: list[Found], notes: list[str], *, dry_run: bool) -> str:
    outcomes = Counter(each.outcome for each in found)
    said = [f"{count} {outcome}" for outcome, count in outcomes.items()] or ["no new manifests"]
    prefix = "Dry run: " if dry_run else ""
    return f"{prefix}{'; '.join([', '.join(said), *notes])}"
