"""A job's results go to its customer's bucket.

Requires: the job's id, and that every task of it is settled or failed.

Every object has a name and content that follow from the database alone, so a run that is killed, or
two at once, end in the same objects. `manifest.json` is written last and only if it is not there: a
reader that sees it sees everything. What the store refuses for good is told to the customer, and the
job is completed all the same, because its results can be exported.
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
from flows.running.resources import Overtaken, is_by_hand, load_job
from flows.running.setbacks import DELIVER_JOB, recorded
from flows.writing import delivery


@flow(name="deliver-job")
def deliver_job(job_id: str) -> State[Any]:
    """Write the results, the bad lines and the manifest of both; then the job is completed."""
    mark_run(load_job(job_id), "deliver")
    try:
        with recorded(job_id, DELIVER_JOB):
            again = is_by_hand()
            if ingestion.is_small(job_id):
                objects = deliver(job_id, again=again)
            else:
                objects = _deliver_in_steps(job_id, again=again)
    except Overtaken as news:
        return Completed(message=news.message)
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
    finish_delivery(job_id, len(objects) + 1)
    return objects


@task(task_run_name="deliver", **NETWORK_TASK)
def deliver(job_id: str, *, again: bool) -> list[DeliveredObject]:
    """Deliver a small job: each step of its own would leave 40 kB in Prefect."""
    return delivery.deliver(job_id, again=again)


@task(task_run_name="begin", **NETWORK_TASK)
def begin_delivery(job_id: str, *, again: bool) -> None:
    """Say that the delivery is under way."""
    delivery.begin(job_id, again=again)


@task(task_run_name="find what stands", **NETWORK_TASK)
def find_delivery(job_id: str) -> list[DeliveredObject] | None:
    """What a run has delivered that died before it could say so."""
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
    """Write `manifest.json`, unless a twin of this run just did."""
    delivery.write_manifest(job_id, objects)


@task(task_run_name="tidy", **NETWORK_TASK)
def tidy(job_id: str, objects: list[DeliveredObject]) -> None:
    """Remove what runs that were killed have left."""
    delivery.tidy(job_id, objects)


@task(task_run_name="finish", **NETWORK_TASK)
def finish_delivery(job_id: str, objects: int) -> None:
    """Complete the job, with `objects` of it in the bucket."""
    delivery.finish(job_id, objects)


@task(task_run_name="refuse delivery", **NETWORK_TASK)
def refuse_delivery(job_id: str, code: str, message: str) -> None:
    """Complete the job without its delivery, and tell the customer why."""
    delivery.refuse(job_id, code, message)
