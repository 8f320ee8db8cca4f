"""A job's results go to its customer's bucket.

Requires: the job's id, and that every task of it is settled or failed.

Every object has a name and content that follow from the database alone, so a run that is killed, or
two at once, end in the same objects. `manifest.json` is written last and only if it is not there: a
reader that sees it sees everything. What the store refuses for good is told to the customer, and the
job is completed all the same, because its results can be exported.
"""

from contextlib import closing
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.delivered import DeliveredObject, folder_of
from blocks.errors import AccessDenied, RefineryError, Terminal
from blocks.model import DeliveryStatus
from blocks.store import jobs, results, waits
from flows import delivery
from flows.deadlines import Deadline
from flows.monitor import delivery_link, mark_run, run_log, show_delivery, show_job
from flows.policy import NETWORK_TASK
from flows.resources import (
    Overtaken,
    adopt_run,
    database,
    destination_of,
    is_by_hand,
    load_job,
    load_undelivered,
    settings,
)
from flows.setbacks import DELIVER_JOB, recorded


@flow(name="deliver-job")
def deliver_job(job_id: str) -> State[Any]:
    """Write the results, the bad lines and the manifest of both; then the job is completed."""
    link = None
    mark_run(load_job(job_id), "deliver")
    try:
        with recorded(job_id, DELIVER_JOB):
            deadline = Deadline()
            link = begin_delivery(job_id, again=is_by_hand())
            objects = find_delivery(job_id)
            if objects is None:
                objects = [*write_results(job_id, deadline), write_bad_lines(job_id, deadline)]
                write_manifest(job_id, objects)
            tidy(job_id, objects)
            finish_delivery(job_id, len(objects) + 1)
    except Overtaken as news:
        return Completed(message=news.message)
    except Terminal as error:
        refuse_delivery(job_id, error.code, error.message)
        show_job(job_id, link=link)
        return Failed(message=f"{job_id}: delivery refused ({error.code}): {error.message}")
    show_job(job_id, link=link)
    show_delivery(job_id, objects)
    return Completed(message=f"{job_id}: delivered {sum(o.rows for o in objects)} rows.")


@task(task_run_name="begin", **NETWORK_TASK)
def begin_delivery(job_id: str, *, again: bool) -> str | None:
    """Say that the delivery is under way; `again`: also one that the store has refused before.

    Returns where a browser shows it, if the store has such a place.
    """
    job = load_job(job_id)
    with database().transaction() as tx:
        if again and job.delivery_status is DeliveryStatus.FAILED and job.delivery:
            jobs.redeliver(tx, job, job.delivery, None, settings().vault())
        # In one commit with that, or the launcher would start another run for it.
        adopt_run(tx, job, DELIVER_JOB)
        jobs.begin_delivery(tx, job.job_no)
    return delivery_link(load_undelivered(job_id))


@task(task_run_name="find what stands", **NETWORK_TASK)
def find_delivery(job_id: str) -> list[DeliveredObject] | None:
    """What a run has delivered that died before it could say so."""
    job = load_undelivered(job_id)
    return delivery.standing(destination_of(job), job)


@task(task_run_name="write results", **NETWORK_TASK)
def write_results(job_id: str, deadline: Deadline) -> list[DeliveredObject]:
    """Stream the settled tasks into parts of bounded size."""
    job = load_undelivered(job_id)
    with database().long_read() as tx, closing(results.export(tx, job.job_no)) as blocks:
        return delivery.write_parts(
            destination_of(job),
            folder_of(job),
            deadline.watch(blocks),
            layout=delivery.layout_of(job),
            part_bytes_max=settings().part_bytes_max,
        )


@task(task_run_name="write bad lines", **NETWORK_TASK)
def write_bad_lines(job_id: str, deadline: Deadline) -> DeliveredObject:
    """Write `errors.jsonl`, an empty one where every line was good."""
    job = load_undelivered(job_id)
    with database().long_read() as tx, closing(results.errors(tx, job.job_no)) as blocks:
        key = f"{folder_of(job)}/errors.jsonl"
        return delivery.write_object(destination_of(job), key, deadline.watch(blocks))


@task(task_run_name="write manifest", **NETWORK_TASK)
def write_manifest(job_id: str, objects: list[DeliveredObject]) -> None:
    """Write `manifest.json`, unless a twin of this run just did."""
    job = load_undelivered(job_id)
    delivery.write_manifest(destination_of(job), job, objects)
    with database().transaction() as tx:
        waits.end(tx, job.job_no, DELIVER_JOB)  # what stands waits for the store no more


@task(task_run_name="tidy", **NETWORK_TASK)
def tidy(job_id: str, objects: list[DeliveredObject]) -> None:
    """Remove what runs that were killed have left. A twin that still writes finds its upload gone,
    tries again, and finds the delivery done.

    The delivery stands by now, so a store that fails here holds nothing up.
    """
    job = load_undelivered(job_id)
    try:
        delivery.tidy(destination_of(job), folder_of(job), objects)
    except AccessDenied:
        pass  # a delivery needs no right to list or to delete
    except RefineryError as error:
        run_log(job_id=job_id).warning("delivery.not_tidied", reason=error.message)


@task(task_run_name="finish", **NETWORK_TASK)
def finish_delivery(job_id: str, objects: int) -> None:
    """Complete the job, with `objects` of it in the bucket."""
    job_no = load_job(job_id).job_no
    with database().transaction() as tx:
        jobs.finish_delivery(tx, job_no, objects)


@task(task_run_name="refuse delivery", **NETWORK_TASK)
def refuse_delivery(job_id: str, code: str, message: str) -> None:
    """Complete the job without its delivery, and tell the customer why."""
    job_no = load_job(job_id).job_no
    with database().transaction() as tx:
        jobs.refuse_delivery(tx, job_no, code, message)
