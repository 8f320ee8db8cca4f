"""What comes out of a job: its settled tasks, and its bad lines."""

from collections.abc import Iterator

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("results")

_BLOCK_BYTES = 256 * 1024
_RAW_BYTES_SHOWN = 1024


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


def export(tx: Transaction, job_no: int, *, after: int = 0) -> Iterator[bytes]:
    """Blocks of whole JSON lines, each line a settled task, from manifest line `after` + 1 on."""
    tx.execute(_SQL["without_nested_loops"])
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


def errors(tx: Transaction, job_no: int) -> Iterator[bytes]:
    """Blocks of whole JSON lines, each a bad line, in manifest order."""
    block = bytearray()
    for line in bad_lines(tx, job_no):
        block += line.to_json()
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def bad_lines(tx: Transaction, job_no: int) -> Iterator[NumberedBadLine]:
    """The bad lines in manifest order, read in small batches; of `raw` the first 1 KiB."""
    values = {"job_no": job_no, "raw_bytes_shown": _RAW_BYTES_SHOWN}
    tx.execute(_SQL["without_nested_loops"])
    with tx.cursor(name="bad_lines") as cursor:
        cursor.itersize = 1000
        for row in cursor.execute(_SQL["bad_lines"], values):
            yield NumberedBadLine(**row)
