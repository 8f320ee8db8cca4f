"""What an annotator holds, when the answer to a claim was lost."""

from typing import Any

import pytest

from tests.support.api_world import Api
from tests.support.side import at_once
from tests.support.store_shop import make_chunk

pytestmark = pytest.mark.integration


def claim(api: Api, key: str | None, headers: dict[str, str] | None = None, **body: Any) -> Any:
    headers = {**(headers or api.annotator), **({"Idempotency-Key": key} if key else {})}
    return api.post("/v1/annotation/claim", {"limit": 3} | body, headers)


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [task["task_id"] for task in answer.json()["tasks"]]


def held(api: Api, headers: dict[str, str] | None = None) -> list[str]:
    return ids(api.get("/v1/annotation/leases", headers or api.annotator))


def label(api: Api, *task_ids: str) -> None:
    labels = [{"task_id": each, "label": "cat"} for each in task_ids]
    answer = api.post("/v1/annotation/labels", {"labels": labels}, api.annotator)
    assert {each["outcome"] for each in answer.json()["results"]} == {"accepted"}


def test_a_claim_of_the_same_key_gives_the_same_tasks(api: Api) -> None:
    # So that one claim takes of several jobs, and of chunks and of vacancies.
    for _ in range(2):
        api.shop.processing(make_chunk(2), make_chunk(2, start=10_000))
    other = api.new_annotator()
    released = ids(claim(api, None, other, limit=3))
    api.post("/v1/annotation/release", {"task_ids": released}, other)
    first = claim(api, "one", limit=7)
    again = claim(api, "one", limit=7)
    assert len(ids(first)) == 7
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert sorted(held(api)) == sorted(ids(first))
    assert set(ids(claim(api, "two"))).isdisjoint(ids(first))
    assert set(ids(claim(api, None))).isdisjoint(ids(first))


def test_a_key_is_its_annotator_s_own(api: Api) -> None:
    api.shop.processing(make_chunk(6), consensus_threshold=2)
    first, other = claim(api, "one"), claim(api, "one", api.new_annotator())
    assert "Idempotent-Replayed" not in other.headers
    assert ids(claim(api, "one")) == ids(first)


def test_a_key_that_asks_for_something_else_is_a_conflict(api: Api) -> None:
    api.shop.processing(make_chunk(6))
    first = claim(api, "one")
    refused = claim(api, "one", limit=2)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    assert ids(claim(api, "one")) == ids(first)


def test_what_was_labelled_or_released_is_not_given_again(api: Api) -> None:
    api.shop.processing(make_chunk(6))
    first, second, third = ids(claim(api, "one"))
    label(api, first)
    api.post("/v1/annotation/release", {"task_ids": [second]}, api.annotator)
    assert ids(claim(api, "one")) == [third] == held(api)
    label(api, third)
    fresh = claim(api, "one")
    assert "Idempotent-Replayed" not in fresh.headers
    assert third not in ids(fresh)


def test_a_key_ends_with_its_lease(api: Api) -> None:
    api.shop.processing(make_chunk(6))
    first = claim(api, "one")
    api.shop.expire_leases()
    assert held(api) == []
    assert "Idempotent-Replayed" not in claim(api, "one").headers
    assert len(ids(first)) == 3


def test_claims_of_one_key_at_once_are_one_claim(api: Api) -> None:
    api.shop.processing(make_chunk(40))
    answers = at_once(*[lambda: claim(api, "one")] * 6)
    assert len({answer.content for answer in answers}) == 1
    assert len(held(api)) == 3


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_a_length(api: Api, key: str) -> None:
    headers = {**api.annotator, "Idempotency-Key": key}
    answer = api.post("/v1/annotation/claim", {"limit": 1}, headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_what_is_held_is_listed_page_by_page_as_it_was_claimed(api: Api) -> None:
    jobs = [api.shop.processing(make_chunk(4)) for _ in range(2)]
    claimed = {
        task["task_id"]: task
        for job in jobs
        for task in claim(api, None, limit=4, job_id=job.job_id).json()["tasks"]
    }
    assert len(claimed) == 8
    claim(api, None, api.new_annotator(), limit=8)
    listed: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = api.get(f"/v1/annotation/leases?limit=3{cursor}", api.annotator).json()
        assert len(page["tasks"]) <= 3
        listed += page["tasks"]
        if page["next_cursor"] is None:
            break
        # A task that is labelled meanwhile shifts nothing.
        label(api, page["tasks"][-1]["task_id"])
        cursor = f"&cursor={page['next_cursor']}"
    assert {task["task_id"]: task for task in listed} == claimed
    assert len(listed) == 8


def test_of_jobs_that_have_ended_nothing_is_held(api: Api) -> None:
    job = api.shop.processing(make_chunk(4))
    claim(api, "one")
    assert api.post(f"/v1/jobs/{job.job_id}/cancel", None).status_code == 202
    assert held(api) == []
    assert ids(claim(api, "one")) == []


@pytest.mark.parametrize("cursor", ["x", "tsk_", "tsk_" + "a" * 22 + "0"])
def test_a_cursor_of_no_page_is_refused(api: Api, cursor: str) -> None:
    answer = api.get(f"/v1/annotation/leases?cursor={cursor}", api.annotator)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["field"] == "cursor"


def test_customers_hold_nothing(api: Api) -> None:
    assert api.get("/v1/annotation/leases").status_code == 403
