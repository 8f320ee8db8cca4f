"""What the rest of us know of a bucket, whatever store it is in.

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
        """Size and version of an object."""

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of the pinned version; `ObjectChanged` if it is gone."""

    def write(self, key: str) -> AbstractContextManager["ObjectFile"]:
        """A file whose content becomes the object, replacing any, if the block ends well.

        What arrived is checked against what was sent, by the store's own checksums where they can be
        told beforehand, and else by reading it back.
        """

    def console_url(self, prefix: str) -> str | None:
        """Where a browser shows the objects below `prefix`; None where that is not known."""

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        """A new object; `ObjectExists` if there is one with other content.

        Return False if the store has taken no notice of the condition: it was tried again, and has
        written again. A store that cannot write on condition raises `NotSupported`. Without the
        condition it is asked what stands there, and then written to: of two at the same moment, the
        last one stays.
        """

    def probe_write(self, key: str) -> None:
        """Pass if a delivery could write there: try what it will do, and remove what that made.

        An empty object stays if the credentials may write, but not delete.
        """

    def entries(self, prefix: str, *, seconds_max: float = LISTING_S_MAX) -> Iterator["Entry"]:
        """The objects whose keys begin with `prefix`, by their names; a page at a time is asked for.

        After `seconds_max` no further page is asked for, and `Transient` raised.
        """

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""

    def abort_uploads(self, prefix: str) -> None:
        """Remove what unfinished uploads have left below `prefix`, where the store keeps such."""


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
