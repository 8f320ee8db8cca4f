"""What comes out of a job: its settled tasks, and its bad lines."""

from collections.abc import Generator, Iterable, Iterator

import msgspec
from psycopg.rows import DictRow

from blocks.model import LINE_BYTES_MAX
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


class NumberedBadLine(msgspec.Struct, frozen=True):
    """A bad line with its number in the manifest, 1-based."""

    line: int
    byte_offset: int
    code: str
    message: str
    raw: bytes

    def to_json(self) -> bytes:
        """The line of `/errors` and of `errors.jsonl`, with its line feed."""
        fields = {field: getattr(self, field) for field in self.__struct_fields__}
        fields["raw"] = self.raw.decode(errors="replace")
        return msgspec.json.encode(fields) + b"\n"


def without_nested_loops(tx: Transaction) -> None:
    """Before a long read of a job that statistics may not know yet; until the transaction ends."""
    tx.execute(_SQL["without_nested_loops"])


def export(tx: Transaction, job_no: int, *, after: int = 0) -> Blocks:
    """Blocks of whole JSON lines, each line a settled task, from manifest line `after` + 1 on."""
    without_nested_loops(tx)
    with tx.cursor().copy(_SQL["export"], {"job_no": job_no, "after": after}) as copy:
        block = bytearray()
        for line in copy:  # the driver gives them one by one
            block += line
            if len(block) >= _BLOCK_BYTES:
                yield _unquoted(block)
                block.clear()
        if block:
            yield _unquoted(block)


def _unquoted(block: bytearray) -> bytes:
    # COPY quotes a line that holds a carriage return; the quote itself cannot stand in JSON.
    return bytes(block.replace(b"\x01", b""))


def errors(tx: Transaction, job_no: int) -> Blocks:
    """Blocks of whole JSON lines, each a bad line, in manifest order."""
    return _blocks(line.to_json() for line in bad_lines(tx, job_no))


def bad_manifest(tx: Transaction, job_no: int) -> Blocks:
    """Blocks of whole lines: the bad lines of the manifest, byte for byte, to be mended.

    Only one that was too long, and so never read, is cut to its beginning.
    """
    rows = _bad_rows(tx, job_no, raw_bytes_max=LINE_BYTES_MAX, rows_at_a_time=_RAW_ROWS_AT_A_TIME)
    return _blocks(row["raw"] + b"\n" for row in rows)


def _blocks(lines: Iterable[bytes]) -> Blocks:
    block = bytearray()
    for line in lines:
        block += line
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def bad_lines(tx: Transaction, job_no: int) -> Iterator[NumberedBadLine]:
    """The bad lines in manifest order, read in small batches; of `raw` the first 1 KiB."""
    rows = _bad_rows(tx, job_no, raw_bytes_max=_RAW_BYTES_SHOWN, rows_at_a_time=_ROWS_AT_A_TIME)
    return (NumberedBadLine(**row) for row in rows)


def _bad_rows(
    tx: Transaction, job_no: int, *, raw_bytes_max: int, rows_at_a_time: int
) -> Iterator[DictRow]:
    without_nested_loops(tx)
    with tx.cursor(name="bad_lines") as cursor:
        cursor.itersize = rows_at_a_time
        yield from cursor.execute(
            _SQL["bad_lines"], {"job_no": job_no, "raw_bytes_max": raw_bytes_max}
        )
