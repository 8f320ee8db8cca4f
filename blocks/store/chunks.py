"""Chunks of manifests: committed with their tasks and bad lines, exactly once."""

from collections.abc import Collection, Iterable

import msgspec

from blocks.model import NOT_JSON, Chunk
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("chunks")


class Tally(msgspec.Struct, frozen=True):
    """Counts over a job's committed chunks; `not_json` of the bad lines are not JSON at all."""

    tasks: int
    bad_lines: int
    not_json: int


def commit(tx: Transaction, job_no: int, chunk_no: int, chunk: Chunk) -> bool:
    """Record a chunk with all that is in it; False if it stands already, or its job has ended."""
    values = {
        "job_no": job_no,
        "chunk_no": chunk_no,
        "lines": chunk.lines,
        "tasks": len(chunk.tasks),
        "bad_lines": len(chunk.bad),
        "fresh_from": chunk.tasks[0].byte_offset if chunk.tasks else 0,
    }
    if tx.execute(_SQL["insert_chunk"], values).fetchone() is None:
        return False
    tasks = ((job_no, t.byte_offset, chunk_no, t.line, t.data_url, t.metadata) for t in chunk.tasks)
    bad = ((job_no, b.byte_offset, chunk_no, b.line, b.code, b.message, b.raw) for b in chunk.bad)
    _copy(tx, "copy_tasks", tasks)
    _copy(tx, "copy_bad_lines", bad)
    return True


def committed(tx: Transaction, job_no: int) -> Collection[int]:
    """The numbers of the chunks that are done."""
    rows = tx.execute(_SQL["committed_chunks"], {"job_no": job_no}).fetchall()
    return {row["chunk_no"] for row in rows}


def tally(tx: Transaction, job_no: int) -> Tally:
    """Sums over the committed chunks."""
    values = {"job_no": job_no, "not_json": [str(code) for code in NOT_JSON]}
    row = tx.execute(_SQL["tally"], values).fetchone()
    assert row is not None  # an aggregate returns one row
    return Tally(**row)


def _copy(tx: Transaction, query: str, rows: Iterable[tuple[object, ...]]) -> None:
    with tx.cursor().copy(_SQL[query]) as copy:
        for row in rows:
            copy.write_row(row)
