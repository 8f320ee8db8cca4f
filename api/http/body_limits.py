"""How many bytes of bodies a customer or an annotator may send, and whose body is parsed next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from litestar import Request

from api.http.rate_limits import BODY_BYTES, TokenBuckets, note_rate
from blocks.settings import Settings
from blocks.store.customers import Principal

_REFUSED_COST = 32
"""How many times a body counts that is refused: to find every fault takes longer than to read what
is right, and who sends right bodies has their tasks to wait for as well."""

_Request = Request[Principal, Any, Any]


class BodyLimits:
    """The bytes of bodies, by whose key they come with, in one process. For one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._buckets = TokenBuckets(BODY_BYTES, settings.body_bytes_per_minute_max)
        self._bytes_max = settings.request_bytes_max
        self._turns: WeakValueDictionary[Principal, asyncio.Lock] = WeakValueDictionary()

    def take(self, request: _Request) -> None:
        """Count a body before it is received; as the largest one where its length is not told.

        Raises:
            ApiError: 429, it is more than what is left.
        """
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() else self._bytes_max
        if size <= self._bytes_max:  # a larger one is not received
            note_rate(request.scope, self._buckets.take(request.user, size))

    def count_refused(self, request: _Request, size: int) -> None:
        """Count a body that was looked at for nothing, once more."""
        rate = self._buckets.charge(request.user, size * (_REFUSED_COST - 1))
        note_rate(request.scope, rate)

    @asynccontextmanager
    async def turn(self, request: _Request) -> AsyncIterator[None]:
        """Wait until no other large body of the same customer or annotator is parsed.

        So each of them has one body at most among those that wait for a thread, and these go in turn.

        Raises:
            ApiError: 429, bodies before this one were refused, and nothing is left.
        """
        lock = self._turns.setdefault(request.user, asyncio.Lock())
        async with lock:
            self._buckets.check(request.user)
            yield
