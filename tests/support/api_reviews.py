"""Reviewers over HTTP."""

from typing import Any

from blocks.store import customers
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.store_shop import make_chunk

RULE: dict[str, Any] = {"consensus_threshold": 1, "review_share": 10_000}


def new_reviewer(api: Api, name: str = "rae") -> dict[str, str]:
    _, key = api.shop.do(customers.add_annotator_key, name, is_reviewer=True)
    return api.bearer(key)


def claim(api: Api, headers: dict[str, str], path: str = "?queue=review", **body: Any) -> Any:
    response = api.post(f"/v1/annotation/claim{path}", {"limit": 100} | body, headers)
    assert response.status_code == 200, response.text
    return response.json()


def decide(api: Api, headers: dict[str, str], *decisions: dict[str, Any]) -> list[str]:
    response = api.post("/v1/annotation/reviews", {"reviews": list(decisions)}, headers)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    taken = {"settled", "failed", "sent_back"}
    assert all(("message" in each) == (each["outcome"] not in taken) for each in results)
    return [each["outcome"] for each in results]


def under_review(api: Api, count: int = 1, **changes: Any) -> tuple[Job, list[str]]:
    """A job all of whose tasks were labelled `cat` by the annotator and are under review."""
    job = api.shop.processing(make_chunk(count), **RULE | changes)
    tasks = claim(api, api.annotator, "", limit=count, job_id=job.job_id)["tasks"]
    labels = [{"task_id": task["task_id"], "label": "cat"} for task in tasks]
    answer = api.post("/v1/annotation/labels", {"labels": labels}, api.annotator).json()
    assert {each["outcome"] for each in answer["results"]} == {"accepted"}
    return job, [task["task_id"] for task in tasks]
