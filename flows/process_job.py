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

from blocks.errors import ManifestRefused, Terminal, TooManyBadLines
from blocks.store import chunks, jobs
from flows import manifest
from flows.batches import validate_lines
from flows.policy import NETWORK_TASK, chunk_runner
from flows.resources import Overtaken, database, load_job, load_unread, manifest_of, settings

# A job's bad lines are first looked at after this many lines, as the HTTP contract has it.
_LINES_BEFORE_JUDGING = 1000

Range = tuple[int, int, int]
"""Chunk number, first byte, byte after the last."""


@flow(name="process-job", flow_run_name="process {job_id}")
def process_job(job_id: str) -> State[Any]:
    """Pin the manifest, plan its chunks, create the tasks of each, and close the ingestion."""
    logger = get_run_logger()
    try:
        load_unread(job_id)
        pin_manifest(job_id)
        for wave in _waves(_missing_ranges(job_id)):
            logger.info("%s: reading chunks %d to %d", job_id, wave[0][0], wave[-1][0])
            _create_all(job_id, wave)
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
    """Decide which version of the manifest is read, and in chunks of which size; once for a job."""
    job = load_unread(job_id)
    with database().transaction() as tx:
        jobs.begin(tx, job.job_no)
    if job.pin:
        return
    bucket, url = manifest_of(job)
    pin = bucket.stat(url.key)
    chunk_bytes = manifest.choose_chunk_bytes(
        pin.size,
        in_flight=settings().chunks_in_flight,
        chunk_bytes_min=settings().chunk_bytes_min,
        chunk_bytes_max=settings().chunk_bytes_max,
    )
    with database().transaction() as tx:
        jobs.pin(tx, job.job_no, pin, chunk_bytes)


@task(task_run_name="chunk {chunk_no}", **NETWORK_TASK)
def create_tasks(job_id: str, chunk_no: int, start: int, end: int) -> None:
    """Read the lines of one byte range, validate them, and commit them as tasks and bad lines."""
    job = load_unread(job_id)
    bucket, url = manifest_of(job)
    pin = job.pin
    assert pin is not None  # pin_manifest ran before

    def read(first: int, after: int) -> bytes:
        return bucket.read(url.key, pin, first, after)

    at, text = manifest.read_lines(read, pin.size, start, end)
    with database().transaction() as tx:
        made = chunks.commit(tx, job.job_no, chunk_no, validate_lines(text, at))
    outcome = f"{made.tasks} tasks, {made.bad_lines} bad lines" if made else "there already"
    get_run_logger().info("%s: chunk %d: %s", job_id, chunk_no, outcome)


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


def _missing_ranges(job_id: str) -> list[Range]:
    job = load_job(job_id)
    assert job.pin is not None  # pin_manifest ran before
    assert job.chunk_bytes is not None
    with database().transaction() as tx:
        done = chunks.committed(tx, job.job_no)
    ranges = manifest.plan_ranges(job.pin.size, job.chunk_bytes)
    return [(n, *limits) for n, limits in enumerate(ranges) if n not in done]


def _waves(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    """The first chunk alone, so that rubbish is known for what it is within seconds; then waves."""
    if ranges:
        yield ranges[:1]
    size = settings().chunks_per_wave_max
    for at in range(1, len(ranges), size):
        yield ranges[at : at + size]


def _create_all(job_id: str, wave: Sequence[Range]) -> None:
    chunk_nos, starts, ends = zip(*wave, strict=True)
    parameters = {
        "job_id": unmapped(job_id),
        "chunk_no": list(chunk_nos),
        "start": list(starts),
        "end": list(ends),
    }
    with chunk_runner(settings()) as runner:
        futures: list[PrefectFuture[Any]] = list(runner.map(cast(Any, create_tasks), parameters))
        wait(futures)  # a chunk that fails does not stop the others: a rerun has less to do
    for future in futures:
        future.result()


@task(**NETWORK_TASK)
def judge(job_id: str, *, at_end: bool = False) -> None:
    """Stop at a manifest that is of no use.

    Raises:
        ManifestRefused: not one line so far is JSON.
        TooManyBadLines: more than `failure_threshold_percent` of the lines so far are bad.
    """
    job = load_unread(job_id)
    with database().transaction() as tx:
        tally = chunks.tally(tx, job.job_no)
    lines = tally.tasks + tally.bad_lines
    if lines and tally.not_json == lines:
        raise ManifestRefused(
            f"The manifest is not JSON lines: none of the {lines} lines read is JSON. "
            'Each line must be an object such as {"data_url": "https://…"}.'
        )
    limit = job.failure_threshold_percent
    enough = at_end or lines >= _LINES_BEFORE_JUDGING
    if enough and tally.bad_lines > lines * limit / 100:
        raise TooManyBadLines(
            f"{tally.bad_lines} of {lines} lines are bad, more than the {limit:g}% allowed."
        )
