"""Bring a job's results into its customer's bucket, step by step, by plain functions.

Each step can be repeated: names and contents of the objects follow from the database alone.
"""

from collections.abc import Generator
from contextlib import closing

from blocks import tracing
from blocks.delivery_manifest import DeliveredLabels, DeliveredObject, folder_of
from blocks.domain.errors import AccessDenied, RefineryError
from blocks.domain.model import DeliveryStatus, ResultFormat
from blocks.lookahead import look_ahead
from blocks.store import delivered_objects, jobs, results, waits
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from flows.running.deadlines import Deadline
from flows.running.monitor import run_log
from flows.running.resources import (
    adopt_run,
    database,
    destination_of,
    load_job,
    load_undelivered,
    settings,
)
from flows.running.setbacks import DELIVER_JOB
from flows.writing import folder
from flows.writing.folder import Block, Layout


def begin(job_id: str, *, again: bool) -> None:
    """Record that the delivery is under way; with `again`, also one that the store refused before.

    Raises:
        AlreadyDone: there is nothing to deliver, or nothing any more.
    """
    job = load_job(job_id)
    with database().transaction() as tx:
        if again and job.delivery_status is DeliveryStatus.FAILED and job.delivery:
            jobs.redeliver(tx, job, job.delivery, None, settings().vault())
        # This is in one commit with `redeliver`, or the launcher would start another run for it.
        jobs.begin_delivery(tx, job.job_no, settings().part_bytes_max)
        adopt_run(tx, job, DELIVER_JOB)  # its row is locked after the job's, as everywhere


def find(job_id: str) -> list[DeliveredObject] | None:
    """Return the objects of a run that delivered all of them and died before it recorded that."""
    job = load_undelivered(job_id)
    return folder.find_delivery(destination_of(job), job)


def write_results(job_id: str, deadline: Deadline) -> list[DeliveredObject]:
    """Stream the settled tasks into parts of bounded size."""
    job = load_undelivered(job_id)
    layout = folder.layout_of(job)
    assert job.delivery_part_bytes is not None  # `begin` ran before
    with database().long_read() as tx, closing(_blocks(tx, job, layout)) as blocks:
        return folder.write_parts(
            destination_of(job),
            folder_of(job),
            deadline.watch(blocks),
            layout=layout,
            part_bytes_max=job.delivery_part_bytes,
        )


def _blocks(tx: Transaction, job: Job, layout: Layout) -> Generator[Block, None, None]:
    """Return what objects of this layout are made of; lines are composed while others are sent."""
    if layout.format is ResultFormat.PARQUET:
        return results.read(tx, job.job_no)
    return look_ahead(results.export(tx, job.job_no))


def write_bad_lines(job_id: str, deadline: Deadline) -> DeliveredObject:
    """Write `errors.jsonl`, an empty one where every line was good."""
    job = load_undelivered(job_id)
    with database().long_read() as tx, closing(results.export_errors(tx, job.job_no)) as blocks:
        key = f"{folder_of(job)}/errors.jsonl"
        return folder.write_object(destination_of(job), key, deadline.watch(blocks))


def write_manifest(job_id: str, objects: list[DeliveredObject]) -> None:
    """Write `manifest.json`, unless another run of this delivery just did."""
    job = load_undelivered(job_id)
    with tracing.span("write manifest", job_id=job_id, objects=len(objects)):
        folder.write_manifest(destination_of(job), job, objects, _count_labels(job))
    with database().transaction() as tx:
        waits.forget_failures(
            tx, job.job_no, DELIVER_JOB
        )  # the delivery waits for the store no more


def _count_labels(job: Job) -> DeliveredLabels | None:
    """Count the single labels that were delivered; return None where the job shows none."""
    if not job.include_labels:
        return None
    with database().long_read() as tx:
        return DeliveredLabels.of(*results.count_labels(tx, job.job_no))


def tidy(job_id: str, objects: list[DeliveredObject]) -> None:
    """Remove the leftovers of runs that were killed.

    Another run that still writes finds its upload gone, tries again, and finds the delivery done. The
    delivery is complete by now, so an error of the store is logged and holds nothing up.
    """
    job = load_undelivered(job_id)
    try:
        folder.tidy(destination_of(job), folder_of(job), objects)
    except AccessDenied:
        pass  # a delivery needs no right to list or to delete
    except RefineryError as error:
        run_log(job_id=job_id).warning("delivery.not_tidied", reason=error.message)


def finish(job_id: str, objects: list[DeliveredObject]) -> None:
    """Complete the job, with these objects and their manifest in the bucket."""
    job_no = load_job(job_id).job_no
    listed = [(each.key, each.rows, each.bytes, each.sha256) for each in objects]
    with tracing.span("complete job", job_id=job_id), database().transaction() as tx:
        if jobs.finish_delivery(tx, job_no, len(objects) + 1):
            delivered_objects.record(tx, job_no, listed)


def refuse(job_id: str, code: str, message: str) -> None:
    """Complete the job without its delivery, and tell the customer why."""
    job_no = load_job(job_id).job_no
    with database().transaction() as tx:
        jobs.refuse_delivery(tx, job_no, code, message)


def deliver(job_id: str, *, again: bool = False) -> list[DeliveredObject]:
    """Deliver the job, one step after the other.

    Returns what is in its bucket, the manifest aside.

    Raises:
        AlreadyDone: there is nothing to deliver any more.
    """
    begin(job_id, again=again)
    objects, deadline = find(job_id), Deadline()
    if objects is None:
        objects = [*write_results(job_id, deadline), write_bad_lines(job_id, deadline)]
        write_manifest(job_id, objects)
    tidy(job_id, objects)
    finish(job_id, objects)
    return objects
