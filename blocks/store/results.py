"""Stream what a job has come to: its settled tasks, and its lines without a result.

No statement is open while a reader takes its time, so a slow one keeps no snapshot. What is read does
not change any more where results can be exported.
"""

import heapq
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime

import msgspec
import polars as pl

from blocks.domain.model import JobStatus, SkipReason, TaskReason, why_failed
from blocks.lines.result_lines import RESULT_COLUMNS, Ballot, Results, quote, to_json_lines
from blocks.lookahead import look_ahead
from blocks.store import pages
from blocks.store.ballots import read_ended, unpack_votes
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("results")

Blocks = Generator[bytes, None, None]
"""Blocks of whole lines."""

_BLOCK_BYTES = 256 * 1024
# A few of 1.6 MB each are under way for every reader.
_TASKS_AT_A_TIME = 4096
_RAW_BYTES_SHOWN = 1024
_RAW_BYTES_MAX = 2**30
_ROWS_AT_A_TIME = 1000
# Whole lines may have 1 MiB each.
_RAW_ROWS_AT_A_TIME = 32
_SAID = {
    SkipReason.UNCLEAR: "it is unclear",
    SkipReason.BROKEN: "it is broken",
    SkipReason.NONE_OF_THESE: "it is none of the options",
}


class LineError(msgspec.Struct, frozen=True):
    """A line of the manifest without a result: its number, 1-based, and why.

    `code` is one of `LineCode` for a bad line, and of `TaskReason` for a task that failed; the `raw` of
    a task is a line with its data_url or text, and its metadata. `line` is None behind a missing chunk
    of a job that ended early: nobody knows the number there.
    """

    line: int | None
    byte_offset: int
    code: str
    message: str
    raw: bytes

    def to_json(self) -> bytes:
        """Return the line of `/errors` and of `errors.jsonl`, with its line feed."""
        fields = {field: getattr(self, field) for field in self.__struct_fields__}
        fields["raw"] = self.raw.decode(errors="replace")
        return msgspec.json.encode(fields) + b"\n"


class _Job(msgspec.Struct, frozen=True):
    job_id: str
    options: list[str]
    skips_max: int
    status: JobStatus

    @property
    def is_cut_short(self) -> bool:
        """The job has ended before all of its tasks had."""
        return self.status in (JobStatus.CANCELLED, JobStatus.FAILED)


class _Chunk(msgspec.Struct, frozen=True):
    """A committed chunk; `lines_before` is None behind one that is missing."""

    chunk_no: int
    lines: int
    tasks: int
    settled: int
    failed: int
    created_at: datetime
    lines_before: int | None

    def number(self, line_in_chunk: int) -> int | None:
        """Return the number of a line in the manifest, 1-based."""
        return None if self.lines_before is None else self.lines_before + line_in_chunk


def read(tx: Transaction, job_no: int, *, after: int = 0) -> Generator[Results, None, None]:
    """Yield the settled tasks in manifest order, thousands at a time, from line `after` + 1 on.

    They are cut at the same places whenever they are read. A thread reads ahead: until the generator
    is closed, nobody else may use the transaction.
    """
    job = _find_job(tx, job_no)
    chunks = _list_chunks(tx, job_no)
    with closing(look_ahead(_read_tasks(tx, job_no, job, chunks, after=after))) as parts:
        for chunk, tasks, ended in parts:
            for start in range(0, len(tasks), _TASKS_AT_A_TIME):
                some = tasks.slice(start, _TASKS_AT_A_TIME)
                found = _settled(job, chunk, some, ended, after=after)
                if not found.tasks.is_empty():
                    yield found


def export(tx: Transaction, job_no: int, *, after: int = 0) -> Blocks:
    """Yield blocks of whole JSON lines, each a settled task, from manifest line `after` + 1 on."""
    with closing(read(tx, job_no, after=after)) as parts:
        for results in parts:
            yield to_json_lines(results)


def export_errors(tx: Transaction, job_no: int) -> Blocks:
    """Yield blocks of whole JSON lines, each a manifest line without a result, in manifest order."""
    return _blocks(line.to_json() for line in list_line_errors(tx, job_no))


def export_bad_lines(tx: Transaction, job_no: int) -> Blocks:
    """Yield blocks of whole lines: the bad lines of the manifest, byte for byte, to be mended.

    Only a line that was too long, and so was never read, is cut to its beginning.
    """
    chunks = _list_chunks(tx, job_no)
    bad = _list_bad_lines(
        tx, job_no, chunks, raw_bytes_max=_RAW_BYTES_MAX, limit=_RAW_ROWS_AT_A_TIME
    )
    return _blocks(line.raw + b"\n" for line in bad if line.line is not None)


def list_line_errors(tx: Transaction, job_no: int) -> Iterator[LineError]:
    """Yield the lines without a result, in manifest order, with the first 1 KiB of `raw`.

    A job that goes on is listed up to the first chunk that is not committed: behind that the numbers of
    lines are not known yet.
    """
    job = _find_job(tx, job_no)
    chunks = [
        chunk
        for chunk in _list_chunks(tx, job_no)
        if job.is_cut_short or chunk.lines_before is not None
    ]
    bad = _list_bad_lines(tx, job_no, chunks, raw_bytes_max=_RAW_BYTES_SHOWN, limit=_ROWS_AT_A_TIME)
    unsettled = _list_unsettled(tx, job_no, job, chunks)
    return heapq.merge(bad, unsettled, key=lambda line: line.byte_offset)


def _find_job(tx: Transaction, job_no: int) -> _Job:
    return msgspec.convert(tx.execute(_SQL["job"], {"job_no": job_no}).fetchone(), _Job)


def _list_chunks(tx: Transaction, job_no: int) -> list[_Chunk]:
    rows = tx.execute(_SQL["chunks"], {"job_no": job_no}).fetchall()
    return msgspec.convert(rows, list[_Chunk])


def _read_tasks(
    tx: Transaction, job_no: int, job: _Job, chunks: Sequence[_Chunk], *, after: int
) -> Generator[tuple[_Chunk, pl.DataFrame, pl.DataFrame], None, None]:
    """Yield tasks of chunks that have settled ones, a few pages at a time, and the ended among them."""
    for chunk in chunks:
        ends_at = chunk.number(chunk.lines)
        if chunk.settled and (ends_at is None or ends_at > after):
            for tasks in pages.read_chunk(tx, job_no, chunk.chunk_no):
                ended = _read_ended(tx, job_no, job, tasks)
                tx.commit()
                yield chunk, tasks, ended


def _settled(
    job: _Job, chunk: _Chunk, tasks: pl.DataFrame, ended: pl.DataFrame, *, after: int
) -> Results:
    """Return those of `tasks`, whose numbers follow one another, that are settled."""
    first, last = tasks["task_no"][0], tasks["task_no"][-1]
    ended = ended.filter(pl.col("task_no").is_between(first, last), pl.col("outcome") > 0)
    kinds = ended.select("outcome", "votes").unique(maintain_order=True).with_row_index("ballot")
    ballots = [Ballot(outcome - 1, unpack_votes(votes)) for _, outcome, votes in kinds.iter_rows()]
    ended = ended.join(kinds, on=["outcome", "votes"], how="left", maintain_order="left")
    line = pl.col("line").cast(pl.Int64) + pl.lit(chunk.lines_before, dtype=pl.Int64)
    frame = (
        tasks[ended["task_no"] - first]
        .with_columns(
            line=line,
            ballot=ended["ballot"],
            created_at=pl.lit(chunk.created_at, dtype=RESULT_COLUMNS["created_at"]),
            settled_at=ended["labelled_at"],
        )
        .filter((pl.col("line") > after).fill_null(value=True))
        .select(*RESULT_COLUMNS)
    )
    return Results(job.job_id, job.options, frame, ballots)


def _read_ended(tx: Transaction, job_no: int, job: _Job, tasks: pl.DataFrame) -> pl.DataFrame:
    first, last = tasks["task_no"][0], tasks["task_no"][-1]
    return read_ended(tx, job_no, first, last + 1, options=len(job.options))


def _list_bad_lines(
    tx: Transaction, job_no: int, chunks: Sequence[_Chunk], *, raw_bytes_max: int, limit: int
) -> Iterator[LineError]:
    """Yield the bad lines of some chunks, `limit` by each statement."""
    by_no = {chunk.chunk_no: chunk for chunk in chunks}
    values = {"job_no": job_no, "raw_bytes_max": raw_bytes_max, "limit": limit, "after": -1}
    while rows := tx.execute(_SQL["bad_lines"], values).fetchall():
        tx.commit()
        for row in rows:
            chunk = by_no.get(row["chunk_no"])
            if chunk is not None:
                number = chunk.number(row["line_in_chunk"])
                yield LineError(number, row["byte_offset"], row["code"], row["message"], row["raw"])
        values["after"] = rows[-1]["byte_offset"]


def _list_unsettled(
    tx: Transaction, job_no: int, job: _Job, chunks: Sequence[_Chunk]
) -> Iterator[LineError]:
    """Yield the tasks that failed, and the open ones of a job that was cut short."""
    for chunk in chunks:
        if chunk.failed or (job.is_cut_short and chunk.settled < chunk.tasks):
            for tasks in pages.read_chunk(tx, job_no, chunk.chunk_no):
                ended = _read_ended(tx, job_no, job, tasks)
                tx.commit()
                yield from _unsettled(job, chunk, tasks, ended)


def _unsettled(
    job: _Job, chunk: _Chunk, tasks: pl.DataFrame, ended: pl.DataFrame
) -> Iterator[LineError]:
    found = tasks.join(ended, on="task_no", how="left" if job.is_cut_short else "inner")
    found = found.filter(pl.col("outcome").is_null() | (pl.col("outcome") <= 0))
    columns = "byte_offset", "line", "data_url", "text", "metadata", "outcome", "votes"
    for row in found.sort("task_no").select(columns).iter_rows():
        byte_offset, line, data_url, text, metadata, outcome, votes = row
        code, message = _cut_short(job) if outcome is None else _failed(job, outcome, votes)
        more = f',"metadata":{metadata}' if metadata else ""
        data = f'"data_url":{quote(data_url)}' if text is None else f'"text":{quote(text)}'
        raw = f"{{{data}{more}}}".encode()[:_RAW_BYTES_SHOWN]
        yield LineError(chunk.number(line), byte_offset, code, message, raw)


def _cut_short(job: _Job) -> tuple[str, str]:
    failed = job.status is JobStatus.FAILED
    how = "failed" if failed else "was cancelled"
    code = TaskReason.JOB_FAILED if failed else TaskReason.CANCELLED
    return code, f"The job {how} before this was settled."


def _failed(job: _Job, outcome: int, packed: bytes) -> tuple[str, str]:
    votes = unpack_votes(packed)
    counted = ", ".join(f"{option} {n}" for option, n in zip(job.options, votes, strict=True) if n)
    code = why_failed(outcome)
    if code is TaskReason.NO_CONSENSUS:
        return code, f"No option won with {sum(votes)} labels: {counted}."
    who = "1 annotator" if job.skips_max == 1 else f"{job.skips_max} annotators"
    beside = f" It has labels: {counted}." if counted else ""
    return code, f"{who} skipped this: {_SAID[SkipReason.of_number(-outcome)]}.{beside}"


def _blocks(lines: Iterable[bytes]) -> Blocks:
    block = bytearray()
    for line in lines:
        block += line
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
