"""Find what a slot has to submit: manifests that are new to the stream, and failed ones to try again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec
from prefect.runtime import deployment, flow_run

from blocks.buckets.protocol import Entry
from blocks.prefect.api import PrefectApi
from blocks.prefect.blocks import ManifestSource
from blocks.store import streams
from blocks.store.streams import Manifest, Stream
from flows.finding.own_results import OwnResults
from flows.finding.source_listing import SourceListing
from flows.finding.sources import Slot, Source, Verdict, utc
from flows.finding.stream_form import DEFAULT_STREAM, Find
from flows.running.resources import database, settings

_PAGE = 1000
_OVER_THE_BOUND = "for the next slot (find.manifests_max)"


class FoundManifest(msgspec.Struct, frozen=True):
    """Describe one version of a manifest, and what became of it."""

    manifest: Manifest
    bytes: int
    outcome: str
    job_id: str | None = None
    is_again: bool = False
    """The stream has a job of it already, which has failed and is tried again."""


class SlotWork(msgspec.Struct, frozen=True):
    """List manifests below a source: `due` are to be submitted, `left` are not, each with the reason.

    `notes` are sentences without their full stops about what no owner would see otherwise.
    """

    due: list[FoundManifest]
    left: list[FoundManifest]
    notes: list[str]


def find_slot_work(stream: Stream, where: ManifestSource, template: str, find: Find) -> SlotWork:
    """List what lies below the source, and return what this slot has to submit of it.

    Raises:
        InvalidSource: the template is none, or no key will ever begin with its prefix.
        RefineryError: the bucket, the database or Prefect cannot be asked.
    """
    source = source_of(template, find)
    slot = _slot_of(stream, find)
    due: list[FoundManifest] = []
    left: list[FoundManifest] = []
    listing = SourceListing(source)
    bucket = where.open(settings(), msgspec.structs.replace(where.place, key=source.prefix))
    results = OwnResults(database(), bucket, where.place)
    for page in _pages(bucket.entries(source.prefix)):
        manifests = listing.manifests_of(page, results.are_among(page))
        for entry, found in _without_job(stream, where, manifests, find.retry_failed):
            verdict = Verdict.DUE if found.is_again else source.judge(entry, slot)
            if verdict is Verdict.DUE and len(due) < find.manifests_max:
                due.append(found)
            else:
                reason = _OVER_THE_BOUND if verdict is Verdict.DUE else str(verdict)
                left.append(msgspec.structs.replace(found, outcome=f"left: {reason}"))
    return SlotWork(due, left, listing.notes())


def source_of(template: str, find: Find) -> Source:
    """Return the source that an owner's parameters describe.

    Raises:
        InvalidSource: they describe none.
    """
    return Source(template, timezone=find.timezone, suffixes=find.suffixes)


def _slot_of(stream: Stream, find: Find) -> Slot:
    deployed_at = _deployed_at(stream)
    with database().transaction() as tx:
        began_at = streams.begin(tx, stream, deployed_at or datetime.now(UTC))
    return Slot(
        at=utc(find.slot or flow_run.scheduled_start_time),
        now=datetime.now(UTC),
        stream_began_at=began_at,
        min_age=timedelta(seconds=find.min_age_s),
        catch_up=find.catch_up,
    )


def _deployed_at(stream: Stream) -> datetime | None:
    """Return when the stream's deployment was made: what comes before its first slot belongs to it.

    None for a run without a deployment, or with another stream than its deployment has.
    """
    if deployment.id is None:
        return None
    with PrefectApi(settings()) as prefect:
        found = prefect.deployment(deployment.id)
    is_its_own = found.parameters.get("stream", DEFAULT_STREAM) == stream.stream
    return found.created_at if is_its_own else None


def _pages(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while page := list(islice(entries, _PAGE)):
        yield page


def _without_job(
    stream: Stream, where: ManifestSource, page: list[Entry], retries: int
) -> Iterator[tuple[Entry, FoundManifest]]:
    """Yield what the stream has no job of, and what has failed at most `retries` times."""
    entries = {Manifest(where.url_of(entry.key), entry.pin.version): entry for entry in page}
    with database().transaction() as tx:
        known = streams.find_known(tx, stream, list(entries))
    for manifest, entry in entries.items():
        before = known.get(manifest)
        if before is None or (before.has_failed and before.attempts <= retries):
            yield entry, FoundManifest(manifest, entry.pin.size, "", is_again=before is not None)
