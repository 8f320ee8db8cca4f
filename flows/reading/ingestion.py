"""Make the tasks of a job's manifest, step by step, by plain functions.

Each step can be repeated: the database records it, in the transaction that did it.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from itertools import islice

from blocks import tracing
from blocks.domain.errors import ManifestRefused, ManifestTooLarge, NoValidLines, TooManyBadLines
from blocks.domain.model import Compression
from blocks.domain.object_urls import parse_object_url
from blocks.lines import magic
from blocks.lines.magic import codec_of
from blocks.lines.validated_lines import Counted
from blocks.store import chunks, jobs, waits
from blocks.store.chunks import ChunkCounts, IngestionCounts
from blocks.store.jobs import Job
from flows.reading import compressed
from flows.reading.fast_path import validate_lines
from flows.reading.ranges import Read, ReadAhead, choose_chunk_bytes, plan_ranges, read_lines
from flows.running.deadlines import Deadline
from flows.running.policy import RETRY
from flows.running.resources import (
    database,
    keep_to_sign,
    load_job,
    load_unread,
    manifest_of,
    settings,
)
from flows.running.setbacks import PROCESS_JOB, retry_recorder

# The HTTP contract: a job's bad lines are judged after this many lines at the earliest.
_LINES_BEFORE_JUDGING = 1000
_COMPRESSED_CHUNKS_BETWEEN_JUDGEMENTS = 100

Range = tuple[int, int, int]
"""Chunk number, first byte, byte after the last."""


def is_compressed(job_id: str) -> bool:
    """Return whether the job's manifest has to be read in order."""
    return _codec(load_job(job_id)) is not None


def pin(job_id: str) -> None:
    """Pin the version of the manifest, and choose the size of its chunks; once for a job.

    Raises:
        ManifestTooLarge: the manifest has more bytes than the settings allow.
    """
    job = load_unread(job_id)
    with database().transaction() as tx:
        jobs.begin(tx, job.job_no)
    if job.chunk_bytes:
        return
    found = job.pin
    if found is None:
        bucket, url = manifest_of(job)
        found = bucket.stat(url.key)
    bounds = settings()
    if found.size > bounds.manifest_bytes_max:
        raise ManifestTooLarge(
            f"The manifest has {found.size:,} bytes; at most {bounds.manifest_bytes_max:,} are allowed."
        )
    if _codec(job):
        chunk_bytes = bounds.chunk_bytes_max  # the size of the text is not known yet
    else:
        chunk_bytes = choose_chunk_bytes(
            found.size,
            in_flight=bounds.chunks_in_flight,
            chunk_bytes_min=bounds.chunk_bytes_min,
            chunk_bytes_max=bounds.chunk_bytes_max,
        )
    keep_to_sign(job)
    with database().transaction() as tx:
        jobs.pin(tx, job.job_no, found, chunk_bytes)
        waits.forget_failures(tx, job.job_no, PROCESS_JOB)


def is_small(job_id: str) -> bool:
    """Return whether the manifest is one chunk, and not compressed; False while it is not pinned."""
    job = load_job(job_id)
    if job.pin is None or _codec(job) is not None:
        return False
    return len(list(islice(plan_ranges(*_plan(job)), 2))) <= 1


def read_small(job_id: str) -> IngestionCounts | None:
    """Read a small manifest, step by step, and return its tally; return None if it is not small.

    Raises:
        ManifestRefused, NoValidLines, TooManyBadLines, LedgerMismatch: the job has to be failed.
        AlreadyDone: the job has ended, or is past that.
    """
    pin(job_id)
    if not is_small(job_id):
        return None
    for chunk_no, start, end in missing_ranges(job_id):
        create_tasks(job_id, chunk_no, start, end)
    judge(job_id, at_end=True)
    return finish(job_id)


def fail(job_id: str, code: str, message: str) -> None:
    """Tell the customer why there will be no tasks."""
    job_no = load_job(job_id).job_no
    with database().transaction() as tx:
        jobs.fail(tx, job_no, code, message)


def missing_ranges(job_id: str) -> list[Range]:
    """Return the ranges of the manifest whose lines are not recorded yet."""
    job = load_job(job_id)
    size, chunk_bytes = _plan(job)
    done = _committed(job)
    ranges = plan_ranges(size, chunk_bytes)
    return [(n, *limits) for n, limits in enumerate(ranges) if n not in done]


def share_recorded(job_id: str) -> float:
    """Return how much of the manifest's bytes is recorded, from 0 to 1."""
    job_no = load_job(job_id).job_no
    with database().transaction() as tx:
        ledger = chunks.read_ledger(tx, job_no)
    return ledger.read_bytes / max(ledger.manifest_bytes, 1)


def create_tasks(
    job_id: str, chunk_no: int, start: int, end: int, ahead: ReadAhead | None = None
) -> ChunkCounts | None:
    """Record the lines of one range; return None if they are recorded already, or the job has ended.

    `ahead` holds what was read with the range before it.
    """
    job = load_unread(job_id)
    ahead = ahead or ReadAhead(end)
    size, _ = _plan(job)
    with tracing.span("read chunk", job_id=job_id, chunk=chunk_no) as note:
        at, text, counted = read_lines(ahead.over(_reader(job), size), size, start, end)
        note(bytes=counted.bytes, lines=counted.lines)
    return _commit(job, chunk_no, at, text, counted)


def create_tasks_of_compressed(
    job_id: str, deadline: Deadline
) -> Iterator[tuple[int, ChunkCounts | None, float]]:
    """Decompress the manifest from its start, and record the chunks that are missing.

    Yields (chunk number, what was committed, share of the manifest that was read by then).
    A transient failure is tried again on the spot: to begin anew would mean to decompress again all
    that was read so far.
    """
    job = load_unread(job_id)
    codec = _codec(job)
    assert codec is not None
    size, chunk_bytes = _plan(job)
    done = _committed(job)
    read = RETRY.copy(before_sleep=retry_recorder(job_id, PROCESS_JOB)).wraps(_reader(job))
    read_bytes = 0

    def progress(start: int, end: int) -> bytes:
        nonlocal read_bytes
        deadline.check()
        read_bytes = end
        return read(start, end)

    found = compressed.read_chunks(
        progress,
        size,
        codec,
        chunk_bytes=chunk_bytes,
        bytes_max=settings().decompressed_bytes_max,
    )
    commit, check = RETRY.wraps(_commit), RETRY.wraps(load_unread)
    in_flight = settings().chunks_in_flight
    pending: deque[tuple[int, Future[ChunkCounts | None]]] = deque()
    text_bytes = 0
    with ThreadPoolExecutor(in_flight) as pool:
        for chunk_no, at, text, counted in found:
            text_bytes += counted.bytes
            if chunk_no in done:
                continue
            check(job_id)  # or an operator has paused it, and no further chunk is begun
            run = copy_context().run  # with the span that is under way
            pending.append((chunk_no, pool.submit(run, commit, job, chunk_no, at, text, counted)))
            time_to_judge = chunk_no % _COMPRESSED_CHUNKS_BETWEEN_JUDGEMENTS == 0
            while len(pending) >= (1 if time_to_judge else in_flight):
                number, future = pending.popleft()
                yield number, future.result(), read_bytes / size
            if time_to_judge:
                judge(job_id)
        for number, future in pending:
            yield number, future.result(), read_bytes / size
    with database().transaction() as tx:
        jobs.set_text_bytes(tx, job.job_no, text_bytes)


def judge(job_id: str, *, at_end: bool = False) -> None:
    """Fail if the manifest is of no use.

    Raises:
        ManifestRefused: not one line so far is JSON.
        NoValidLines: at the end, not one line is usable.
        TooManyBadLines: more than `failure_threshold_percent` of the lines so far are bad.
        AlreadyDone: the job has ended, or is past that.
    """
    job = load_unread(job_id)
    with database().transaction() as tx:
        tally = chunks.count_ingested(tx, job.job_no)
        first = chunks.find_first_bad_line(tx, job.job_no) if tally.bad_lines else None
        codes = chunks.count_bad_codes(tx, job.job_no) if at_end and first else {}
    lines = tally.tasks + tally.bad_lines
    if first and tally.not_json == lines:
        read = (
            "its one line is not JSON" if lines == 1 else f"none of the {lines} lines read is JSON"
        )
        raise ManifestRefused(
            f"The manifest is not JSON lines: {read}. "
            + (
                magic.hint(first)
                or 'Each line must be an object such as {"data_url": "https://…"}.'
            )
        )
    if first and at_end and not tally.tasks:
        counted = ", ".join(f"{code} {codes[code]}" for code in sorted(codes))
        raise NoValidLines(
            f"None of the {lines} lines of the manifest is usable ({counted}). "
            f"The first of them: {magic.hint(first) or first.message}"
        )
    limit = job.failure_threshold_percent
    enough = at_end or lines >= _LINES_BEFORE_JUDGING
    if enough and tally.bad_lines > lines * limit / 100:
        raise TooManyBadLines(
            f"{tally.bad_lines} of {lines} lines are bad, more than the {limit:g}% allowed."
        )


def finish(job_id: str) -> IngestionCounts:
    """Close the ingestion if every line that was read is recorded, and return the tally.

    Raises:
        LedgerMismatch: a line is missing, or there is one too many.
        AlreadyDone: the job has ended, or is past that.
    """
    job = load_unread(job_id)
    with database().transaction() as tx:
        chunks.read_ledger(tx, job.job_no).check()
        jobs.finish_ingestion(tx, job.job_no)
        return chunks.count_ingested(tx, job.job_no)


def _codec(job: Job) -> Compression | None:
    return codec_of(parse_object_url(job.manifest_url).key)


def _plan(job: Job) -> tuple[int, int]:
    """Return the bytes of the manifest, and those of a chunk."""
    assert job.pin is not None  # `pin` ran before
    assert job.chunk_bytes is not None
    return job.pin.size, job.chunk_bytes


def _committed(job: Job) -> frozenset[int]:
    with database().transaction() as tx:
        return frozenset(chunks.list_committed(tx, job.job_no))


def _reader(job: Job) -> Read:
    bucket, url = manifest_of(job)
    pinned = job.pin
    assert pinned is not None  # `pin` ran before
    return lambda start, end: bucket.read(url.key, pinned, start, end)


def _commit(job: Job, chunk_no: int, at: int, text: bytes, counted: Counted) -> ChunkCounts | None:
    with tracing.span("commit chunk", job_id=job.job_id, chunk=chunk_no) as note:
        made = _validate_and_commit(job, chunk_no, at, text, counted)
        if made:
            note(tasks=made.tasks, bad_lines=made.bad_lines)
    return made


def _validate_and_commit(
    job: Job, chunk_no: int, at: int, text: bytes, counted: Counted
) -> ChunkCounts | None:
    validated = partial(
        validate_lines,
        text,
        at,
        counted.lines,
        takes_text=job.task_type.takes_text,
        options=job.options,
    )
    # That the job has gold is known before any of it is: claims and labels ask its row.
    if not job.has_gold and b'"gold"' in text and any(batch.gold for batch in validated()):
        with database().transaction() as tx:
            jobs.mark_gold(tx, job.job_no)
    with database().transaction() as tx:
        batches = validated()
        made = chunks.commit(tx, job.job_no, chunk_no, batches, counted)
        if made:
            waits.forget_failures(tx, job.job_no, PROCESS_JOB)
        return made
