"""Jobs of one label a task: the first label is the result, whoever else was quick."""

from typing import Any

import pytest

from tests.support.api_world import JOB_BODY, Api
from tests.support.books import check_books
from tests.support.side import at_once
from tests.support.store_shop import make_chunk

pytestmark = pytest.mark.integration


def claim(api: Api, headers: dict[str, str]) -> list[str]:
    answer = api.post("/v1/annotation/claim", {"limit": 100}, headers).json()
    return [task["task_id"] for task in answer["tasks"]]


def label(api: Api, headers: dict[str, str], option: str, *tasks: str) -> list[str]:
    labels = [{"task_id": task, "label": option} for task in tasks]
    answer = api.post("/v1/annotation/labels", {"labels": labels}, headers)
    return [result["outcome"] for result in answer.json()["results"]]


@pytest.mark.parametrize("stop_early", [False, True])
def test_one_person_completes_a_job_alone(api: Api, stop_early: bool) -> None:
    job = api.shop.processing(make_chunk(3), consensus_threshold=1, stop_early=stop_early)
    tasks = claim(api, api.annotator)
    assert claim(api, api.new_annotator()) == []
    assert label(api, api.annotator, "dog", *tasks) == ["settled"] * 3
    check_books(api.shop, job)
    assert api.get(f"/v1/jobs/{job.job_id}").json()["status"] == "completed"
    results = api.client.get(f"/v1/jobs/{job.job_id}/export", headers=api.customer)
    (first, *_) = results.text.splitlines()
    assert '"consensus_label":"dog","confidence":1,"worker_count":1,"agreement_count":1' in first
    quality = api.get(f"/v1/jobs/{job.job_id}/quality").json()
    assert (quality["labels"], quality["mean_confidence"]) == (3, 1.0)


def test_a_task_that_was_handed_back_is_labelled_once_by_another(api: Api) -> None:
    job = api.shop.processing(make_chunk(2), consensus_threshold=1)
    other = api.new_annotator()
    first, second = claim(api, api.annotator)
    api.post("/v1/annotation/release", {"task_ids": [first]}, api.annotator)
    assert claim(api, other) == [first]
    assert label(api, other, "cat", first) == ["settled"]
    assert label(api, api.annotator, "dog", first, second) == ["already_settled", "settled"]
    check_books(api.shop, job)


def test_of_labels_for_one_task_at_once_one_settles_it(api: Api) -> None:
    job = api.shop.processing(make_chunk(5), consensus_threshold=1, ingested=False)
    people = [api.annotator, *(api.new_annotator() for _ in range(4))]
    tasks = claim(api, api.annotator)

    def say(headers: dict[str, str]) -> list[str]:
        return label(api, headers, "fox", *tasks)

    outcomes = at_once(*[lambda each=each: say(each) for each in people])
    for of_task in zip(*outcomes, strict=True):
        assert sorted(of_task) == ["already_settled"] * 4 + ["settled"]
    assert api.shop.value("select count(*) from labels") == len(tasks)
    check_books(api.shop, job)


def test_an_inline_task_of_one_label_is_settled_by_it(api: Api) -> None:
    task: dict[str, Any] = {
        "type": "moderation",
        "data_url": "https://a.example/1.jpg",
        "label_spec": JOB_BODY["label_spec"],
        "consensus_threshold": 1,
    }
    id_ = api.post("/v1/tasks", task).json()["task_id"]
    assert label(api, api.annotator, "cat", *claim(api, api.annotator)) == ["settled"]
    result = api.get(f"/v1/tasks/{id_}/result").json()
    assert (result["consensus_label"], result["confidence"]) == ("cat", 1.0)


def test_a_job_of_one_label_waits_for_one_annotator(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=1)
    assert api.get(f"/v1/jobs/{job.job_id}").json()["waiting_for"] is None
    api.shop.run("update api_keys set revoked_at = now() where annotator_no is not null")
    waiting = api.get(f"/v1/jobs/{job.job_id}").json()["waiting_for"]
    assert (waiting["what"], waiting["annotators"]) == ("annotators", 1)
