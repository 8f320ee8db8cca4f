"""Read a job's manifest, and make its tasks.

Requires: the job's id. Everything else, credentials included, is in the database.

Retries: a task that failed for a reason that time may mend is tried again (`flows.running.policy`); an
error that no retry can mend fails the job with a sentence for its customer. A run that is killed can
be rerun, or run twice at once: a chunk is committed with its tasks in one transaction, exactly once.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

from prefect import flow, task, unmapped
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import task_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner

from blocks.domain.errors import LedgerMismatch, Terminal
from blocks.domain.model import JobStatus
from blocks.store.chunks import IngestionCounts
from flows.reading import groups, ingestion
from flows.reading.groups import GroupFailed
from flows.reading.ingestion import Range
from flows.running.deadlines import Deadline
from flows.running.monitor import (
    ChunkSeen,
    Progress,
    mark_bad_lines,
    mark_run,
    run_log,
    see_chunk,
    show_chunks,
    show_job,
    ui_update,
)
from flows.running.policy import NETWORK_TASK, chunk_runner
from flows.running.resources import (
    AlreadyDone,
    adopt_run,
    database,
    ends_without_job,
    load_job,
    load_unread,
    settings,
)
from flows.running.setbacks import PROCESS_JOB, record_failures

# While it waits for chunks, a run looks so often how far it is, and whether it is paused or out of time.
_LOOKS_EVERY_S = 1.0


# Left to itself, Prefect asks its server whether results are to be kept.
@flow(name="process-job", persist_result=False)
@ends_without_job
def process_job(job_id: str) -> State[Any]:
    """Pin the manifest, plan its chunks, create their tasks, and close the ingestion."""
    seen: list[ChunkSeen] = []
    is_begun = False
    mark_run(load_job(job_id), "process")
    try:
        with record_failures(job_id, PROCESS_JOB):
            load_unread(job_id)
            is_begun = True
            summary = begin(job_id) or _read_manifest(job_id, seen)
    except AlreadyDone as nothing_to_do:
        # Prefect was told to stop this run, but it may see the end of its job first.
        if is_begun and load_job(job_id).status is JobStatus.CANCELLED:
            return Cancelled(message=f"{job_id} was cancelled while its manifest was read.")
        return Completed(message=nothing_to_do.message)
    except Terminal as error:
        if isinstance(error, LedgerMismatch):
            run_log(job_id=job_id).error("ledger.mismatch", reason=error.message)
        fail_job(job_id, error.code, error.message)
        show_job(job_id)
        return Failed(message=f"{job_id} failed ({error.code}): {error.message}")
    finally:
        show_chunks(job_id, seen)
    show_job(job_id)
    return Completed(message=summary)


def _read_manifest(job_id: str, seen: list[ChunkSeen]) -> str:
    progress, deadline = Progress(job_id), Deadline()
    if ingestion.is_compressed(job_id):
        seen += create_tasks_of_compressed(job_id, progress, deadline)
    else:
        with chunk_runner(settings()) as runner:
            for wave in _waves(plan_chunks(job_id)):
                if seen:
                    judge(job_id)
                _create_all(runner, job_id, wave, progress, deadline, seen=seen)
    judge(job_id, at_end=True)
    summary = finish_ingestion(job_id)
    progress.move(1)
    return summary


@task(task_run_name="begin", **NETWORK_TASK)
def begin(job_id: str) -> str | None:
    """Pin the version of the manifest, and choose the size of its chunks.

    If it is one chunk, read it here, since each step of its own leaves 40 kB in Prefect, and return the
    summary.
    """
    with database().transaction() as tx:
        adopt_run(tx, load_job(job_id), PROCESS_JOB)
    tally = ingestion.read_small(job_id)
    return _summary(job_id, tally) if tally else None


@task(task_run_name="plan chunks", **NETWORK_TASK)
def plan_chunks(job_id: str) -> list[Range]:
    """Return the ranges of the manifest whose lines are not recorded yet."""
    return ingestion.missing_ranges(job_id)


def _name_group(parameters: dict[str, Any]) -> str:
    first, last = parameters["ranges"][0][0], parameters["ranges"][-1][0]
    return f"chunk {first}" if first == last else f"chunks {first}-{last}"


@task(task_run_name=cast(Any, _name_group), **NETWORK_TASK)
def create_tasks(job_id: str, ranges: Sequence[Range], deadline: Deadline) -> list[ChunkSeen]:
    """Read the lines of byte ranges, validate them, and commit each range's tasks and bad lines.

    The chunks are retried, each by itself, and not the task.
    """
    return groups.create_tasks(job_id, ranges, deadline)


@task(task_run_name="all chunks, in order", **NETWORK_TASK)
def create_tasks_of_compressed(
    job_id: str, progress: Progress, deadline: Deadline
) -> list[ChunkSeen]:
    """Do the same for all of a compressed manifest, which has to be read in order."""
    seen = []
    began_s = time.monotonic()
    for chunk_no, made, share in ingestion.create_tasks_of_compressed(job_id, deadline):
        retries = max(task_run.run_count - 1, 0)
        seen.append(see_chunk(job_id, chunk_no, made, began_s, retries=retries))
        progress.move(share)
        began_s = time.monotonic()
    return seen


@task(task_run_name="judge lines", **NETWORK_TASK)
def judge(job_id: str, *, at_end: bool = False) -> None:
    """Fail if the manifest is of no use."""
    ingestion.judge(job_id, at_end=at_end)


@task(task_run_name="finish", **NETWORK_TASK)
def finish_ingestion(job_id: str) -> str:
    """Record that every line is read, and return a summary of them."""
    return _summary(job_id, ingestion.finish(job_id))


def _summary(job_id: str, tally: IngestionCounts) -> str:
    job = load_job(job_id)
    mark_bad_lines({job.job_id, job.customer_id}, tally.bad_lines)
    return f"{job_id}: {tally.tasks + tally.bad_lines} lines, {tally.bad_lines} of them bad."


@task(task_run_name="fail job", **NETWORK_TASK)
def fail_job(job_id: str, code: str, message: str) -> None:
    """Tell the customer why there will be no tasks."""
    ingestion.fail(job_id, code, message)


def _waves(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    """Yield the first chunk alone, so that rubbish is refused within seconds, then waves of chunks."""
    if ranges:
        yield ranges[:1]
    size = settings().chunks_per_wave_max
    for at in range(1, len(ranges), size):
        yield ranges[at : at + size]


def _create_all(
    runner: TaskRunner[Any],
    job_id: str,
    wave: Sequence[Range],
    progress: Progress,
    deadline: Deadline,
    *,
    seen: list[ChunkSeen],
) -> None:
    """Make the tasks of a wave's chunks, and add each chunk to `seen`.

    Where a chunk fails the others go on, so that a rerun has less to do.

    Raises:
        RunEnded: the run has no time left; chunks that are not begun are left to the next one.
    """
    run_log(job_id=job_id).info("wave.started", first_chunk=wave[0][0], last_chunk=wave[-1][0])
    parameters = {
        "job_id": unmapped(job_id),
        "ranges": groups.cut_groups(wave, settings().chunks_in_flight),
        "deadline": unmapped(deadline),
    }
    futures: list[PrefectFuture[Any]] = list(runner.map(cast(Any, create_tasks), parameters))
    done: set[PrefectFuture[Any]] = set()
    try:
        while len(done) < len(futures):
            deadline.check()
            newly_done = wait(futures, timeout=min(deadline.left_s, _LOOKS_EVERY_S)).done - done
            for future in newly_done:
                seen += _chunks_of(future)
            done |= newly_done
            _show_progress(job_id, progress)
    except BaseException:
        deadline.end()  # or the run would not end before its groups do
        raise
    for future in futures:
        _raise_error_of(future)


def _chunks_of(group: PrefectFuture[Any]) -> list[ChunkSeen]:
    made = group.result(raise_on_failure=False)
    if isinstance(made, GroupFailed):
        return list(made.seen)
    return made if isinstance(made, list) else []


def _raise_error_of(group: PrefectFuture[Any]) -> None:
    try:
        group.result()
    except GroupFailed as failed:
        raise failed.error from None


@ui_update
def _show_progress(job_id: str, progress: Progress) -> None:
    progress.move(ingestion.share_recorded(job_id))
