"""Chunks of manifests: commit each with its tasks and bad lines, exactly once."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec
import polars as pl

from blocks.domain.errors import LedgerMismatch
from blocks.domain.ids import task_no
from blocks.domain.model import NOT_JSON, BadLine, LineCode
from blocks.lines.pages import make_pages
from blocks.lines.validated_lines import Batch, Counted
from blocks.store import pages
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("chunks")


class ChunkCounts(msgspec.Struct, frozen=True):
    """Counts of the lines of one chunk."""

    lines: int
    """Blank ones too."""
    tasks: int
    bad_lines: int
    blank_lines: int = 0


class Ledger(msgspec.Struct, frozen=True):
    """Sums over a job's chunks beside its manifest: what was read, and what was recorded."""

    manifest_bytes: int
    """The size of the manifest, or of its text where it is compressed."""
    read_bytes: int
    begun_lines: int
    """Counted by line feeds in the bytes that were read."""
    lines: int
    tasks: int
    bad_lines: int
    blank_lines: int
    missing_chunks: int

    def check(self) -> None:
        """Compare what was read with what was recorded.

        Raises:
            LedgerMismatch: a line, or a part of the manifest, is nowhere.
        """
        recorded = self.tasks + self.bad_lines + self.blank_lines
        whole = self.read_bytes == self.manifest_bytes and not self.missing_chunks
        if not (whole and self.begun_lines == self.lines == recorded):
            raise LedgerMismatch(
                f"An error of the service, not of the manifest: of {self.manifest_bytes} bytes "
                f"{self.read_bytes} were read, with {self.begun_lines} lines, and recorded were "
                f"{self.tasks} tasks, {self.bad_lines} bad and {self.blank_lines} blank lines."
            )


class IngestionCounts(msgspec.Struct, frozen=True):
    """Sums over a job's committed chunks; `not_json` of its bad lines are not JSON at all."""

    tasks: int
    bad_lines: int
    not_json: int


def commit(
    tx: Transaction,
    job_no: int,
    chunk_no: int,
    batches: Iterable[Batch],
    counted: Counted | None,
) -> ChunkCounts | None:
    """Record a chunk with its tasks and bad lines; None if it is recorded already, or its job has ended.

    `batches` may be lazy: none is made if there is nothing to do. `counted` are the bytes and lines
    that they must come to; None if they were not read from a manifest.

    Raises:
        LedgerMismatch: they come to something else.
    """
    chunk = {"job_no": job_no, "chunk_no": chunk_no}
    if tx.execute(_SQL["claim_chunk"], chunk).fetchone() is None:
        return None
    lines = tasks = blank_lines = gold = 0
    bad_codes: Counter[str] = Counter()
    for batch in batches:
        first_task = task_no(chunk_no, tasks)
        pages.write(tx, job_no, first_task, make_pages(batch.tasks))
        gold += _record_gold(tx, job_no, first_task, batch)
        _copy_bad_lines(tx, job_no, chunk_no, batch.bad)
        lines += batch.lines
        tasks += len(batch.tasks)
        blank_lines += batch.blank
        bad_codes.update(line.code for line in batch.bad)
    bad_lines = bad_codes.total()
    read = counted or Counted(0, lines)
    if counted:
        ledger = Ledger(
            counted.bytes, counted.bytes, counted.lines, lines, tasks, bad_lines, blank_lines, 0
        )
        ledger.check()
    counts = {
        "lines": lines,
        "tasks": tasks,
        "bad_lines": bad_lines,
        "blank_lines": blank_lines,
        "gold": gold,
        "read_bytes": read.bytes,
        "begun_lines": read.lines,
        "bad_codes": msgspec.json.encode(bad_codes).decode(),
    }
    tx.execute(_SQL["fill_chunk"], chunk | counts)
    return ChunkCounts(lines, tasks, bad_lines, blank_lines)


def _record_gold(tx: Transaction, job_no: int, first_task: int, batch: Batch) -> int:
    """Record the right options of tasks that say them, and return how many they are."""
    if batch.gold:
        places = batch.tasks["byte_offset"].search_sorted(pl.Series(list(batch.gold)))
        values = {
            "job_no": job_no,
            "task_nos": [first_task + place for place in places],
            "options": list(batch.gold.values()),
        }
        tx.execute(_SQL["insert_gold"], values)
    return len(batch.gold)


def list_committed(tx: Transaction, job_no: int) -> Collection[int]:
    """Return the numbers of the committed chunks."""
    rows = tx.execute(_SQL["list_committed"], {"job_no": job_no}).fetchall()
    return {row["chunk_no"] for row in rows}


def count_ingested(tx: Transaction, job_no: int) -> IngestionCounts:
    """Return sums over the committed chunks of a job."""
    values = {"job_no": job_no, "not_json": [str(code) for code in NOT_JSON]}
    row = tx.execute(_SQL["count_ingested"], values).fetchone()
    assert row is not None  # an aggregate returns one row
    return IngestionCounts(**row)


def read_ledger(tx: Transaction, job_no: int) -> Ledger:
    """Return sums over the committed chunks, beside the manifest that they were read from."""
    row = tx.execute(_SQL["read_ledger"], {"job_no": job_no}).fetchone()
    assert row is not None  # the caller has the job
    return Ledger(**row)


def find_first_bad_line(tx: Transaction, job_no: int) -> BadLine | None:
    """Return the bad line with the least byte offset; its `line` is its number in its chunk."""
    row = tx.execute(_SQL["find_first_bad_line"], {"job_no": job_no}).fetchone()
    return BadLine(**row | {"code": LineCode(row["code"])}) if row else None


def count_bad_codes(tx: Transaction, job_no: int) -> dict[str, int]:
    """Return how many lines of the committed chunks are bad, by code."""
    rows = tx.execute(_SQL["count_bad_codes"], {"job_no": job_no}).fetchall()
    return {row["code"]: row["lines"] for row in rows}


def _copy_bad_lines(tx: Transaction, job_no: int, chunk_no: int, bad: Sequence[BadLine]) -> None:
    if not bad:
        return
    with tx.cursor().copy(_SQL["copy_bad_lines"]) as copy:
        for b in bad:
            copy.write_row((job_no, b.byte_offset, chunk_no, b.line, b.code, b.message, b.raw))
