"""Reviews over HTTP: who may decide, what they are shown, and what customers see of it."""

import io
import json
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.domain.model import Compression
from blocks.store import archive, customers, quality, results, reviews
from blocks.store.jobs import Job
from flows.writing import parquet
from tests.support.api_reviews import RULE, claim, decide, new_reviewer, under_review
from tests.support.api_world import JOB_BODY, Api
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("POST", "/v1/annotation/claim?queue=review", {"limit": 1}),
        ("GET", "/v1/annotation/leases?queue=review", None),
        ("GET", "/v1/annotation/reviews", None),
        ("POST", "/v1/annotation/reviews", {"reviews": [{"task_id": "tsk_1", "label": "cat"}]}),
    ],
)
def test_who_is_no_reviewer_is_told_so(api: Api, method: str, path: str, body: Any) -> None:
    response = api.client.request(method, path, json=body, headers=api.annotator)
    assert response.status_code == 403
    assert response.json()["code"] == "not_a_reviewer"
    assert "reviewer's key" in response.json()["error"]


def test_an_unknown_option_is_told_with_those_there_are(api: Api) -> None:
    _, (task,) = under_review(api)
    reviewer = new_reviewer(api)
    claim(api, reviewer)
    body = {"reviews": [{"task_id": task, "label": "dgo"}]}
    (found,) = api.post("/v1/annotation/reviews", body, reviewer).json()["results"]
    assert found["outcome"] == "unknown_option"
    assert found["message"] == f"The options are {', '.join(OPTIONS)}. Did you mean dog?"


def test_a_reviewer_sees_why_and_what_annotators_have_said(api: Api) -> None:
    job, (task,) = under_review(api)
    (found,) = claim(api, new_reviewer(api))["tasks"]
    case = found["review"]
    (label,) = case.pop("labels")
    assert label.pop("annotator_id").startswith("ann_")
    assert label.pop("created_at").endswith("Z")
    assert label == {"label": "cat"}
    assert case.pop("created_at") < case.pop("due_at")
    assert case == {
        "job_id": job.job_id,
        "reason": "sample",
        "proposed_label": "cat",
        "proposed_failure": None,
        "confidence": 1.0,
        "votes": {"cat": 1, "dog": 0, "fox": 0},
        "skips": [],
    }
    assert (found["task_id"], found["label_spec"]["options"]) == (task, OPTIONS)


def test_a_claim_of_reviews_is_repeated_renewed_listed_and_handed_back(api: Api) -> None:
    under_review(api, 2)
    reviewer = new_reviewer(api)
    keyed = {**reviewer, "Idempotency-Key": "one"}
    first = claim(api, keyed, limit=1)
    assert claim(api, keyed, limit=1) == first
    conflict = api.post("/v1/annotation/claim?queue=review", {"limit": 2}, keyed)
    assert conflict.status_code == 409
    (task,) = [each["task_id"] for each in first["tasks"]]
    (second,) = [each["task_id"] for each in claim(api, reviewer)["tasks"]]
    assert second != task
    page = api.get("/v1/annotation/leases?queue=review&limit=1", reviewer).json()
    rest = api.get(f"/v1/annotation/leases?queue=review&cursor={page['next_cursor']}", reviewer)
    listed = [each["task_id"] for each in [*page["tasks"], *rest.json()["tasks"]]]
    assert sorted(listed) == sorted([task, second])
    assert api.get("/v1/annotation/leases", reviewer).json()["tasks"] == []
    me = api.get("/v1/annotation/me", reviewer).json()
    assert (me["tasks_held"], me["reviews_held"]) == (0, 2)
    assert me["lease_expires_at"] is not None
    body = {"task_ids": [task, "tsk_1"], "lease_seconds": 6000}
    renewed = api.post("/v1/annotation/renew", body, reviewer).json()["results"]
    assert [each["outcome"] for each in renewed] == ["renewed", "not_held"]
    released = api.post("/v1/annotation/release", {"task_ids": [task]}, reviewer).json()
    assert released["results"] == [{"task_id": task, "outcome": "released"}]
    assert decide(api, reviewer, {"task_id": task, "label": "cat"}) == ["not_held"]


def test_a_claim_without_reviews_says_whether_some_may_come(api: Api) -> None:
    job, (task,) = under_review(api)
    reviewer, other = new_reviewer(api), new_reviewer(api, "ray")
    assert claim(api, reviewer, job_id=job.job_id)["tasks"]
    assert claim(api, other, job_id=job.job_id) == {"tasks": [], "retry_after_s": 5}
    assert decide(api, reviewer, {"task_id": task, "label": "cat"}) == ["settled"]
    assert claim(api, other, job_id=job.job_id) == {"tasks": [], "retry_after_s": None}
    missing = api.post("/v1/annotation/claim?queue=review", {"limit": 1, "job_id": "job_1"}, other)
    assert missing.json()["code"] == "job_not_found"


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"label": "cat", "send_back": True},
        {"label": "cat", "fail": "no_consensus"},
        {"fail": "ugly"},
        {"send_back": False},
    ],
)
def test_there_is_one_decision_for_a_task(api: Api, decision: dict[str, Any]) -> None:
    body = {"reviews": [{"task_id": "tsk_1"} | decision]}
    response = api.post("/v1/annotation/reviews", body, new_reviewer(api))
    assert response.status_code == 400


def test_customers_see_who_settled_a_task(api: Api) -> None:
    job, (first, second, third) = under_review(api, 3)
    reviewer = new_reviewer(api)
    assert api.get(f"/v1/tasks/{first}").json()["status"] == "in_progress"
    assert api.get(f"/v1/tasks/{first}/result").status_code == 202
    waiting = api.get(f"/v1/jobs/{job.job_id}").json()["waiting_for"]
    assert (waiting["what"], waiting["tasks"]) == ("reviewers", 3)
    claim(api, reviewer)
    said = [{"task_id": first, "label": "dog"}, {"task_id": second, "fail": "broken"}]
    assert decide(api, reviewer, *said) == ["settled", "failed"]
    api.shop.run("update reviews set due_at = now()")
    api.shop.do(reviews.time_out, limit=10)
    shown = [api.get(f"/v1/tasks/{each}/result").json() for each in (first, second, third)]
    assert [each.get("settled_by") for each in shown] == ["review", None, "consensus"]
    assert (shown[0]["consensus_label"], shown[0]["confidence"]) == ("dog", 0.0)
    assert shown[1]["reason"] == "skipped_broken"
    job_view = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (job_view["status"], job_view["waiting_for"]) == ("completed", None)
    exported = read_export(api.shop, job)
    assert [each["settled_by"] for each in exported] == ["review", "consensus"]
    assert [each["votes"]["cat"] for each in exported] == [1, 1]
    assert read_parquet(api.shop, job) == ["review", "consensus"]


@pytest.mark.parametrize(
    "rule, confidence", [({}, 0.0), ({"target_confidence": 9_000, "labels_max": 3}, 0.3333)]
)
@pytest.mark.parametrize("is_archived", [False, True])
def test_a_task_that_all_have_skipped_has_a_result_once_a_reviewer_settles_it(
    api: Api, rule: dict[str, Any], confidence: float, *, is_archived: bool
) -> None:
    job = api.shop.processing(make_chunk(1), review_flagged=True, skips_max=1, **rule)
    (task,) = [each["task_id"] for each in claim(api, api.annotator, "")["tasks"]]
    skip = {"labels": [{"task_id": task, "skip": "unclear"}]}
    api.post("/v1/annotation/labels", skip, api.annotator)
    reviewer = new_reviewer(api)
    claim(api, reviewer)
    assert decide(api, reviewer, {"task_id": task, "label": "dog"}) == ["settled"]
    while is_archived and api.shop.do(archive.archive_some, after_s=0):
        pass
    answer = api.get(f"/v1/tasks/{task}/result")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["consensus_label"], shown["settled_by"]) == ("dog", "review")
    assert (shown["confidence"], shown["worker_count"], shown["agreement_count"]) == (
        confidence, 0, 0,
    )  # fmt: skip
    (exported,) = read_export(api.shop, job)
    assert exported == {field: shown[field] for field in exported}
    measured = api.get(f"/v1/jobs/{job.job_id}/quality").json()
    assert (measured["tasks_settled"], measured["labels"], measured["labels_saved"]) == (1, 0, 0)


@pytest.mark.parametrize("rule", [{}, {"target_confidence": 9_999, "labels_max": 1}])
def test_every_settled_task_counts_for_its_option_whoever_labelled_it_so(
    api: Api, rule: dict[str, Any]
) -> None:
    job, found = under_review(api, 9, **rule)
    reviewer = new_reviewer(api)
    claim(api, reviewer)
    chosen = ["dog"] * 4 + ["fox"] * 2 + ["cat"] * 3
    said = [{"task_id": task, "label": label} for task, label in zip(found, chosen, strict=True)]
    assert decide(api, reviewer, *said) == ["settled"] * len(found)
    for _ in range(2):
        shown = api.get(f"/v1/jobs/{job.job_id}/quality").json()
        recounted = Counter(line["consensus_label"] for line in read_export(api.shop, job))
        tasks = {each["option"]: each["tasks"] for each in shown["options"]}
        assert tasks == recounted == Counter(chosen)
        assert sum(tasks.values()) == shown["tasks_settled"]
        assert [each["labels"] for each in shown["options"]] == [len(found), 0, 0]
        while api.shop.do(archive.archive_some, after_s=0):
            pass


def read_export(shop: Shop, job: Job) -> list[dict[str, Any]]:
    with shop.database.long_read() as tx:
        return [json.loads(line) for line in b"".join(results.export(tx, job.job_no)).splitlines()]


def read_parquet(shop: Shop, job: Job) -> list[str]:
    file = io.BytesIO()
    with shop.database.long_read() as tx:
        rows = parquet.write(file, results.read(tx, job.job_no), compression=Compression.NONE)
    found: list[str] = pq.read_table(file)["settled_by"].to_pylist()
    assert len(found) == rows
    return found


def test_a_job_without_a_review_queue_says_nothing_of_it(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=1)
    (task,) = claim(api, api.annotator, "")["tasks"]
    label = {"labels": [{"task_id": task["task_id"], "label": "cat"}]}
    api.post("/v1/annotation/labels", label, api.annotator)
    assert "review" not in task
    assert "settled_by" not in api.get(f"/v1/tasks/{task['task_id']}/result").json()
    assert "settled_by" not in read_export(api.shop, job)[0]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_archiving_changes_nothing_of_what_was_reviewed(api: Api, is_cancelled: bool) -> None:
    rule: dict[str, Any] = {"review_flagged": True, "skips_max": 1}
    job, found = under_review(api, 4, **rule)
    flagged = api.shop.processing(make_chunk(1), **RULE | rule)
    (task,) = claim(api, api.annotator, "")["tasks"]
    skip = {"labels": [{"task_id": task["task_id"], "skip": "broken"}]}
    api.post("/v1/annotation/labels", skip, api.annotator)
    reviewer = new_reviewer(api)
    claim(api, reviewer)
    said = [{"task_id": found[0], "label": "dog"}, {"task_id": found[1], "fail": "no_consensus"}]
    decide(api, reviewer, *said, {"task_id": task["task_id"], "label": "fox"})
    if is_cancelled:
        api.post(f"/v1/jobs/{job.job_id}/cancel", {})
    else:
        decide(api, reviewer, *({"task_id": each, "label": "cat"} for each in found[2:]))

    def seen() -> list[Any]:
        return [
            [read_export(api.shop, each) for each in (job, flagged)],
            [api.get(f"/v1/tasks/{each}").json() for each in [*found, task["task_id"]]],
            [api.shop.do(quality.measure, each.job_no) for each in (job, flagged)],
            [api.get(f"/v1/jobs/{each.job_id}/errors").text for each in (job, flagged)],
        ]

    before = seen()
    while api.shop.do(archive.archive_some, after_s=0):
        pass
    assert api.shop.value("select count(*) from tallies") == 0
    assert seen() == before


@pytest.mark.parametrize(
    "field, value",
    [
        ("review_share", 0),
        ("review_share", 1.1),
        ("review_confidence_below", 0),
        ("review_confidence_below", 2),
        ("review_deadline", 0),
        ("review_deadline", 9000),
        ("review_flagged", 1),
    ],
)
def test_fields_of_reviews_have_bounds(api: Api, field: str, value: Any) -> None:
    response = api.submit(JOB_BODY | {field: value})
    assert response.status_code == 400
    (fault,) = response.json()["details"]
    assert fault["field"] == field


def test_a_job_shows_what_it_has_reviewed(api: Api) -> None:
    rule = {
        "review_no_consensus": True,
        "review_confidence_below": 0.7,
        "review_share": 0.02,
        "review_flagged": True,
        "review_deadline": 12.5,
    }
    job_id = api.submit(JOB_BODY | rule).json()["job_id"]
    shown = api.get(f"/v1/jobs/{job_id}").json()
    assert {field: shown[field] for field in rule} == rule


def test_endpoints_are_told_who_settled_a_task(api: Api) -> None:
    body = {"callback_url": "https://hooks.example.com/x", "events": ["task.settled"]}
    assert api.post("/v1/webhooks", body).status_code == 201
    _, (first, second) = under_review(api, 2)
    assert api.shop.value("select count(*) from notifications") == 0
    reviewer = new_reviewer(api)
    claim(api, reviewer)
    decide(api, reviewer, {"task_id": first, "label": "dog"})
    api.shop.run("update reviews set due_at = now()")
    api.shop.do(reviews.time_out, limit=10)
    rows = api.shop.run("select body from notifications order by notification_no")
    told = [json.loads(row["body"])["data"] for row in rows]
    assert [each["task_id"] for each in told] == [first, second]
    assert [each["settled_by"] for each in told] == ["review", "consensus"]
    assert [each["confidence"] for each in told] == [0, 1]


def test_a_reviewer_is_for_the_customers_that_they_are_granted(api: Api) -> None:
    _, (task,) = under_review(api)
    reviewer = new_reviewer(api)
    other = api.shop.do(customers.add_customer, "Other")
    claim(api, reviewer)
    api.shop.do(customers.grant, "rae", [other])
    assert api.get("/v1/annotation/me", reviewer).json()["reviews_held"] == 0
    assert claim(api, reviewer)["tasks"] == []
    assert decide(api, reviewer, {"task_id": task, "label": "cat"}) == ["unknown_task"]
