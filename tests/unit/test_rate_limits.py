"""Buckets of tokens, by a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http import rate_limits
from api.http.errors import ApiError
from api.http.rate_limits import (
    BODY_BYTES,
    REQUESTS,
    Rate,
    TokenBuckets,
    rate_headers,
    site_of,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(buckets: TokenBuckets, key: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        buckets.take(key)
    return caught.value


def test_what_is_over_the_limit_is_refused_until_the_time_that_is_told() -> None:
    clock = Clock()
    buckets = TokenBuckets(REQUESTS, 30, clock)
    assert [buckets.take("a").remaining for _ in range(30)] == [*reversed(range(30))]
    error = refusal(buckets, "a")
    assert (error.status, error.body.code) == (429, "rate_limited")
    assert "30 requests a minute" in error.body.error
    assert error.headers == {
        "Retry-After": "2",
        "RateLimit-Policy": '"key";q=30;w=60',
        "RateLimit": '"key";r=0;t=60',
    }
    assert buckets.take("b").remaining == 29
    clock.now += 2
    assert buckets.take("a").remaining == 0
    refusal(buckets, "a")


def test_to_check_takes_nothing() -> None:
    buckets = TokenBuckets(REQUESTS, 1, Clock())
    buckets.check("a")
    buckets.check("a")
    buckets.take("a")
    with pytest.raises(ApiError):
        buckets.check("a")


def test_zero_is_no_limit() -> None:
    buckets = TokenBuckets(REQUESTS, 0, Clock())
    for _ in range(100):
        buckets.take("a")
        buckets.check("a")


@given(st.lists(st.floats(0, 5), max_size=200))
def test_no_more_than_the_limit_and_a_share_of_the_time_gets_through(pauses: list[float]) -> None:
    clock = Clock()
    buckets = TokenBuckets(REQUESTS, 10, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        try:
            rate = buckets.take("a")
        except ApiError:
            continue
        taken += 1
        assert 0 <= rate.remaining < 10
        assert 0 < rate.reset_s <= 60
    assert taken <= 10 + sum(pauses) * 10 / 60 + 1


def test_no_more_buckets_are_kept_than_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_BUCKETS_MAX", 10)
    clock = Clock()
    buckets = TokenBuckets(REQUESTS, 2, clock)
    for n in range(100):
        clock.now += 0.001
        buckets.take(n)
        assert len(buckets._buckets) <= 10
    assert buckets.take(99).remaining == 0  # the newest is remembered


def test_wrong_keys_are_counted_by_address_and_by_network_in_ipv6() -> None:
    assert site_of("192.0.2.1") == "192.0.2.1"
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert site_of("2001:db8:0:1::1") != site_of("2001:db8::1")
    assert site_of("testclient") == "testclient"


def test_a_bucket_that_owes_refuses_until_it_has_enough() -> None:
    clock = Clock()
    buckets = TokenBuckets(BODY_BYTES, 600, clock)
    assert buckets.take("a", 500).remaining == 100
    assert buckets.charge("a", 10**9).remaining == 0
    with pytest.raises(ApiError) as caught:
        buckets.take("a", 100)
    assert caught.value.headers == {
        "Retry-After": "70",
        "RateLimit-Policy": '"body";q=600;w=60;qu="content-bytes"',
        "RateLimit": '"body";r=0;t=120',
    }
    assert "600 bytes of request bodies a minute" in caught.value.body.error
    with pytest.raises(ApiError):
        buckets.check("a")
    clock.now += 70
    buckets.check("a")
    assert buckets.take("a", 100).remaining == 0
    assert buckets.take("b", 700).remaining == 0  # more than there ever is: a full bucket does


def test_headers_are_structured_fields() -> None:
    requests, bodies = Rate(REQUESTS, 12, 5, 3), Rate(BODY_BYTES, 70, 7, 9)
    assert rate_headers(requests, bodies) == {
        "RateLimit-Policy": '"key";q=12;w=60, "body";q=70;w=60;qu="content-bytes"',
        "RateLimit": '"key";r=5;t=3, "body";r=7;t=9',
    }
