"""Check the answers of a store, which may say anything."""

import hashlib
from typing import Any

from blocks.buckets.protocol import Bucket, ObjectFile
from blocks.domain.errors import StoreAnswerInvalid, Transient
from blocks.domain.model import Pin

_READ_BACK_BYTES = 16 * 1024 * 1024


def pin_of(size: Any, version: Any) -> Pin:
    """Return the pin of an object by what a store says of it.

    Raises:
        StoreAnswerInvalid: it does not say how long the object is, or of which version.
    """
    if not str(size).isdecimal() or not version:
        missing = "version (ETag)" if str(size).isdecimal() else "length"
        raise StoreAnswerInvalid(f"The store's answer does not tell the {missing} of the object.")
    return Pin(int(size), str(version))


def check_bytes(bucket: Bucket, key: str, pin: Pin, sent: ObjectFile) -> None:
    """Read an object back, and compare it with what was sent.

    Raises:
        Transient: it has other bytes.
    """
    found = hashlib.sha256()
    if pin.size == sent.size:
        for start in range(0, pin.size, _READ_BACK_BYTES):
            end = min(start + _READ_BACK_BYTES, pin.size)
            found.update(bucket.read(key, pin, start, end))
    if pin.size != sent.size or found.hexdigest() != sent.sha256:
        raise Transient(f"{key} holds other bytes than were sent.")


def has_bytes(bucket: Bucket, key: str, data: bytes) -> bool:
    """Return True if an object has exactly these bytes."""
    pin = bucket.stat(key)
    return pin.size == len(data) and (not data or bucket.read(key, pin, 0, pin.size) == data)


def check_range(content_range: str | None, start: int) -> None:
    """Raise Transient unless the store says that its bytes begin at `start`."""
    if not (content_range or "").startswith(f"bytes {start}-"):
        raise Transient("The store sent something else than the range that was asked for.")


def check_length(data: bytes, start: int, end: int) -> bytes:
    """Return `data`, or raise Transient unless it has the bytes from `start` to `end`."""
    if len(data) != end - start:
        raise Transient(f"The store sent {len(data)} bytes where {end - start} were asked for.")
    return data
