"""The interface of a bucket, whatever store it is in.

Every failure leaves here as `Transient` or `Terminal`, with a sentence for the customer.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

import msgspec

from blocks.buckets.answers import LISTING_S_MAX
from blocks.domain.model import Pin


class Bucket(Protocol):
    """One bucket. Every method raises `Transient` or a kind of `Terminal`."""

    def stat(self, key: str) -> Pin:
        """Return the size in bytes and the version of an object."""

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        """Return bytes from `start` up to `end` of the pinned version; `ObjectChanged` if it is gone."""

    def write(self, key: str) -> AbstractContextManager["ObjectFile"]:
        """Yield a file whose content becomes the object, replacing any, if the block ends well.

        The stored bytes are checked against those that were sent, by the store's own checksums where
        these can be computed beforehand, and else by reading the object back.
        """

    def console_url(self, prefix: str) -> str | None:
        """Return where a browser shows the objects below `prefix`; None where that is not known."""

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        """Create an object; raise `ObjectExists` if there is one with other content.

        Return False if the store ignores the condition: a second attempt has written again. A store
        that cannot write on condition raises `NotSupported`. Without the condition, the store is asked
        whether an object stands there, and then written to: of two writers at the same moment, the last
        one wins.
        """

    def probe_write(self, key: str) -> None:
        """Pass if a delivery could write there: try what it will do, and remove the traces.

        An empty object stays if the credentials may write, but not delete.
        """

    def entries(self, prefix: str, *, seconds_max: float = LISTING_S_MAX) -> Iterator["Entry"]:
        """Yield the objects whose keys begin with `prefix`, by their names, asking page by page.

        Raise `Transient` instead of asking for another page after `seconds_max` seconds.
        """

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""

    def abort_uploads(self, prefix: str) -> None:
        """Remove unfinished uploads below `prefix`, where the store keeps such."""


class Entry(msgspec.Struct, frozen=True):
    """One object of a listing."""

    key: str
    pin: Pin
    modified_at: datetime


class ObjectFile(Protocol):
    """An object that is being written: its length and its SHA-256 so far."""

    @property
    def size(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def write(self, data: Any, /) -> int:
        """Add to it."""
