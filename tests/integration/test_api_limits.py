"""Rate limits and quotas, over HTTP."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from httpx import Response
from litestar.testing import TestClient

from api.auth import KeyRing
from api.http import requests
from api.http.bodies import parse
from blocks.settings import Settings
from blocks.store import customers, quotas
from blocks.store.database import Transaction
from blocks.store.quotas import Quota
from blocks.store.sessions import Session
from tests.support.api_world import JOB_BODY, Api, make_app
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

Limited = Callable[..., Api]


@pytest.fixture
def limited(
    api_settings: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Limited]:
    """Make an application with other settings, which counts anew for each request."""
    monkeypatch.setattr("blocks.store.quotas._RECOUNT_S", 0.0)
    monkeypatch.setattr("blocks.store.quotas._REFUSED_S", 0.0)
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
    another = api.bearer(api.shop.do(customers.add_customer_key, api.shop.customer_id))
    assert api.get("/v1/jobs", another).status_code == 429
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

    def noted_find(ring: KeyRing, key: str) -> Session | None:
        looked_up.append(key)
        return find(ring, key)

    monkeypatch.setattr(KeyRing, "find", noted_find)
    answers = [api.get("/v1/jobs", api.bearer(f"sk_{n}")) for n in range(6)]
    assert [each.status_code for each in answers] == [401, 401, 401, 429, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert looked_up == ["sk_0", "sk_1", "sk_2"]
    # A key that was good a moment ago is not shut out by others at its address.
    monkeypatch.setattr(KeyRing, "recall", lambda *_: None)
    assert api.get("/v1/jobs").status_code == 200
    assert len(looked_up) == 4


def test_zero_is_no_limit(limited: Limited) -> None:
    api = limited(requests_per_minute_max=0, wrong_keys_per_minute_max=0)
    answers = [api.get("/v1/jobs") for _ in range(9)]
    assert {each.status_code for each in answers} == {200}
    assert "ratelimit" not in answers[0].headers
    assert {api.get("/v1/jobs", api.bearer("sk_x")).status_code for _ in range(9)} == {401}


# Bodies


def test_bodies_are_counted_by_their_bytes_and_refused_ones_many_times(limited: Limited) -> None:
    api = limited(body_bytes_per_minute_max=100_000)
    small, large = task_body(), task_body(metadata={"x": "y" * 30_000})
    first = api.post("/v1/tasks", large)
    assert first.status_code == 202
    assert first.headers["ratelimit-policy"].endswith(', "body";q=100000;w=60;qu="content-bytes"')
    left = int(first.headers["ratelimit"].split('"body";r=')[1].split(";")[0])
    assert 69_000 < left < 70_000
    wrong = api.post("/v1/tasks", small | {"type": "x", "metadata": {"x": "y" * 3_000}})
    assert wrong.status_code == 400
    assert '"body";r=0;' in wrong.headers["ratelimit"]
    refused = api.post("/v1/tasks", small)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert "bytes of request bodies a minute" in refused.json()["error"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    # What has no body goes on, and so does everybody else.
    assert api.get("/v1/jobs").status_code == 200
    assert api.post("/v1/tasks", large, api.new_customer()).status_code == 202


def test_bodies_that_came_beside_refused_ones_are_not_looked_at(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = limited(body_bytes_per_minute_max=8 * 1024**2)
    parsed: list[int] = []

    def noted_parse(body: bytes, model: Any) -> Any:
        parsed.append(len(body))
        return parse(body, model)

    monkeypatch.setattr(requests, "parse", noted_parse)
    rubbish: dict[str, Any] = {"tasks": [{}] * 100_000}
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: api.post("/v1/tasks/batch", rubbish), range(8))]
    assert sorted(answer.status_code for answer in answers) == [400] + [429] * 7
    assert len(parsed) == 1


def test_a_body_whose_length_is_not_told_counts_as_the_largest(limited: Limited) -> None:
    api = limited(body_bytes_per_minute_max=5 * 1024**2)
    pieces = [iter([b"{", b"}"]) for _ in range(2)]
    answers = [api.client.post("/v1/jobs", content=p, headers=api.customer) for p in pieces]
    assert [answer.status_code for answer in answers] == [415, 429]


# Quotas


def codes(answers: list[Response]) -> list[str]:
    """The answers by code, or by status where they have none; every 429 says when to come again."""
    for answer in answers:
        assert answer.status_code != 429 or int(answer.headers["retry-after"]) > 0
    return [answer.json().get("code") or str(answer.status_code) for answer in answers]


def task_body(**more: Any) -> dict[str, Any]:
    label_spec = {"question": "What is it?", "options": OPTIONS}
    return {
        "type": "image_classification",
        "data_url": "https://a.example/1.jpg",
        "label_spec": label_spec,
        **more,
    }


def test_no_more_jobs_are_under_way_than_the_quota(limited: Limited) -> None:
    api = limited(jobs_per_customer_max=2)
    first = api.submit(**{"Idempotency-Key": "a"})
    assert codes([first, api.submit(), api.submit()]) == ["202", "202", "jobs_quota_exceeded"]
    assert "At most 2 of your jobs" in api.submit().json()["error"]
    again = api.submit(**{"Idempotency-Key": "a"})
    assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    assert len(api.get("/v1/jobs").json()["jobs"]) == 2
    # Another customer has a quota of their own, and a job that has ended leaves its place.
    assert api.post("/v1/jobs", JOB_BODY, api.new_customer()).status_code == 202
    assert api.post(f"/v1/jobs/{first.json()['job_id']}/cancel", {}).status_code == 202
    assert codes([api.submit(), api.submit()]) == ["202", "jobs_quota_exceeded"]


def test_no_more_tasks_wait_for_labels_than_the_quota(limited: Limited) -> None:
    api = limited(open_tasks_per_customer_max=5)
    batch = {"tasks": [task_body(), task_body(), task_body()]}
    keyed = task_body(idempotency_key="k")
    assert codes([api.post("/v1/tasks", keyed), api.post("/v1/tasks/batch", batch)]) == ["202"] * 2
    refused = api.post("/v1/tasks/batch", batch)
    assert codes([refused]) == ["open_tasks_quota_exceeded"]
    assert codes([api.submit(), api.post("/v1/tasks", task_body())]) == ["202"] * 2
    assert (
        codes([api.submit(), api.post("/v1/tasks", task_body())])
        == ["open_tasks_quota_exceeded"] * 2
    )
    assert api.post("/v1/tasks", keyed).status_code == 200  # it is there already
    api.shop.run("update chunks set settled = 1 where tasks > 0")
    assert codes([api.post("/v1/tasks", task_body())]) == ["202"]


def test_tasks_of_jobs_count_until_they_end(limited: Limited) -> None:
    api = limited(open_tasks_per_customer_max=3)
    job = api.shop.processing(make_chunk(3))
    assert codes([api.submit()]) == ["open_tasks_quota_exceeded"]
    assert api.post(f"/v1/jobs/{job.job_id}/cancel", {}).status_code == 202
    assert codes([api.submit()]) == ["202"]


def test_no_more_webhooks_are_registered_than_the_quota(limited: Limited) -> None:
    api = limited(webhooks_per_customer_max=2)
    urls = [{"callback_url": f"https://a.example/{n}"} for n in range(3)]
    answers = [api.post("/v1/webhooks", url) for url in urls]
    assert codes(answers) == ["201", "201", "webhooks_quota_exceeded"]
    path = f"/v1/webhooks/{answers[0].json()['webhook_id']}"
    assert api.client.delete(path, headers=api.customer).status_code == 204
    assert codes([api.post("/v1/webhooks", urls[2])]) == ["201"]


def test_no_more_is_stored_than_the_quota(limited: Limited) -> None:
    api = limited(stored_bytes_per_customer_max=1000)
    job = api.shop.processing(make_chunk(3))
    api.shop.run("update jobs set manifest_bytes = 800 where job_no = %s", job.job_no)
    task = task_body(data_url="https://a.example/?ö".ljust(199, "x"))  # 200 bytes in UTF-8
    assert codes([api.post("/v1/tasks", task)]) == ["202"]
    assert (
        codes([api.post("/v1/tasks", task_body()), api.submit()])
        == ["stored_bytes_quota_exceeded"] * 2
    )
    # A manifest of which nothing was kept does not count.
    api.shop.run("delete from chunks where job_no = %s", job.job_no)
    api.shop.run("update jobs set status = 'failed' where job_no = %s", job.job_no)
    assert codes([api.post("/v1/tasks", task_body())]) == ["202"]


def test_an_owner_has_so_many_keys(limited: Limited) -> None:
    api = limited(keys_per_owner_max=3)
    made = [api.post("/v1/keys", {}) for _ in range(3)]
    assert codes(made) == ["201", "201", "keys_quota_exceeded"]
    assert made[-1].headers["retry-after"] == "3600"
    revoked = api.client.delete(f"/v1/keys/{made[0].json()['key_id']}", headers=api.customer)
    assert revoked.status_code == 200
    # Rows of keys stay, so keys that are made and revoked again and again count for a day.
    assert codes([api.post("/v1/keys", {})]) == ["keys_quota_exceeded"]
    api.shop.run("update api_keys set created_at = now() - interval '2 days'")
    assert codes([api.post("/v1/keys", {})]) == ["201"]


def test_tasks_and_bytes_are_counted_now_and_then(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each inline task, which took 60 ms with 10,000 jobs under way."""
    monkeypatch.setattr("blocks.store.quotas._RECOUNT_S", 3600.0)
    monkeypatch.setattr("blocks.store.quotas._REFUSED_S", 3600.0)
    counted: list[Quota] = []

    def noted_count(tx: Transaction, customer_id: str, quota: Quota, most: int) -> int:
        counted.append(quota)
        return count(tx, customer_id, quota, most)

    count = quotas._count
    monkeypatch.setattr(quotas, "_count", noted_count)
    api = limited(open_tasks_per_customer_max=9)
    batch = {"tasks": [task_body(), task_body(), task_body()]}
    answers = [api.post("/v1/tasks/batch", batch) for _ in range(5)]
    assert codes(answers) == ["202"] * 3 + ["open_tasks_quota_exceeded"] * 2
    assert codes([api.submit()]) == ["open_tasks_quota_exceeded"]
    # What was refused was rolled back; it is counted once, since it might be out of date.
    assert sorted(counted) == [Quota.JOBS, Quota.OPEN_TASKS, Quota.STORED_BYTES]
    monkeypatch.setattr("blocks.store.quotas._REFUSED_S", 0.0)
    api.shop.run("update chunks set settled = 2 where tasks > 0")
    assert codes([api.post("/v1/tasks", task_body())]) == ["202"]
    assert counted.count(Quota.OPEN_TASKS) == 2


def test_manifests_that_say_they_are_endless_break_no_sum(limited: Limited) -> None:
    api = limited()
    for _ in range(2):
        job = api.shop.processing(make_chunk(3))
        most = "update jobs set manifest_bytes = 9223372036854775807 where job_no = %s"
        api.shop.run(most, job.job_no)
    assert (
        codes([api.submit(), api.post("/v1/tasks", task_body())])
        == ["stored_bytes_quota_exceeded"] * 2
    )


def test_requests_side_by_side_get_over_a_quota_by_no_more_than_themselves(
    limited: Limited,
) -> None:
    api = limited(jobs_per_customer_max=5)
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: api.submit(), range(60))]
    taken = [answer for answer in answers if answer.status_code == 202]
    assert 5 <= len(taken) < 5 + 8
    assert {answer.status_code for answer in answers} == {202, 429}
