"""What stands in the buckets of jobs that were delivered, for those who compare it."""

from collections.abc import Sequence

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("delivered_objects")


class RecordedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a delivery, as `manifest.json` lists it."""

    object_no: int
    """Its place in `manifest.json`, from 1 on."""
    key: str
    """Its name in the bucket."""
    rows: int
    """How many lines or rows it has."""
    bytes: int
    """Its size, as it is stored."""
    sha256: str
    """The SHA-256 of its bytes as they are stored, in hexadecimal digits."""


def record(tx: Transaction, job_no: int, objects: Sequence[tuple[str, int, int, str]]) -> None:
    """Record the objects of a delivery in order: key, rows, bytes, SHA-256 as hexadecimal digits.

    The transaction is the one that has finished the delivery.
    """
    values = {
        "job_no": job_no,
        "keys": [key for key, _, _, _ in objects],
        "rows": [rows for _, rows, _, _ in objects],
        "bytes": [size for _, _, size, _ in objects],
        "sha256": [bytes.fromhex(sha256) for _, _, _, sha256 in objects],
    }
    tx.execute(_SQL["record"], values)


def list_page(tx: Transaction, job_no: int, *, after: int, limit: int) -> list[RecordedObject]:
    """Return up to `limit` objects of a job's delivery that come after the number `after`."""
    rows = tx.execute(_SQL["list"], {"job_no": job_no, "after": after, "limit": limit})
    return [msgspec.convert(row, RecordedObject) for row in rows]
