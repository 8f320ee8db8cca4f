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
    tx.execute_later(_SQL["record"], {"digest": digest, "text": text})
    return digest


def read(tx: Transaction, digest: bytes | None) -> str | None:
    """Return the text of that digest; None for None."""
    if digest is None:
        return None
    row = tx.execute(_SQL["read"], {"digest": digest}).fetchone()
    assert row is not None  # a job refers to it
    text: str = row["text"]
    return text


def version_of(digest: bytes | None) -> str | None:
    """Return the version that people and programs are told: it changes with the text."""
    return None if digest is None else digest[:_VERSION_BYTES].hex()
