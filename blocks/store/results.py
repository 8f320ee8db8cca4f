"""Stream what a job has come to: its settled tasks, and its lines without a result."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from psycopg import sql
from psycopg.rows import DictRow

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("results")

Blocks = Generator[bytes, None, None]
"""A reader that stops before the end has to close it: it holds a statement of its transaction."""

_BLOCK_BYTES = 256 * 1024
_RAW_BYTES_SHOWN = 1024
_ROWS_AT_A_TIME = 1000
# Whole lines may have 1 MiB each.
_RAW_ROWS_AT_A_TIME = 32


class LineError(msgspec.Struct, frozen=True):
    """A line of the manifest without a result: its number, 1-based, and why.

    `code` is one of `LineCode` for a bad line, and of `TaskReason` for a task that failed; the `raw` of
    a task is a line with its data_url and its metadata. `line` is None behind a missing chunk of a job
    that ended early: nobody knows the number there.
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


def disable_nested_loops(tx: Transaction) -> None:
    """Disable nested loops for this transaction: a fresh job has no planner statistics."""
    tx.execute(_SQL["without_nested_loops"])


def export(tx: Transaction, job_no: int, *, after: int = 0) -> Blocks:
    """Yield blocks of whole JSON lines, each a settled task, from manifest line `after` + 1 on."""
    statement = build_export(tx, job_no)
    with tx.cursor().copy(statement, {"job_no": job_no, "after": after}) as copy:
        block = bytearray()
        for line in copy:  # the driver yields them one by one
            block += line
            if len(block) >= _BLOCK_BYTES:
                yield _unquoted(block)
                block.clear()
        if block:
            yield _unquoted(block)


def build_export(tx: Transaction, job_no: int) -> sql.SQL:
    """Return the COPY for a job with its number of options; set the transaction's planner for it."""
    row = tx.execute(_SQL["options"], {"job_no": job_no}).fetchone()
    assert row is not None  # it is a job's
    tx.execute(_SQL["in_order"])
    votes = " || ',' || ".join(
        f"(select keys from job)[{n}] || y.votes[{n}]"  # noqa: S608 - numbers of our own
        for n in range(1, row["options"] + 1)
    )
    return sql.SQL(_SQL["export"].as_string().replace("$votes$", votes))


def _unquoted(block: bytearray) -> bytes:
    # COPY quotes a line with a carriage return; the quote character cannot stand in JSON.
    return bytes(block.replace(b"\x01", b""))


def export_errors(tx: Transaction, job_no: int) -> Blocks:
    """Yield blocks of whole JSON lines, each a manifest line without a result, in manifest order."""
    return _blocks(line.to_json() for line in list_line_errors(tx, job_no))


def export_bad_lines(tx: Transaction, job_no: int) -> Blocks:
    """Yield blocks of whole lines: the bad lines of the manifest, byte for byte, to be mended.

    Only a line that was too long, and so was never read, is cut to its beginning.
    """
    rows = _rows(tx, "bad_lines", {"job_no": job_no}, rows_at_a_time=_RAW_ROWS_AT_A_TIME)
    return _blocks(row["raw"] + b"\n" for row in rows)


def list_line_errors(tx: Transaction, job_no: int) -> Iterator[LineError]:
    """Yield the lines without a result, in manifest order, with the first 1 KiB of `raw`."""
    parameters = {"job_no": job_no, "raw_bytes_max": _RAW_BYTES_SHOWN}
    rows = _rows(tx, "errors", parameters, rows_at_a_time=_ROWS_AT_A_TIME)
    return (LineError(**row) for row in rows)


def _rows(
    tx: Transaction, query: str, parameters: Mapping[str, Any], *, rows_at_a_time: int
) -> Iterator[DictRow]:
    disable_nested_loops(tx)
    with tx.cursor(name=query) as cursor:
        cursor.itersize = rows_at_a_time
        yield from cursor.execute(_SQL[query], parameters)


def _blocks(lines: Iterable[bytes]) -> Blocks:
    block = bytearray()
    for line in lines:
        block += line
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
