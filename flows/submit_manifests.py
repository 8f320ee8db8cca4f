"""Make jobs of new manifests in a bucket of the operator's: recurring ETL.

Requires: blocks for the bucket and the delivery (`refinery blocks register` has the types), and a
customer whom the jobs belong to.

A stream makes exactly one job of each version of each manifest, whatever reruns, redeploys, backfills,
overlapping slots or late files come: job and manifest are bound in one transaction.
"""

from typing import Any

import msgspec
from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.prefect.blocks import ManifestSource, load_delivery, load_source
from blocks.store.jobs import NewJob
from blocks.store.streams import Stream
from flows.finding.own_results import check_delivery
from flows.finding.slot_report import show, summary
from flows.finding.slot_work import FoundManifest, SlotWork, find_slot_work, source_of
from flows.finding.stream_failures import report_failures
from flows.finding.stream_form import DEFAULT_STREAM, Find, JobOptions, LabelSpec, job_of
from flows.finding.submission import submit_found
from flows.running.policy import NETWORK_TASK


@flow(name="submit-manifests", flow_run_name="submit manifests of {stream}")
def submit_manifests(  # noqa: PLR0913, PLR0917 - what an ETL owner sets, as a form in the Prefect UI
    customer: str,
    block: str,
    source: str,
    label_spec: LabelSpec,
    delivery: str | None = None,
    stream: str = DEFAULT_STREAM,
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
    work = find_manifests(of, where, source, find)
    if dry_run:
        found = [msgspec.structs.replace(due, outcome="would be submitted") for due in work.due]
    else:
        found = [submit(of, due, new) for due in work.due]
    found += work.left
    show(of, found, dry_run=dry_run)
    said = summary(found, work.notes, dry_run=dry_run)
    if dry_run or not (failures := report_failures(of)):
        return Completed(message=f"{said}.")
    return Failed(message=f"{failures}; {said}.")


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
    """Return the block of the source, and what all jobs of the run have in common."""
    where = load_source(block)
    target = load_delivery(delivery).target() if delivery else None
    if target:
        check_delivery(target, where.place, source_of(source, find))
    new = job_of(customer, where, label_spec, options, target)
    return where, msgspec.structs.replace(new, credentials_block=block)


@task(task_run_name="find manifests", **NETWORK_TASK)
def find_manifests(stream: Stream, where: ManifestSource, template: str, find: Find) -> SlotWork:
    """List the source, and return what this slot has to submit of it."""
    return find_slot_work(stream, where, template, find)


@task(task_run_name="submit {found.manifest.url}", **NETWORK_TASK)
def submit(stream: Stream, found: FoundManifest, new: NewJob) -> FoundManifest:
    """Make the job, pinned to the version that was found, or try again what has failed."""
    return submit_found(stream, found, new)
