"""Limits on requests of a key, and on wrong keys of an address, counted in memory by each process."""

import ipaddress
import math
from collections.abc import Callable, Hashable, Mapping
from time import monotonic
from typing import Any, NamedTuple

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import Message, Scope

from api.http.errors import ApiError, too_many_requests

WINDOW_S = 60
_STATE = "rate"
_BUCKETS_MAX = 10_000
_IPV6_SITE_BITS = 64  # a provider gives each customer a network of this size or a larger one


class Policy(NamedTuple):
    """A kind of bucket: its name and quota unit in headers, and what a token is, in words."""

    name: str
    unit: str
    words: str


REQUESTS = Policy("key", "requests", "requests")
BODY_BYTES = Policy("body", "content-bytes", "bytes of request bodies")


class Rate(NamedTuple):
    """The state of a bucket: tokens that are left of `limit`, and seconds until it is full again."""

    policy: Policy
    limit: int
    remaining: int
    reset_s: int


class _Bucket(NamedTuple):
    tokens: float
    at_s: float
    limit: int


class TokenBuckets:
    """A bucket for each of many keys: `limit` tokens at first, and as many more a minute.

    With a limit of 0 nothing is refused. A key may have another limit, which comes with each call and
    may change. Only one thread may use it.
    """

    def __init__(self, policy: Policy, limit: int, clock: Callable[[], float] = monotonic) -> None:
        self._policy = policy
        self._limit = limit
        self._clock = clock
        self._buckets: dict[Hashable, _Bucket] = {}

    def take(self, key: Hashable, cost: int = 1, *, limit: int | None = None) -> Rate:
        """Take `cost` tokens, or all of a full bucket where that is fewer, and return what is left.

        Raises:
            ApiError: 429, there are fewer.
        """
        limit = self._limit if limit is None else limit
        if not limit:
            return Rate(self._policy, 0, 0, 0)
        cost = min(cost, limit)
        tokens = self._tokens(key, limit)
        if tokens < cost:
            raise self._refusal(tokens, cost, limit)
        return self._keep(key, tokens - cost, limit)

    def charge(self, key: Hashable, cost: int, *, limit: int | None = None) -> Rate:
        """Take `cost` tokens after the fact: the bucket may owe as many as it can hold."""
        limit = self._limit if limit is None else limit
        if not limit:
            return Rate(self._policy, 0, 0, 0)
        return self._keep(key, max(self._tokens(key, limit) - cost, -limit), limit)

    def check(self, key: Hashable, *, limit: int | None = None) -> None:
        """Pass if there is a token, and take none.

        Raises:
            ApiError: 429, there is none.
        """
        limit = self._limit if limit is None else limit
        if limit and (tokens := self._tokens(key, limit)) < 1:
            raise self._refusal(tokens, 1, limit)

    def _keep(self, key: Hashable, tokens: float, limit: int) -> Rate:
        if len(self._buckets) >= _BUCKETS_MAX and key not in self._buckets:
            self._forget()
        self._buckets[key] = _Bucket(tokens, self._clock(), limit)
        return self._rate(tokens, limit)

    def _tokens(self, key: Hashable, limit: int) -> float:
        tokens, at, _ = self._buckets.get(key, (float(limit), 0.0, limit))
        return min(limit, tokens + (self._clock() - at) * limit / WINDOW_S)

    def _rate(self, tokens: float, limit: int) -> Rate:
        missing = limit - tokens
        reset_s = math.ceil(missing * WINDOW_S / limit)
        return Rate(self._policy, limit, max(int(tokens), 0), reset_s)

    def _refusal(self, tokens: float, cost: int, limit: int) -> ApiError:
        retry_after_s = math.ceil((cost - tokens) * WINDOW_S / limit)
        headers = rate_headers(self._rate(tokens, limit))
        return rate_limited(self._policy, limit, retry_after_s, headers)

    def _forget(self) -> None:
        """Drop the full buckets, which say nothing; if more than half are in use, the oldest as well."""
        used = {k: v for k, v in self._buckets.items() if self._tokens(k, v.limit) < v.limit}
        if len(used) > _BUCKETS_MAX // 2:
            newest = sorted(used, key=lambda k: used[k].at_s)[-_BUCKETS_MAX // 2 :]
            used = {k: used[k] for k in newest}
        self._buckets = used


def rate_limited(
    policy: Policy, limit: int, retry_after_s: int, headers: Mapping[str, str] | None = None
) -> ApiError:
    """Return a 429 for an empty bucket."""
    message = f"This is more than {limit:,} {policy.words} a minute; try again later."
    return too_many_requests("rate_limited", message, retry_after_s, headers)


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Return what a request is counted for where nobody has said whose it is."""
    return site_of(connection.client.host if connection.client else "")


def site_of(host: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_SITE_BITS), strict=False))
    return host


def rate_headers(*rates: Rate) -> dict[str, str]:
    """Return `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10."""
    policies = [f'"{r.policy.name}";q={r.limit};w={WINDOW_S}{_unit(r.policy)}' for r in rates]
    left = [f'"{r.policy.name}";r={r.remaining};t={r.reset_s}' for r in rates]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


def _unit(policy: Policy) -> str:
    # Requests are the default of the draft.
    return "" if policy is REQUESTS else f';qu="{policy.unit}"'


def note_rate(scope: Scope, rate: Rate) -> None:
    """Remember `rate` for the answer's headers, in place of an earlier one of its policy."""
    if rate.limit:
        scope["state"].setdefault(_STATE, {})[rate.policy.name] = rate


async def add_rate_headers(message: Message, scope: Scope) -> None:
    """Say in every answer to a good key what is left to it. Litestar's `before_send`."""
    if scope["type"] != ScopeType.HTTP or message["type"] != "http.response.start":
        return
    rates = scope["state"].get(_STATE)
    if rates:
        headers = list(message["headers"])
        if not any(name == b"ratelimit" for name, _ in headers):  # a 429 has them already
            more = rate_headers(*rates.values()).items()
            headers += [(name.lower().encode(), value.encode()) for name, value in more]
            message["headers"] = headers
