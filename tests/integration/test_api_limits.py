"""Rate limits and quotas, over HTTP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from api.auth import KeyRing
from blocks.settings import Settings
from blocks.store.customers import Principal
from tests.integration.conftest import Api, Shop, make_app

pytestmark = pytest.mark.integration

Limited = Callable[..., Api]


@pytest.fixture
def limited(api_settings: Settings, shop: Shop) -> Iterator[Limited]:
    """Make an application with other settings."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Api:
            settings = msgspec.structs.replace(api_settings, **changes)
            return Api(stack.enter_context(TestClient(make_app(settings))), shop)

        yield make


# Rates


def test_a_key_that_asks_too_often_is_told_when_to_come_again(limited: Limited) -> None:
    api = limited(requests_per_minute_max=3)
    answers = [api.get("/v1/jobs") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    assert [each.headers["ratelimit"][:9] for each in answers] == [
        '"key";r=2', '"key";r=1', '"key";r=0', '"key";r=0',
    ]  # fmt: skip
    assert {each.headers["ratelimit-policy"] for each in answers} == {'"key";q=3;w=60'}
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert answers[-1].json()["code"] == "rate_limited"
    assert api.get("/v1/jobs", api.new_customer()).status_code == 200
    assert api.client.get("/health/live").status_code == 200
    assert "ratelimit" not in api.client.get("/health/live").headers


def test_what_is_left_is_told_with_errors_too(limited: Limited) -> None:
    api = limited(requests_per_minute_max=9)
    statuses = [api.get("/v1/jobs/x"), api.get("/v1/jobs?limit=x"), api.post("/v1/jobs", {})]
    assert [each.status_code for each in statuses] == [404, 400, 400]
    assert [each.headers["ratelimit"][:9] for each in statuses] == [
        '"key";r=8', '"key";r=7', '"key";r=6',
    ]  # fmt: skip


def test_an_address_with_too_many_wrong_keys_is_refused_without_a_query(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = limited(wrong_keys_per_minute_max=3)
    assert api.get("/v1/jobs").status_code == 200
    looked_up: list[str] = []
    find = KeyRing.find

    def noted_find(ring: KeyRing, key: str) -> Principal | None:
        looked_up.append(key)
        return find(ring, key)

    monkeypatch.setattr(KeyRing, "find", noted_find)
    answers = [api.get("/v1/jobs", api.bearer(f"sk_{n}")) for n in range(6)]
    assert [each.status_code for each in answers] == [401, 401, 401, 429, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert looked_up == ["sk_0", "sk_1", "sk_2"]
    # A key that was good a moment ago is not shut out by others at its address.
    monkeypatch.setattr(KeyRing, "trusted", lambda *_: None)
    assert api.get("/v1/jobs").status_code == 200
    assert len(looked_up) == 4


def test_zero_is_no_limit(limited: Limited) -> None:
    api = limited(requests_per_minute_max=0, wrong_keys_per_minute_max=0)
    answers = [api.get("/v1/jobs") for _ in range(9)]
    assert {each.status_code for each in answers} == {200}
    assert "ratelimit" not in answers[0].headers
    assert {api.get("/v1/jobs", api.bearer("sk_x")).status_code for _ in range(9)} == {401}
