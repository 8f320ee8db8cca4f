"""Deliver a job's results into its customer's bucket.

Requires: the job's id, and that every task of it is settled or failed.

The name and the content of every object follow from the database alone, so a run that is killed, or two
at once, end in the same objects. `manifest.json` is written last and only if it is not there: a reader
that sees it sees everything. If the store refuses the delivery for good, the customer is told why, and
the job is completed all the same, because its results can be exported.
"""

from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.delivery_manifest import DeliveredObject
from blocks.domain.errors import Terminal
from flows.reading import ingestion
from flows.running.deadlines import Deadline
from flows.running.monitor import mark_run, show_delivery, show_job
from flows.running.policy import NETWORK_TASK
from flows.running.resources import (
    AlreadyDone,
    ends_without_job,
    load_job,
    refuse_paused,
    was_started_manually,
)
from flows.running.setbacks import DELIVER_JOB, record_failures
from flows.writing import delivery


@flow(name="deliver-job")
@ends_without_job
def deliver_job(job_id: str) -> State[Any]:
    """Write the results, the bad lines and the manifest of both, then complete the job."""
    mark_run(load_job(job_id), "deliver")
    try:
        with record_failures(job_id, DELIVER_JOB):
            refuse_paused(load_job(job_id))  # a delivery that has begun goes on to its end
            again = was_started_manually()
            if ingestion.is_small(job_id):
                objects = deliver(job_id, again=again)
            else:
                objects = _deliver_in_steps(job_id, again=again)
    except AlreadyDone as nothing_to_do:
        return Completed(message=nothing_to_do.message)
    except Terminal as error:
        refuse_delivery(job_id, error.code, error.message)
        show_job(job_id)
        return Failed(message=f"{job_id}: delivery refused ({error.code}): {error.message}")
    show_job(job_id)
    show_delivery(job_id, objects)
    return Completed(message=f"{job_id}: delivered {sum(o.rows for o in objects)} rows.")


def _deliver_in_steps(job_id: str, *, again: bool) -> list[DeliveredObject]:
    deadline = Deadline()
    begin_delivery(job_id, again=again)
    objects = find_delivery(job_id)
    if objects is None:
        objects = [*write_results(job_id, deadline), write_bad_lines(job_id, deadline)]
        write_manifest(job_id, objects)
    tidy(job_id, objects)
    finish_delivery(job_id, objects)
    return objects


@task(task_run_name="deliver", **NETWORK_TASK)
def deliver(job_id: str, *, again: bool) -> list[DeliveredObject]:
    """Deliver a small job: each step of its own would leave 40 kB in Prefect."""
    return delivery.deliver(job_id, again=again)


@task(task_run_name="begin", **NETWORK_TASK)
def begin_delivery(job_id: str, *, again: bool) -> None:
    """Record that the delivery is under way."""
    delivery.begin(job_id, again=again)


@task(task_run_name="find delivery", **NETWORK_TASK)
def find_delivery(job_id: str) -> list[DeliveredObject] | None:
    """Return the objects of a run that delivered all of them and died before it recorded that."""
    return delivery.find(job_id)


@task(task_run_name="write results", **NETWORK_TASK)
def write_results(job_id: str, deadline: Deadline) -> list[DeliveredObject]:
    """Stream the settled tasks into parts of bounded size."""
    return delivery.write_results(job_id, deadline)


@task(task_run_name="write bad lines", **NETWORK_TASK)
def write_bad_lines(job_id: str, deadline: Deadline) -> DeliveredObject:
    """Write `errors.jsonl`, an empty one where every line was good."""
    return delivery.write_bad_lines(job_id, deadline)


@task(task_run_name="write manifest", **NETWORK_TASK)
def write_manifest(job_id: str, objects: list[DeliveredObject]) -> None:
    """Write `manifest.json`, unless another run of this delivery just did."""
    delivery.write_manifest(job_id, objects)


@task(task_run_name="tidy", **NETWORK_TASK)
def tidy(job_id: str, objects: list[DeliveredObject]) -> None:
    """Remove the leftovers of runs that were killed."""
    delivery.tidy(job_id, objects)


@task(task_run_name="finish", **NETWORK_TASK)
def finish_delivery(job_id: str, objects: list[DeliveredObject]) -> None:
    """Complete the job, with these objects and their manifest in the bucket."""
    delivery.finish(job_id, objects)


@task(task_run_name="refuse delivery", **NETWORK_TASK)
def refuse_delivery(job_id: str, code: str, message: str) -> None:
    """Complete the job without its delivery, and tell the customer why."""
    delivery.refuse(job_id, code, message)
