"""Limits on bodies: how many bytes a customer or an annotator may send, and whose is parsed next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from litestar import Request

from api.http.rate_limits import BODY_BYTES, TokenBuckets, address_of, note_rate
from blocks.settings import Settings
from blocks.store.customers import Principal

_REFUSED_COST = 32
"""How many times a refused body counts: finding every fault takes longer than reading a right body, and
the sender of right bodies is slowed down by the tasks in them as well."""

_Request = Request[Principal, Any, Any]
_Owner = Principal | str


class BodyLimits:
    """Counts the bytes of bodies by the owner of their key, in one process, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._buckets = TokenBuckets(BODY_BYTES, settings.body_bytes_per_minute_max)
        self._bytes_max = settings.request_bytes_max
        self._turns: WeakValueDictionary[_Owner, asyncio.Lock] = WeakValueDictionary()

    def take(self, request: _Request) -> None:
        """Count a body before it is received; one of unknown length counts as the largest.

        Raises:
            ApiError: 429, it is more than what is left.
        """
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() else self._bytes_max
        if size <= self._bytes_max:  # a larger body is refused without being received
            note_rate(
                request.scope, self._buckets.take(_owner(request), size, limit=_limit(request))
            )

    def count_refused(self, request: _Request, size: int) -> None:
        """Count a body that was refused as many times more as it costs."""
        cost = size * (_REFUSED_COST - 1)
        rate = self._buckets.charge(_owner(request), cost, limit=_limit(request))
        note_rate(request.scope, rate)

    @asynccontextmanager
    async def turn(self, request: _Request) -> AsyncIterator[None]:
        """Wait until no other large body of the same customer or annotator is being parsed.

        So each of them has at most one body among those that wait for a thread, which take turns.

        Raises:
            ApiError: 429, refused bodies before this one have used up what was left.
        """
        lock = self._turns.setdefault(_owner(request), asyncio.Lock())
        async with lock:
            self._buckets.check(_owner(request), limit=_limit(request))
            yield


def _owner(request: _Request) -> _Owner:
    """Return whose request it is, or where it is from if nobody has to say who they are."""
    if "user" in request.scope:
        # Its limits may change: it is the same owner's bucket all the same.
        return msgspec.structs.replace(
            request.user, requests_per_minute_max=None, body_bytes_per_minute_max=None
        )
    return address_of(request)


def _limit(request: _Request) -> int | None:
    """Return the customer's own limit; None for the one of the settings."""
    if "user" in request.scope:
        return request.user.body_bytes_per_minute_max
    return None
