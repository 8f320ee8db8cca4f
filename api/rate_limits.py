"""How often a key may ask, and an address may try wrong keys. Counted in memory, by each process."""

import ipaddress
import math
from collections.abc import Callable, Hashable
from time import monotonic
from typing import NamedTuple

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import Message, Scope

from api.errors import ApiError, too_many_requests

WINDOW_S = 60
_STATE = "rate"
_BUCKETS_MAX = 10_000
_IPV6_SITE_BITS = 64  # what one customer of a provider has at the least


class Rate(NamedTuple):
    """What is left of `limit` requests, and in how many seconds all of them are there again."""

    limit: int
    remaining: int
    reset_s: int


class TokenBuckets:
    """A bucket for each of many keys: `limit` tokens at first, and as many more a minute.

    With a limit of 0 nothing is refused. Not for several threads at once.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # tokens, and when that was so

    def take(self, key: Hashable) -> Rate:
        """Take a token, and return what is left.

        Raises:
            ApiError: 429, there is none.
        """
        if not self._limit:
            return Rate(0, 0, 0)
        tokens = self._tokens(key)
        if tokens < 1:
            raise self._refusal(tokens)
        if len(self._buckets) >= _BUCKETS_MAX and key not in self._buckets:
            self._forget()
        self._buckets[key] = (tokens - 1, self._clock())
        return self._rate(tokens - 1)

    def check(self, key: Hashable) -> None:
        """Take nothing.

        Raises:
            ApiError: 429, there is no token.
        """
        if self._limit and (tokens := self._tokens(key)) < 1:
            raise self._refusal(tokens)

    def _tokens(self, key: Hashable) -> float:
        tokens, at = self._buckets.get(key, (float(self._limit), 0.0))
        return min(self._limit, tokens + (self._clock() - at) * self._limit / WINDOW_S)

    def _rate(self, tokens: float) -> Rate:
        missing = self._limit - tokens
        return Rate(self._limit, int(tokens), math.ceil(missing * WINDOW_S / self._limit))

    def _refusal(self, tokens: float) -> ApiError:
        retry_after_s = math.ceil((1 - tokens) * WINDOW_S / self._limit)
        message = f"This is more than {self._limit:,} requests a minute; try again later."
        return too_many_requests(
            "rate_limited", message, retry_after_s, rate_headers(self._rate(tokens))
        )

    def _forget(self) -> None:
        """Drop the full buckets, which are as good as none; or the oldest half, if all are in use."""
        used = {k: v for k, v in self._buckets.items() if self._tokens(k) < self._limit}
        if len(used) > _BUCKETS_MAX // 2:
            newest = sorted(used, key=lambda k: used[k][1])[-_BUCKETS_MAX // 2 :]
            used = {k: used[k] for k in newest}
        self._buckets = used


def address_of(host: str) -> str:
    """What wrong keys are counted for: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_SITE_BITS), strict=False))
    return host


def rate_headers(rate: Rate) -> dict[str, str]:
    """The fields `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10."""
    return {
        "RateLimit-Policy": f'"key";q={rate.limit};w={WINDOW_S}',
        "RateLimit": f'"key";r={rate.remaining};t={rate.reset_s}',
    }


def note_rate(scope: Scope, rate: Rate) -> None:
    """Remember `rate` for the answer's headers."""
    if rate.limit:
        scope["state"][_STATE] = rate


async def add_rate_headers(message: Message, scope: Scope) -> None:
    """Litestar's `before_send`: say in every answer to a good key what is left to it."""
    if scope["type"] != ScopeType.HTTP or message["type"] != "http.response.start":
        return
    rate = scope["state"].get(_STATE)
    if rate:
        headers = MutableScopeHeaders.from_message(message)
        for name, value in rate_headers(rate).items():
            headers.setdefault(name, value)
