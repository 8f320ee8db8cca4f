"""What comes out of a job: its settled tasks, and the lines without a result."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from psycopg import sql
from psycopg.rows import DictRow

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("results")

Blocks = Generator[bytes, None, None]
"""To be closed by who does not read it to its end: it holds a statement of its transaction."""

_BLOCK_BYTES = 256 * 1024
_RAW_BYTES_SHOWN = 1024
_ROWS_AT_A_TIME = 1000
# Whole lines may have 1 MiB each.
_RAW_ROWS_AT_A_TIME = 32


class LineError(msgspec.Struct, frozen=True):
    """A line of the manifest without a result: its number, 1-based, and why.

    `code` is one of `LineCode` for a bad line, and of `TaskReason` for a task that failed, whose `raw`
    is a line with its data_url and its metadata. Of a job that ended early chunks may be missing,
    and nobody knows the number of a line behind them.
    """

    line: int | None
    byte_offset: int
    code: str
    message: str
    raw: bytes

    def to_json(self) -> bytes:
        """The line of `/errors` and of `errors.jsonl`, with its line feed."""
        fields = {field: getattr(self, field) for field in self.__struct_fields__}
        fields["raw"] = self.raw.decode(errors="replace")
        return msgspec.json.encode(fields) + b"\n"


def disable_nested_loops(tx: Transaction) -> None:
    """Before a long read of a job that statistics may not know yet; until the transaction ends."""
    tx.execute(_SQL["without_nested_loops"])


def export(tx: Transaction, job_no: int, *, after: int = 0) -> Blocks:
    """Blocks of whole JSON lines, each line a settled task, from manifest line `after` + 1 on."""
    statement = build_export(tx, job_no)
    with tx.cursor().copy(statement, {"job_no": job_no, "after": after}) as copy:
        block = bytearray()
        for line in copy:  # the driver gives them one by one
            block += line
            if len(block) >= _BLOCK_BYTES:
                yield _unquoted(block)
                block.clear()
        if block:
            yield _unquoted(block)


def build_export(tx: Transaction, job_no: int) -> sql.SQL:
    """For a job with its number of options; the transaction's planner is set for it."""
    row = tx.execute(_SQL["options"], {"job_no": job_no}).fetchone()
    assert row is not None  # it is a job's
    tx.execute(_SQL["in_order"])
    votes = " || ',' || ".join(
        f"(select keys from job)[{n}] || y.votes[{n}]"  # noqa: S608 - numbers of our own
        for n in range(1, row["options"] + 1)
    )
    return sql.SQL(_SQL["export"].as_string().replace("$votes$", votes))


def _unquoted(block: bytearray) -> bytes:
    # COPY quotes a line that holds a carriage return; the quote itself cannot stand in JSON.
    return bytes(block.replace(b"\x01", b""))


def export_errors(tx: Transaction, job_no: int) -> Blocks:
    """Blocks of whole JSON lines, each a line of the manifest without a result, in its order."""
    return _blocks(line.to_json() for line in list_line_errors(tx, job_no))


def export_bad_lines(tx: Transaction, job_no: int) -> Blocks:
    """Blocks of whole lines: the bad lines of the manifest, byte for byte, to be mended.

    Only one that was too long, and so never read, is cut to its beginning.
    """
    rows = _rows(tx, "bad_lines", {"job_no": job_no}, rows_at_a_time=_RAW_ROWS_AT_A_TIME)
    return _blocks(row["raw"] + b"\n" for row in rows)


def list_line_errors(tx: Transaction, job_no: int) -> Iterator[LineError]:
    """The lines without a result, in manifest order, read in small batches; of `raw` the first 1 KiB."""
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
