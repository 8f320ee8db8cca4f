"""Bounds on what a store answers: how many bytes, for how long, and how many pages of a listing.

Anybody may run a store. Nothing that it sends may cost us more memory or time than was asked for.
"""

import hashlib
import re
from time import monotonic
from typing import Any, Self

from aiohttp import ClientResponse, ClientTimeout
from aiohttp.connector import Connection

from blocks.domain.errors import ContentEncodingRefused, ListingEndless, Transient

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
# A page of a listing: a thousand keys of a thousand characters, percent-encoded, are 3 MB.
_LISTING_BYTES_MAX = 4 * 1024 * 1024
# All other answers but ranges of objects: errors, and the metadata of an object.
_ANSWER_BYTES_MAX = 64 * 1024
# From the first byte sent to the last received. The largest request has 16 MiB: 56 kB a second.
REQUEST_S_MAX = 300.0
# A store that sends less for so long is as good as away.
_BYTES_PER_S_MIN = 16 * 1024
_SLOW_S_MAX = 60.0
_INTERIM_MAX = 8
_PAGES_MAX = 10_000
LISTING_S_MAX = 3600.0
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")
# S3 keeps the first of these for uploads in signed chunks; the bytes are stored without it.
_HARMLESS_ENCODINGS = {"aws-chunked", "identity", ""}
_INTERIM = range(100, 200)
_SUCCESS = range(200, 300)
_ENCODING_SHOWN = 100


class BoundedResponse(ClientResponse):
    """A response that reads no more than was asked for, and not for long where little comes."""

    async def start(self, connection: Connection) -> Self:
        """Wait for the status and the headers.

        Raises:
            Transient: interim answers (1xx) come instead, one after the other.
        """
        protocol: Any = connection.protocol
        read, left = protocol.read, _INTERIM_MAX

        async def read_bounded() -> Any:
            nonlocal left
            message = await read()
            left -= message[0].code in _INTERIM
            if not left:
                connection.close()
                raise Transient("The store sends interim answers (1xx) without an end.")
            return message

        protocol.read = read_bounded  # aiohttp itself passes over any number of them
        try:
            await super().start(connection)
        finally:
            del protocol.read
        return self

    async def read(self) -> bytes:
        """Return the whole body, as it came.

        Raises:
            Transient: it is longer than it may be, or comes too slowly.
        """
        if self._body is None:
            bytes_max = self._bytes_max()
            body = bytearray()
            pace = _Pace()
            try:
                while block := await self.content.readany():
                    body += block
                    if len(body) > bytes_max:
                        raise Transient(f"The store sent more than {bytes_max} bytes.")
                    pace.check(len(body))
            except BaseException:
                self.close()
                raise
            self._body = bytes(body)
        return await super().read()

    def _bytes_max(self) -> int:
        asked = _RANGE.fullmatch(self.request_info.headers.get("Range", ""))
        if self.status not in _SUCCESS:
            return _ANSWER_BYTES_MAX
        if asked:
            return int(asked[2]) - int(asked[1]) + 1
        return _LISTING_BYTES_MAX if self.method == "GET" else _ANSWER_BYTES_MAX


class _Pace:
    """The pace of a body, measured once in `_SLOW_S_MAX` seconds."""

    def __init__(self) -> None:
        self._since_s, self._bytes = monotonic(), 0

    def check(self, received: int) -> None:
        """Pass if enough of a body came since the last time; `received` are its bytes so far.

        Raises:
            Transient: it is less than `_BYTES_PER_S_MIN`.
        """
        took_s = monotonic() - self._since_s
        if took_s < _SLOW_S_MAX:
            return
        if received - self._bytes < took_s * _BYTES_PER_S_MIN:
            slowest = f"{_BYTES_PER_S_MIN // 1024} KiB a second"
            raise Transient(f"The store sent less than {slowest} for {took_s:.0f} s.")
        self._since_s, self._bytes = monotonic(), received


def time_limits(connect_s: float | None, read_s: float | None, request_s: float) -> ClientTimeout:
    """Return the limits of a request: for the connection, for each wait for bytes, and for all of it."""
    return ClientTimeout(total=request_s, sock_connect=connect_s, sock_read=read_s)


# By default aiohttp asks for gzip, and unpacks whatever says that it is.
GCS_SESSION: dict[str, Any] = {
    "auto_decompress": False,
    "headers": {"Accept-Encoding": "identity"},
    "response_class": BoundedResponse,
}


def check_encoding(encoding: str | None, path: str) -> None:
    """Pass if an object, or an answer with its bytes, has no Content-Encoding.

    Raises:
        ContentEncodingRefused: it has one, and its bytes would depend on who unpacks it.
    """
    names = {name.strip().lower() for name in (encoding or "").split(",")}
    if names <= _HARMLESS_ENCODINGS:
        return
    shown = (encoding or "")[:_ENCODING_SHOWN]
    raise ContentEncodingRefused(
        f"{path} is stored with the Content-Encoding {shown!r}, so that its bytes and its ranges "
        "depend on who unpacks it. Store it without one; a compressed manifest is known by its name "
        "(.gz, .zst)."
    )


class Pages:
    """A counter of the pages of one listing, and of its time."""

    def __init__(self, seconds_max: float = LISTING_S_MAX) -> None:
        self._seen: set[bytes] = set()
        self._seconds_max = seconds_max
        self._ends_s = monotonic() + seconds_max

    def turn(self, token: str) -> None:
        """Pass if the page that `token` names may be asked for.

        Raises:
            ListingEndless: it was asked for before, or it would be one too many.
            Transient: the listing takes too long.
        """
        if monotonic() > self._ends_s:
            raise Transient(f"The store's listing took longer than {self._seconds_max:,.0f} s.")
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        if digest in self._seen:
            raise ListingEndless(
                "The store's listing comes back to a page that it has given before."
            )
        if len(self._seen) >= _PAGES_MAX:
            raise ListingEndless(f"The store's listing has more than {_PAGES_MAX:,} pages.")
        self._seen.add(digest)
