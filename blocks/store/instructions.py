"""What annotators read before they label: a text is stored once, and jobs have its digest."""

import hashlib

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("instructions")

_VERSION_BYTES = 8


def record(tx: Transaction, text: str | None) -> bytes | None:
    """Store a text, unless it is stored already; return its digest, None for None."""
    if text is None:
        return None
    digest = hashlib.sha256(text.encode()).digest()
    # Housekeeping deletes texts that no job has; one that it has just deleted is stored again.
    is_held = False
    while not is_held:
        tx.execute_later(_SQL["record"], {"digest": digest, "text": text})
        is_held = tx.execute(_SQL["hold"], {"digest": digest}).fetchone() is not None
    return digest


def read(tx: Transaction, digest: bytes | None) -> str | None:
    """Return the text of that digest; None for None, and after the deletion of its last job."""
    if digest is None:
        return None
    row = tx.execute(_SQL["read"], {"digest": digest}).fetchone()
    return row["text"] if row else None


def version_of(digest: bytes | None) -> str | None:
    """Return the version that people and programs are told: it changes with the text."""
    return None if digest is None else digest[:_VERSION_BYTES].hex()
