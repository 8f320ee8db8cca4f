"""Skips, and changes of labels, over HTTP."""

import json
from typing import Any

import pytest

from tests.support.api_world import JOB_BODY, Api
from tests.support.store_shop import make_chunk

pytestmark = pytest.mark.integration


def say(api: Api, headers: dict[str, str], *entries: dict[str, Any]) -> list[tuple[str, str]]:
    """What became of each entry, and the message beside it."""
    response = api.post("/v1/annotation/labels", {"labels": list(entries)}, headers)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [each["task_id"] for each in results] == [each["task_id"] for each in entries]
    return [(each["outcome"], each.get("message", "")) for each in results]


def make_task(api: Api, **changes: Any) -> str:
    """The id of an inline task that the annotator holds."""
    body = {
        "type": "image_classification",
        "data_url": "https://img.example.com/1.jpg",
        "label_spec": JOB_BODY["label_spec"],
    }
    response = api.post("/v1/tasks", body | changes)
    assert response.status_code == 202, response.text
    (claimed,) = api.post("/v1/annotation/claim", {"limit": 1}, api.annotator).json()["tasks"]
    assert claimed["task_id"] == response.json()["task_id"]
    return str(claimed["task_id"])


def test_a_skip_is_shown_with_its_note_and_without_whose_it_is(api: Api) -> None:
    task = make_task(api, skips_max=2)
    entry = {"task_id": task, "skip": "none_of_these", "note": "It is a “bird”."}
    assert say(api, api.annotator, entry) == [("skipped", "")]
    response = api.get(f"/v1/tasks/{task}")
    shown = response.json()
    (skip,) = shown["skips"]
    assert skip.pop("created_at").endswith("Z")
    assert skip == {"reason": "none_of_these", "note": "It is a “bird”."}
    assert (shown["skips_max"], shown["labels"], shown["status"]) == (2, 0, "in_progress")
    assert "ann" not in response.text


def test_a_task_that_was_skipped_too_often_has_a_result_that_says_so(api: Api) -> None:
    task = make_task(api, skips_max=1)
    assert say(api, api.annotator, {"task_id": task, "skip": "broken"}) == [("skipped", "")]
    shown = api.get(f"/v1/tasks/{task}").json()
    assert (shown["status"], shown["reason"]) == ("failed", "skipped_broken")
    result = api.get(f"/v1/tasks/{task}/result").json()
    assert (result["status"], result["reason"]) == ("failed", "skipped_broken")
    assert (result["consensus_label"], result["confidence"]) == (None, None)
    assert (result["worker_count"], result["agreement_count"]) == (0, 0)
    assert result["settled_at"] == shown["settled_at"] is not None


def test_a_job_shows_its_skips_max_and_its_errors_the_reason(api: Api) -> None:
    job_id = api.submit(JOB_BODY | {"skips_max": 7}).json()["job_id"]
    assert api.get(f"/v1/jobs/{job_id}").json()["skips_max"] == 7
    job = api.shop.processing(make_chunk(1), skips_max=1)
    claim = {"limit": 1, "job_id": job.job_id}
    assert api.post("/v1/annotation/claim", claim, api.annotator).json()["tasks"]
    entry = {"task_id": job.task_id(0), "skip": "unclear"}
    assert say(api, api.annotator, entry) == [("skipped", "")]
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (shown["status"], shown["tasks_failed"], shown["skips_max"]) == ("completed", 1, 1)
    (line,) = api.get(f"/v1/jobs/{job.job_id}/errors").text.splitlines()
    assert json.loads(line)["code"] == "skipped_unclear"
    quality = api.get(f"/v1/jobs/{job.job_id}/quality").json()
    assert (quality["tasks_failed"], quality["labels"], quality["labels_saved"]) == (1, 0, 0)


def test_labels_are_replaced_and_withdrawn(api: Api) -> None:
    task = make_task(api, consensus_threshold=2)
    other = api.new_annotator()
    label = {"task_id": task, "label": "cat"}
    assert say(api, api.annotator, label) == [("accepted", "")]
    assert say(api, api.annotator, label | {"label": "dog", "replace": True}) == [("replaced", "")]
    assert say(api, api.annotator, {"task_id": task, "withdraw": True}) == [("withdrawn", "")]
    assert say(api, api.annotator, {"task_id": task, "withdraw": True}) == [
        ("not_labelled", "You have no label on this task.")
    ]
    assert say(api, api.annotator, label) == [("accepted", "")]
    assert say(api, other, label | {"label": "fox"}) == [("accepted", "")]
    assert say(api, other, label | {"replace": True}) == [("settled", "")]


def test_what_is_not_taken_has_a_reason(api: Api) -> None:
    task = make_task(api)
    label = {"task_id": task, "label": "cat"}
    already = "You have labelled or skipped this task already."
    same = "This is your label already, or another entry here is for the same task."
    assert say(api, api.annotator, label, {"task_id": task, "skip": "broken"}) == [
        ("accepted", ""), ("duplicate", already),
    ]  # fmt: skip
    assert say(api, api.annotator, label | {"replace": True}) == [("duplicate", same)]
    assert say(api, api.annotator, {"task_id": task, "label": "Dog", "replace": True}) == [
        ("unknown_option", "The options are cat, dog, fox. Did you mean dog?")
    ]
    unknown = "There is no such task, or it is not for you."
    for entry in ({"skip": "broken"}, {"withdraw": True}, {"label": "cat", "replace": True}):
        for id_ in ("x", f"{task}9"):
            said = say(api, api.annotator, {"task_id": id_} | entry)
            assert said == [("unknown_task", unknown)]


@pytest.mark.parametrize(
    "entry, fields",
    [
        ({}, {"label"}),
        ({"label": None}, {"label"}),
        ({"label": "cat", "skip": "broken"}, {"label"}),
        ({"label": "cat", "withdraw": True}, {"label"}),
        ({"skip": "broken", "withdraw": True}, {"label"}),
        ({"skip": "boring"}, {"skip"}),
        ({"skip": "broken", "note": "x" * 1001}, {"note"}),
        ({"skip": "broken", "replace": True}, {"replace"}),
        ({"withdraw": True, "replace": True, "note": "why"}, {"replace", "note"}),
        ({"label": "cat", "note": "why"}, {"note"}),
        ({"withdraw": 1}, {"withdraw"}),
        ({"skip": "broken", "note": "a\x00b"}, {"note"}),
    ],
)
def test_an_entry_that_cannot_be_is_refused_with_the_rest(
    api: Api, entry: dict[str, Any], fields: set[str]
) -> None:
    task = make_task(api)
    good = {"task_id": task, "skip": "broken"}
    body = {"labels": [good, {"task_id": task} | entry]}
    response = api.post("/v1/annotation/labels", body, api.annotator)
    assert response.status_code == 400, response.text
    found = {fault["field"] for fault in response.json()["details"]}
    assert found == {f"labels[1].{field}" for field in fields}
    assert api.shop.value("select count(*) from skips") == 0
    assert say(api, api.annotator, good) == [("skipped", "")]


@pytest.mark.parametrize("skips_max", [0, 11, 1.5, "3", None])
def test_skips_max_has_bounds(api: Api, skips_max: Any) -> None:
    response = api.submit(JOB_BODY | {"skips_max": skips_max})
    assert response.status_code == 400
    (fault,) = response.json()["details"]
    assert fault["field"] == "skips_max"
