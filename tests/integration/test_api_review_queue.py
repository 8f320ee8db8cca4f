"""Which cases reviewers ask for over HTTP, and how many wait."""

from typing import Any

import pytest

from blocks.store import customers
from tests.support.api_reviews import claim, decide, new_reviewer, under_review
from tests.support.api_world import Api
from tests.support.store_shop import make_chunk

pytestmark = pytest.mark.integration


def annotator_id(api: Api, headers: dict[str, str]) -> str:
    found: str = api.get("/v1/annotation/me", headers).json()["annotator_id"]
    return found


def test_a_claim_of_reviews_is_for_a_job_a_reason_or_an_annotator(api: Api) -> None:
    sampled, (first,) = under_review(api)
    other = api.new_annotator()
    flagged = api.shop.processing(make_chunk(1), review_flagged=True, skips_max=1)
    (second,) = [task["task_id"] for task in claim(api, other, "", job_id=flagged.job_id)["tasks"]]
    api.post("/v1/annotation/labels", {"labels": [{"task_id": second, "skip": "broken"}]}, other)
    one, two = annotator_id(api, api.annotator), annotator_id(api, other)
    nobody = f"ann_{'0' * 22}"
    for wanted, found in [
        ({"job_id": sampled.job_id}, [first]),
        ({"reason": "flagged"}, [second]),
        ({"reason": "no_consensus"}, []),
        ({"reason": "sample", "job_id": flagged.job_id}, []),
        ({"annotator_id": one}, [first]),
        ({"annotator_id": two}, [second]),
        ({"annotator_id": two, "reason": "sample"}, []),
        ({"annotator_id": nobody}, []),
        ({}, sorted([first, second])),
    ]:
        reviewer = new_reviewer(api, str(wanted))
        tasks = [task["task_id"] for task in claim(api, reviewer, **wanted)["tasks"]]
        assert sorted(tasks) == found, wanted
        api.post("/v1/annotation/release", {"task_ids": [first, second]}, reviewer)


@pytest.mark.parametrize(
    "queue, wanted, message",
    [
        ("label", {"reason": "sample"}, "This goes with queue=review alone."),
        ("label", {"annotator_id": f"ann_{'0' * 22}"}, "This goes with queue=review alone."),
        (
            "review",
            {"annotator_id": "ann"},
            "This must be an annotator_id: ann_ and 22 characters.",
        ),
        ("review", {"reason": "smaple"}, "sample"),
    ],
)
def test_a_claim_for_what_its_queue_has_not_is_refused(
    api: Api, queue: str, wanted: dict[str, Any], message: str
) -> None:
    answer = api.post(
        f"/v1/annotation/claim?queue={queue}", {"limit": 1} | wanted, new_reviewer(api)
    )
    assert answer.status_code == 400
    (fault,) = answer.json()["details"]
    assert (fault["field"], message in fault["message"]) == (next(iter(wanted)), True)


def waiting(api: Api, headers: dict[str, str], query: str = "") -> dict[str, dict[str, int]]:
    """How many tasks wait, by job, but for reasons that none waits for."""
    found = api.get(f"/v1/annotation/reviews{query}", headers).json()["jobs"]
    return {
        job["job_id"]: {reason: n for reason, n in job["waiting"].items() if n} for job in found
    }


def test_what_waits_for_reviewers_is_counted_by_job_and_reason(api: Api) -> None:
    reviewer = new_reviewer(api)
    api.shop.processing(make_chunk(1), consensus_threshold=1)
    assert waiting(api, reviewer) == {}
    empty = api.shop.processing(make_chunk(1), review_flagged=True, priority=9)
    sampled, _ = under_review(api, 3)
    assert list(waiting(api, reviewer).items()) == [
        (sampled.job_id, {"sample": 3}), (empty.job_id, {}),
    ]  # fmt: skip
    assert waiting(api, reviewer, "?limit=1") == {sampled.job_id: {"sample": 3}}
    assert waiting(api, reviewer, f"?job_id={empty.job_id}") == {empty.job_id: {}}
    assert waiting(api, reviewer, f"?job_id=job_{'0' * 22}") == {}
    (task, *_) = claim(api, reviewer)["tasks"]
    assert decide(api, reviewer, {"task_id": task["task_id"], "label": "cat"}) == ["settled"]
    assert waiting(api, reviewer)[sampled.job_id] == {"sample": 2}
    elsewhere = api.shop.do(customers.add_customer, "Other")
    _, key = api.shop.do(
        customers.add_annotator_key, "ron", is_reviewer=True, customer_ids=[elsewhere]
    )
    assert waiting(api, api.bearer(key)) == {}
