"""Do something for each completed job: an example to copy, which an automation starts.

Requires: the automation "Refinery: an example, after a job", which is off until it is switched on.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.running.monitor import mark_run, run_log
from flows.running.resources import load_job


@flow(name="after-job")
def after_job(job_id: str, event: str = "refinery.job.completed") -> State[Any]:
    """Log what the job came to. Replace this with what you want done.

    Args:
        job_id: From the event's payload.
        event: The event's name.
    """
    job = load_job(job_id)
    mark_run(job, "after")
    run_log(job_id=job_id).info(
        event, lines=job.total_tasks, settled=job.tasks_done, without_result=job.tasks_failed
    )
    return Completed(message=f"{job_id}: {job.tasks_done} of {job.total_tasks} lines are settled.")
