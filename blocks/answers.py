"""Bounds on what a store answers: how many bytes, for how long, and how many pages of a listing.

Who runs the store is anybody. Nothing that it sends may cost us more memory or time than was asked for.
"""

import hashlib
import re
from typing import Any

from aiohttp import ClientResponse, ClientTimeout

from blocks.errors import ContentEncodingRefused, ListingEndless, Transient

# All that is no range of an object: listings, errors, what is known of an object.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
# From the first byte sent to the last received. The largest request has 16 MiB: 56 kB a second.
REQUEST_S_MAX = 300.0
_PAGES_MAX = 10_000
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")
# S3 keeps the first of these for who uploads in signed chunks; the bytes are stored without it.
_HARMLESS_ENCODINGS = {"aws-chunked", "identity", ""}
_SUCCESS = range(200, 300)


class BoundedResponse(ClientResponse):
    """Reads no more than the range that was asked for, or `ANSWER_BYTES_MAX`, and else hangs up."""

    async def read(self) -> bytes:
        """Return the whole body, as it came.

        Raises:
            Transient: it is longer than it may be.
        """
        if self._body is None:
            bytes_max = self._bytes_max()
            body = bytearray()
            try:
                while block := await self.content.readany():
                    body += block
                    if len(body) > bytes_max:
                        raise Transient(f"The store sent more than {bytes_max} bytes.")
            except BaseException:
                self.close()
                raise
            self._body = bytes(body)
        return await super().read()

    def _bytes_max(self) -> int:
        asked = _RANGE.fullmatch(self.request_info.headers.get("Range", ""))
        if not asked or self.status not in _SUCCESS:
            return ANSWER_BYTES_MAX
        return int(asked[2]) - int(asked[1]) + 1


def time_limits(connect_s: float | None, read_s: float | None) -> ClientTimeout:
    """Return those of a request: for the connection, for each wait for bytes, and for the whole."""
    return ClientTimeout(total=REQUEST_S_MAX, sock_connect=connect_s, sock_read=read_s)


# aiohttp would ask for gzip, and unpack whatever says that it is.
GCS_SESSION: dict[str, Any] = {
    "auto_decompress": False,
    "headers": {"Accept-Encoding": "identity"},
    "response_class": BoundedResponse,
}


def check_encoding(encoding: str | None, path: str) -> None:
    """Pass if an object, or an answer with its bytes, has no encoding besides what it is.

    Raises:
        ContentEncodingRefused: what a reader gets would depend on who unpacks it.
    """
    names = {name.strip().lower() for name in (encoding or "").split(",")}
    if names <= _HARMLESS_ENCODINGS:
        return
    raise ContentEncodingRefused(
        f"{path} is stored with the Content-Encoding {encoding!r}, so that its bytes and its ranges "
        "depend on who unpacks it. Store it without one; a compressed manifest is known by its name "
        "(.gz, .zst)."
    )


class Pages:
    """Counts the pages of one listing."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def turn(self, token: str) -> None:
        """Pass if the page that `token` names may be asked for.

        Raises:
            ListingEndless: it was asked for before, or it would be one too many.
        """
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        if digest in self._seen:
            raise ListingEndless(
                "The store's listing comes back to a page that it has given before."
            )
        if len(self._seen) >= _PAGES_MAX:
            raise ListingEndless(f"The store's listing has more than {_PAGES_MAX:,} pages.")
        self._seen.add(digest)
