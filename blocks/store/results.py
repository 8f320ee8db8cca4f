"""Stream what a job has come to: its settled tasks, and its lines without a result.

No statement is open while a reader takes its time, so a slow one keeps no snapshot. What is read does
not change any more where results can be exported.
"""

import heapq
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import TypeVar

import msgspec
import polars as pl

from blocks.domain.consensus import ALL
from blocks.domain.ids import id_number, task_no
from blocks.domain.model import JobStatus, SkipReason, TaskReason, why_failed
from blocks.lines.result_lines import (
    RESULT_COLUMNS,
    Ballot,
    Extras,
    Results,
    quote,
    to_json_lines,
)
from blocks.lookahead import look_ahead
from blocks.store import ballots, pages, reviews, single_labels
from blocks.store.ballots import Rule, unpack_votes
from blocks.store.database import Transaction
from blocks.store.deleted_jobs import JobDeleted, check_kept
from blocks.store.queries import load

_SQL = load("results")

_T = TypeVar("_T")

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
    task_key: int
    options: list[str]
    skips_max: int
    status: JobStatus
    has_review: bool
    target_confidence: int | None
    has_gold: bool
    include_labels: bool

    @property
    def extras(self) -> Extras:
        """The fields of its results beside those of all jobs."""
        return Extras(self.target_confidence is not None, self.has_gold, self.include_labels)

    @property
    def rule(self) -> Rule:
        """What its ballots are read by."""
        return Rule(len(self.options), self.target_confidence is not None, self.has_gold)

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


class _Part(msgspec.Struct, frozen=True):
    """Tasks of a chunk, whose numbers follow one another; the ended among them, and their labels.

    Those may be of some more tasks.
    """

    chunk: _Chunk
    tasks: pl.DataFrame
    ended: pl.DataFrame
    labels: pl.DataFrame | None

    def cut(self) -> Iterator["_Part"]:
        """Yield it in smaller parts."""
        for start in range(0, len(self.tasks), _TASKS_AT_A_TIME):
            tasks = self.tasks.slice(start, _TASKS_AT_A_TIME)
            yield _Part(self.chunk, tasks, self.ended, self.labels)


def read(tx: Transaction, job_no: int, *, after: int = 0) -> Generator[Results, None, None]:
    """Yield the settled tasks in manifest order, thousands at a time, from line `after` + 1 on.

    They are cut at the same places whenever they are read. A thread reads ahead: until the generator
    is closed, nobody else may use the transaction.

    Raises:
        JobDeleted: at the end, as tasks may be missing.
    """
    job = _find_job(tx, job_no)
    chunks = _list_chunks(tx, job_no)
    with closing(look_ahead(_read_tasks(tx, job_no, job, chunks, after=after))) as parts:
        for part in parts:
            for some in part.cut():
                found = _settled(job, some, after=after)
                if not found.tasks.is_empty():
                    yield found
    check_kept(tx, job_no)


def count_labels(tx: Transaction, job_no: int) -> tuple[int, int]:
    """Return how many labels the settled tasks have, and the sum of their skills."""
    labels = skills = 0
    for chunk in _list_chunks(tx, job_no):
        first, end = task_no(chunk.chunk_no, 0), task_no(chunk.chunk_no, chunk.tasks)
        some, their_skills = single_labels.count_settled(tx, job_no, first, end)
        labels += some
        skills += their_skills
    return labels, skills


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
    lines = (line.raw + b"\n" for line in bad if line.line is not None)
    return _blocks(_whole(tx, job_no, lines))


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
    lines = heapq.merge(bad, unsettled, key=lambda line: line.byte_offset)
    return _whole(tx, job_no, lines)


def _whole(tx: Transaction, job_no: int, lines: Iterable[_T]) -> Iterator[_T]:
    """Yield all lines; raise JobDeleted at the end if some may be missing."""
    yield from lines
    check_kept(tx, job_no)


def _find_job(tx: Transaction, job_no: int) -> _Job:
    row = tx.execute(_SQL["job"], {"job_no": job_no}).fetchone()
    if row is None:
        raise JobDeleted("The job was deleted.")
    return msgspec.convert(row, _Job)


def _list_chunks(tx: Transaction, job_no: int) -> list[_Chunk]:
    rows = tx.execute(_SQL["chunks"], {"job_no": job_no}).fetchall()
    return msgspec.convert(rows, list[_Chunk])


def _read_tasks(
    tx: Transaction, job_no: int, job: _Job, chunks: Sequence[_Chunk], *, after: int
) -> Generator[_Part, None, None]:
    """Yield tasks of chunks that have settled ones, a few pages at a time, with their `id_number`."""
    for chunk in chunks:
        ends_at = chunk.number(chunk.lines)
        if chunk.settled and (ends_at is None or ends_at > after):
            for tasks in pages.read_chunk(tx, job_no, chunk.chunk_no):
                ended = _read_ended(tx, job_no, job, tasks)
                labels = _read_labels(tx, job_no, tasks) if job.include_labels else None
                tx.commit()
                numbers = id_number(job.task_key, tasks["task_no"]).alias("id_number")
                yield _Part(chunk, tasks.with_columns(numbers), ended, labels)


def _settled(job: _Job, part: _Part, *, after: int) -> Results:
    """Return the settled tasks of a part."""
    chunk, tasks = part.chunk, part.tasks
    is_weighted = job.target_confidence is not None
    is_among = pl.col("task_no").is_between(tasks["task_no"][0], tasks["task_no"][-1])
    ended = part.ended.filter(is_among, pl.col("outcome") > 0)
    kind = ["outcome", "votes", "gold"] if job.has_gold else ["outcome", "votes"]
    kinds = ended.select(kind).unique(maintain_order=True).with_row_index("ballot")
    found = [
        Ballot(outcome - 1, unpack_votes(votes), *gold)
        for _, outcome, votes, *gold in kinds.iter_rows()
    ]
    ended = ended.join(kinds, on=kind, how="left", maintain_order="left")
    line = pl.col("line").cast(pl.Int64) + pl.lit(chunk.lines_before, dtype=pl.Int64)
    frame = (
        tasks[ended["task_no"] - tasks["task_no"][0]]
        .with_columns(
            line=line,
            ballot=ended["ballot"],
            confidence=ended["confidence"].fill_null(ALL) if is_weighted else ended["confidence"],
            created_at=pl.lit(chunk.created_at, dtype=RESULT_COLUMNS["created_at"]),
            # Gold has no end; its answer is known from the beginning.
            settled_at=ended["labelled_at"].fill_null(chunk.created_at),
        )
        .filter((pl.col("line") > after).fill_null(value=True))
        .select(*RESULT_COLUMNS)
    )
    reviewed = ended.filter("is_reviewed")["task_no"] if job.has_review else None
    is_reviewed = None if reviewed is None else frame["task_no"].is_in(reviewed.implode())
    labels = part.labels
    if labels is not None:
        labels = labels.join(frame, on="task_no", how="semi", maintain_order="left")
    return Results(job.job_id, job.options, frame, found, is_reviewed, job.extras, labels)


def _read_ended(tx: Transaction, job_no: int, job: _Job, tasks: pl.DataFrame) -> pl.DataFrame:
    first, last = tasks["task_no"][0], tasks["task_no"][-1]
    ended = ballots.read_ended(tx, job_no, first, last + 1, job.rule)
    if not job.has_review:
        return ended
    reviewed = pl.Series(reviews.list_settled(tx, job_no, first, last + 1), dtype=pl.Int64)
    return ended.with_columns(is_reviewed=pl.col("task_no").is_in(reviewed.implode()))


def _read_labels(tx: Transaction, job_no: int, tasks: pl.DataFrame) -> pl.DataFrame:
    return single_labels.read(tx, job_no, tasks["task_no"][0], tasks["task_no"][-1] + 1)


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
    columns = (
        "byte_offset", "line", "data_url", "text", "metadata", "outcome", "votes", "confidence"
    )  # fmt: skip
    for row in found.sort("task_no").select(columns).iter_rows():
        byte_offset, line, data_url, text, metadata, *end = row
        code, message = _cut_short(job) if end[0] is None else _failed(job, *end)
        more = f',"metadata":{metadata}' if metadata else ""
        data = f'"data_url":{quote(data_url)}' if text is None else f'"text":{quote(text)}'
        raw = f"{{{data}{more}}}".encode()[:_RAW_BYTES_SHOWN]
        yield LineError(chunk.number(line), byte_offset, code, message, raw)


def _cut_short(job: _Job) -> tuple[str, str]:
    failed = job.status is JobStatus.FAILED
    how = "failed" if failed else "was cancelled"
    code = TaskReason.JOB_FAILED if failed else TaskReason.CANCELLED
    return code, f"The job {how} before this was settled."


def _failed(job: _Job, outcome: int, packed: bytes, confidence: int | None) -> tuple[str, str]:
    votes = unpack_votes(packed)
    counted = ", ".join(f"{option} {n}" for option, n in zip(job.options, votes, strict=True) if n)
    code = why_failed(outcome)
    if code is TaskReason.NO_CONSENSUS and job.target_confidence is not None:
        reached, target = ((n or 0) / ALL for n in (confidence, job.target_confidence))
        return code, (
            f"No option won with {sum(votes)} labels: {counted}. The likeliest one has a confidence of "
            f"{reached:g}, and {target:g} was asked for."
        )
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
