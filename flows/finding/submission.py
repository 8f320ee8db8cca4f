"""Make a stream's jobs, pinned to the versions of manifests that were found."""

import msgspec

from blocks import tracing
from blocks.store import streams
from blocks.store.jobs import NewJob
from blocks.store.streams import Stream
from flows.finding.slot_work import FoundManifest
from flows.running.monitor import run_log
from flows.running.resources import database, settings

_OUTCOMES = {False: "submitted", True: "tried again"}


def submit_found(stream: Stream, found: FoundManifest, new: NewJob) -> FoundManifest:
    """Make the job of a manifest, or try its failed job again; return what became of it.

    `new` has what all jobs of the stream have in common. Job and manifest are bound in one transaction,
    so where another run is first there is no second job.

    Raises:
        DatabaseUnavailable: nothing was made, or it is found by the next run.
    """
    manifest = found.manifest
    begin = streams.resubmit if found.is_again else streams.submit
    # Each job is a trace of its own, which is linked to the run that found its manifest.
    with tracing.span("submit job", is_root=True) as note:
        job = msgspec.structs.replace(
            new,
            manifest_url=manifest.url,
            manifest_bytes=found.bytes,
            manifest_version=manifest.version,
            traceparent=tracing.traceparent(),
        )
        with database().transaction() as tx:
            job_id = begin(tx, stream, manifest, settings().vault(), job)
        if job_id:
            note(job_id=job_id)
    outcome = _OUTCOMES[found.is_again] if job_id else "submitted by another run"
    event = "manifest.submitted" if job_id else "manifest.there_already"
    run_log(manifest=manifest.url, version=manifest.version).info(event, job_id=job_id)
    return msgspec.structs.replace(found, outcome=outcome, job_id=job_id)
