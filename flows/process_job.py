"""A job's manifest becomes tasks.

Requires: the job's id. Everything else, credentials included, is in the database.

Retries: a task that failed for a reason that time may mend is tried again (`flows.policy`); what no
retry can mend fails the job with a sentence for its customer. A run that is killed can be rerun, or
run twice at once: a chunk is committed with its tasks in one transaction, exactly once.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from prefect import flow, get_run_logger, task, unmapped
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from blocks.errors import Terminal
from blocks.store import jobs
from blocks.store.chunks import Committed
from flows import ingestion
from flows.ingestion import Range
from flows.policy import NETWORK_TASK, chunk_runner
from flows.resources import Overtaken, database, load_job, load_unread, settings


@flow(name="process-job", flow_run_name="process {job_id}")
def process_job(job_id: str) -> State[Any]:
    """Pin the manifest, create the tasks of its chunks, and close the ingestion."""
    try:
        load_unread(job_id)
        pin_manifest(job_id)
        if ingestion.is_compressed(job_id):
            create_tasks_of_compressed(job_id)
        else:
            with chunk_runner(settings()) as runner:
                for wave in _waves(ingestion.missing_ranges(job_id)):
                    _create_all(runner, job_id, wave)
                    judge(job_id)
        judge(job_id, at_end=True)
        finish_ingestion(job_id)
    except Overtaken as news:
        return Completed(message=news.message)
    except Terminal as error:
        fail_job(job_id, error.code, error.message)
        return Failed(message=f"{job_id} failed ({error.code}): {error.message}")
    job = load_job(job_id)
    return Completed(message=f"{job_id}: {job.total_tasks} lines, {job.tasks_failed} of them bad.")


@task(**NETWORK_TASK)
def pin_manifest(job_id: str) -> None:
    """Decide which version of the manifest is read, and in chunks of which size."""
    ingestion.pin(job_id)


@task(task_run_name="chunk {chunk_no}", **NETWORK_TASK)
def create_tasks(job_id: str, chunk_no: int, start: int, end: int) -> None:
    """Read the lines of one byte range, validate them, and commit them as tasks and bad lines."""
    _log(job_id, chunk_no, ingestion.create_tasks(job_id, chunk_no, start, end))


@task(**NETWORK_TASK)
def create_tasks_of_compressed(job_id: str) -> None:
    """The same for all of a compressed manifest, which has to be read in order."""
    for chunk_no, made in ingestion.create_tasks_of_compressed(job_id):
        _log(job_id, chunk_no, made)


@task(**NETWORK_TASK)
def judge(job_id: str, *, at_end: bool = False) -> None:
    """Stop at a manifest that is of no use."""
    ingestion.judge(job_id, at_end=at_end)


@task(**NETWORK_TASK)
def finish_ingestion(job_id: str) -> None:
    """Say that every line is recorded."""
    job_no = load_unread(job_id).job_no
    with database().transaction() as tx:
        jobs.finish_ingestion(tx, job_no)


@task(**NETWORK_TASK)
def fail_job(job_id: str, code: str, message: str) -> None:
    """Tell the customer why there will be no tasks."""
    job_no = load_job(job_id).job_no
    with database().transaction() as tx:
        jobs.fail(tx, job_no, code, message)


def _waves(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    """The first chunk alone, so that rubbish is known for what it is within seconds; then waves."""
    if ranges:
        yield ranges[:1]
    size = settings().chunks_per_wave_max
    for at in range(1, len(ranges), size):
        yield ranges[at : at + size]


def _create_all(runner: TaskRunner[Any], job_id: str, wave: Sequence[Range]) -> None:
    get_run_logger().info("%s: reading chunks %d to %d", job_id, wave[0][0], wave[-1][0])
    chunk_nos, starts, ends = zip(*wave, strict=True)
    parameters = {
        "job_id": unmapped(job_id),
        "chunk_no": list(chunk_nos),
        "start": list(starts),
        "end": list(ends),
    }
    futures: list[PrefectFuture[Any]] = list(runner.map(cast(Any, create_tasks), parameters))
    wait(futures)  # a chunk that fails does not stop the others: a rerun has less to do
    for future in futures:
        future.result()


def _log(job_id: str, chunk_no: int, made: Committed | None) -> None:
    outcome = f"{made.tasks} tasks, {made.bad_lines} bad lines" if made else "there already"
    get_run_logger().info("%s: chunk %d: %s", job_id, chunk_no, outcome)
