"""Annotators over HTTP: work is handed out, labels come in, the job ends."""

import json
from typing import Any

import pytest

from blocks.domain.ids import new_id, task_id
from blocks.domain.model import GoodLine, TaskType
from tests.support.api_world import JOB_BODY, Api
from tests.support.store_shop import OPTIONS, Chunk, make_chunk

pytestmark = [
    pytest.mark.integration,
    # test_api_errors has a test of its own for them.
]


def claim(api: Api, headers: dict[str, str] | None = None, **body: Any) -> list[dict[str, Any]]:
    response = api.post("/v1/annotation/claim", {"limit": 100} | body, headers or api.annotator)
    assert response.status_code == 200, response.text
    tasks: list[dict[str, Any]] = response.json()["tasks"]
    assert list(response.json()) == (["tasks"] if tasks else ["tasks", "retry_after_s"])
    return tasks


def label(api: Api, headers: dict[str, str], *labels: tuple[str, str]) -> list[str]:
    body = {"labels": [{"task_id": task, "label": option} for task, option in labels]}
    response = api.post("/v1/annotation/labels", body, headers)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [result["task_id"] for result in results] == [task for task, _ in labels]
    return [result["outcome"] for result in results]


def faults(api: Api, path: str, body: Any) -> set[str]:
    response = api.post(path, body, api.annotator)
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "invalid_request"
    return {fault["field"] for fault in response.json()["details"]}


def test_a_claimed_task_has_the_fields_of_the_contract(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), task_type=TaskType.SENTIMENT)
    (task,) = claim(api)
    assert task.pop("lease_expires_at").endswith("Z")
    assert task == {
        "task_id": job.task_id(0),
        "data_url": "https://img.example.com/0.jpg",
        "task_type": "sentiment",
        "label_spec": {"question": "What is it?", "options": OPTIONS},
    }


def test_metadata_is_handed_out_byte_for_byte_and_left_out_where_there_is_none(api: Api) -> None:
    text = '{ "n": 1.10,\r"dup":1, "dup":2, "big":123456789012345678901234567890, "e":"\\u00e9" }'
    tasks = [
        GoodLine(0, 1, "https://x.example.com/a", text),
        GoodLine(9, 2, "https://x.example.com/b", None),
        GoodLine(20, 3, "https://x.example.com/c", "null"),
    ]
    api.shop.processing(Chunk(3, tasks, []))
    response = api.post("/v1/annotation/claim", {"limit": 3}, api.annotator)
    assert text.encode() in response.content
    assert ["metadata" in task for task in response.json()["tasks"]] == [True, False, True]


def test_where_there_is_nothing_to_do_the_list_is_empty(api: Api) -> None:
    assert claim(api) == []


@pytest.mark.parametrize("job_id", ["job_x", "job_3cbyynx3c0pg4cxp1xtn3t", "", "x" * 1000])
def test_a_claim_for_a_job_that_is_not_there_is_told_so(api: Api, job_id: str) -> None:
    api.shop.processing(make_chunk(1))
    response = api.post("/v1/annotation/claim", {"limit": 1, "job_id": job_id}, api.annotator)
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")


def outlook(api: Api, headers: dict[str, str], **body: Any) -> int | None:
    """What an empty claim says of later ones."""
    answer = api.post("/v1/annotation/claim", {"limit": 500} | body, headers).json()
    assert answer["tasks"] == []
    found: int | None = answer["retry_after_s"]
    assert found is None or found > 0
    return found


def test_an_empty_claim_says_whether_more_may_come(api: Api) -> None:
    job = api.shop.processing(make_chunk(3), consensus_threshold=2)
    first, second, third = api.annotator, api.new_annotator(), api.new_annotator()
    mine = claim(api, first)
    assert outlook(api, first, job_id=job.job_id)  # they may forget what they hold
    label(api, first, *((task["task_id"], "cat") for task in mine))
    assert outlook(api, first, job_id=job.job_id) is None  # the rest is for others
    theirs = claim(api, second)
    assert outlook(api, first, job_id=job.job_id) is None
    assert outlook(api, third, job_id=job.job_id)  # the second may let go of theirs
    assert outlook(api, first)  # another job may be posted
    label(api, second, (theirs[0]["task_id"], "dog"))  # now the first task is tied
    (tied,) = claim(api, third, job_id=job.job_id)
    label(api, third, (tied["task_id"], "dog"))
    label(api, second, *((task["task_id"], "cat") for task in theirs[1:]))
    for annotator in (first, second, third):
        assert outlook(api, annotator, job_id=job.job_id) is None


def test_more_may_come_of_a_job_whose_manifest_is_still_read(api: Api) -> None:
    accepted = api.shop.submit()
    assert outlook(api, api.annotator, job_id=accepted.job_id)
    job = api.shop.processing(make_chunk(1), ingested=False)
    label(api, api.annotator, *((t["task_id"], "cat") for t in claim(api, job_id=job.job_id)))
    assert outlook(api, api.annotator, job_id=job.job_id)
    assert outlook(api, api.annotator, job_id=job.job_id, task_types=["sentiment"]) is None


def test_nothing_comes_of_a_job_that_has_ended(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    api.shop.run("update jobs set status = 'cancelled' where job_no = %s", job.job_no)
    assert outlook(api, api.annotator, job_id=job.job_id) is None


def test_a_task_that_was_let_go_of_may_come_again_while_another_has_it(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=2)
    first, second, third = api.annotator, api.new_annotator(), api.new_annotator()
    for holder in (first, second):
        assert len(claim(api, holder)) == 1
    api.post("/v1/annotation/release", {"task_ids": [job.task_id(0)]}, first)
    assert len(claim(api, third)) == 1
    assert outlook(api, first, job_id=job.job_id)


def test_a_claim_is_for_as_long_and_as_many_and_which_it_says(api: Api) -> None:
    other = api.shop.processing(make_chunk(5), task_type=TaskType.MODERATION)
    wanted = api.shop.processing(make_chunk(5), task_type=TaskType.SENTIMENT)
    assert len(claim(api, limit=2, job_id=other.job_id)) == 2
    tasks = claim(api, limit=2, job_id=wanted.job_id, lease_seconds=30)
    assert [task["task_id"] for task in tasks] == [wanted.task_id(n) for n in range(2)]
    query = "select extract(epoch from min(expires_at) - now()) from leases where job_no = %s"
    assert 20 < api.shop.value(query, wanted.job_no) <= 30
    assert {task["task_type"] for task in claim(api, task_types=["moderation"])} == {"moderation"}


def test_without_a_length_a_lease_is_as_long_as_the_settings_say(api: Api) -> None:
    api.shop.processing(make_chunk(1))
    claim(api)
    assert (
        590
        < api.shop.value("select extract(epoch from min(expires_at) - now()) from leases")
        <= 600
    )


def test_a_claim_that_cannot_be_is_refused_with_all_its_faults(api: Api) -> None:
    path = "/v1/annotation/claim"
    assert faults(api, path, {}) == {"limit"}
    for limit in (0, 501, "1", 1.5, None, True):
        assert faults(api, path, {"limit": limit}) == {"limit"}
    assert faults(
        api,
        path,
        {"limit": 0, "lease_seconds": 0, "task_types": ["guess"], "job_id": 5, "more": 1},
    ) == {"limit", "lease_seconds", "task_types[0]", "job_id", "more"}
    assert faults(api, path, {"limit": 1, "task_types": []}) == {"task_types"}
    assert faults(api, path, {"limit": 1, "job_id": "job_\x00"}) == {"job_id"}


def test_labels_have_an_outcome_each_in_their_order(api: Api) -> None:
    job = api.shop.processing(make_chunk(2), consensus_threshold=2)
    first, second = (job.task_id(n) for n in range(2))
    other = api.new_annotator()
    claim(api)
    claim(api, other)
    unknown = f"{new_id('tsk')}0"
    assert label(api, api.annotator, (second, "cat"), (first, "cow"), (unknown, "cat")) == [
        "accepted", "unknown_option", "unknown_task",
    ]  # fmt: skip
    assert label(api, api.annotator, (second, "dog"), (first, "dog")) == ["duplicate", "accepted"]
    assert label(api, other, (second, "cat")) == ["settled"]
    assert label(api, api.new_annotator(), (second, "cat")) == ["already_settled"]


def reasons(api: Api, headers: dict[str, str], *labels: tuple[str, str]) -> list[str | None]:
    body = {"labels": [{"task_id": task, "label": option} for task, option in labels]}
    results = api.post("/v1/annotation/labels", body, headers).json()["results"]
    return [result.get("message") for result in results]


def test_a_label_that_is_not_taken_has_a_reason(api: Api) -> None:
    job = api.shop.processing(make_chunk(3), consensus_threshold=2)
    tasks = [job.task_id(n) for n in range(3)]
    claim(api, limit=2)
    assert reasons(
        api,
        api.annotator,
        (tasks[0], "cat"),
        (tasks[0], "dog"),
        (tasks[1], "Dog "),
        (tasks[1], "horse"),
        (tasks[2], "cat"),
        (task_id(new_id("job"), 0, 0), "cat"),
        ("x", "cat"),
    ) == [
        None,
        "You have labelled this task already; while it is open, `replace` changes your label.",
        "The options are cat, dog, fox. Did you mean dog?",
        "The options are cat, dog, fox.",
        "Nobody was handed this task yet; claim tasks, and label those that you are given.",
        "There is no such task, or it is not for you.",
        "There is no such task, or it is not for you.",
    ]
    assert label(api, api.annotator, (tasks[2], "cat")) == ["unknown_task"]


def test_options_are_told_of_some_jobs_and_likenesses_looked_for_in_some_labels(api: Api) -> None:
    made = [api.shop.processing(make_chunk(1)) for _ in range(22)]
    labels = [(job.task_id(0), "horse") for job in made] + [(made[0].task_id(0), "Dog")]
    found = reasons(api, api.annotator, *labels)
    assert found[:20] == ["The options are cat, dog, fox."] * 20
    assert found[20:22] == ["This is none of the options in the task's label_spec."] * 2
    assert found[22] == "The options are cat, dog, fox."


def test_five_hundred_wrong_options_are_answered_briefly(api: Api) -> None:
    options = [f"{n} {'x' * 990}" for n in range(100)]
    job = api.shop.processing(make_chunk(1), options=options)
    claim(api)
    found = reasons(api, api.annotator, *[(job.task_id(0), "1 " + "x" * 989)] * 500)
    assert sum("Did you mean" in str(reason) for reason in found) == 5
    assert max(len(str(reason)) for reason in found) < 700


def test_labels_that_cannot_be_are_refused_with_all_their_faults(api: Api) -> None:
    path = "/v1/annotation/labels"
    assert faults(api, path, {}) == {"labels"}
    assert faults(api, path, {"labels": []}) == {"labels"}
    assert faults(api, path, {"labels": [{"task_id": "x", "label": "y"}] * 501}) == {"labels"}
    labels = [{"task_id": 1, "label": "y"}, {"label": "y"}, {"task_id": "x", "label": "a\x00"}, 7]
    assert faults(api, path, {"labels": labels}) >= {
        "labels[0].task_id", "labels[1].task_id", "labels[2].label", "labels[3]",
    }  # fmt: skip


def test_five_hundred_labels_are_taken_at_once(api: Api) -> None:
    api.shop.processing(make_chunk(500))
    tasks = claim(api, limit=500)
    assert len(tasks) == 500
    labels = [(task["task_id"], "cat") for task in tasks]
    assert label(api, api.annotator, *labels) == ["accepted"] * 500


def test_a_batch_that_is_sent_again_changes_nothing(api: Api) -> None:
    job = api.shop.processing(make_chunk(2))
    labels = [(task["task_id"], "cat") for task in claim(api)]
    assert label(api, api.annotator, *labels) == ["accepted"] * 2
    assert label(api, api.annotator, *labels) == ["duplicate"] * 2
    assert api.shop.value("select count(*) from labels where job_no = %s", job.job_no) == 2


def release(api: Api, headers: dict[str, str], *task_ids: str) -> list[str]:
    response = api.post("/v1/annotation/release", {"task_ids": task_ids}, headers)
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["results"]
    results = response.json()["results"]
    assert [result["task_id"] for result in results] == list(task_ids)
    assert all(set(result) == {"task_id", "outcome"} for result in results)
    return [result["outcome"] for result in results]


def test_a_task_that_is_handed_back_goes_to_somebody_else(api: Api) -> None:
    api.shop.processing(make_chunk(2), consensus_threshold=2)
    first, second = (task["task_id"] for task in claim(api))
    claim(api, api.new_annotator())
    third = api.new_annotator()
    assert claim(api, third) == []
    assert release(api, api.annotator, first) == ["released"]
    assert [task["task_id"] for task in claim(api, third)] == [first]
    assert label(api, api.annotator, (second, "cat")) == ["accepted"]


def test_who_handed_a_task_back_gets_it_again_where_nobody_else_took_it(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    id_ = job.task_id(0)
    for _ in range(2):
        assert [task["task_id"] for task in claim(api)] == [id_]
        assert release(api, api.annotator, id_) == ["released"]


def test_what_one_does_not_hold_cannot_be_handed_back(api: Api) -> None:
    api.shop.processing(make_chunk(3))
    held, labelled, others = (task["task_id"] for task in claim(api))
    label(api, api.annotator, (labelled, "cat"))
    release(api, api.annotator, others)
    other = api.new_annotator()
    claim(api, other)
    unknown = f"{new_id('tsk')}0"
    ids = (labelled, others, unknown, held, "", "tsk_", held.upper(), "🦊")
    assert release(api, api.annotator, *ids) == [
        "not_held", "not_held", "not_held", "released", *["not_held"] * 4,
    ]  # fmt: skip
    assert release(api, api.annotator, held) == ["not_held"]
    assert release(api, api.new_annotator(), *ids) == ["not_held"] * len(ids)
    assert release(api, other, labelled, others) == ["released"] * 2


def test_a_task_that_is_named_twice_is_handed_back_once(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    (task,) = claim(api)
    assert release(api, api.annotator, *[task["task_id"]] * 2) == ["released"] * 2
    assert api.shop.value("select count(*) from vacancies where job_no = %s", job.job_no) == 1


def test_five_hundred_tasks_of_several_jobs_are_handed_back_at_once(api: Api) -> None:
    api.shop.processing(make_chunk(250))
    api.shop.processing(make_chunk(250))
    ids = [task["task_id"] for task in claim(api, limit=500)]
    assert release(api, api.annotator, *reversed(ids)) == ["released"] * 500
    assert api.shop.value("select count(*) from leases") == 0
    assert {task["task_id"] for task in claim(api, api.new_annotator(), limit=500)} == set(ids)


def test_an_inline_task_can_be_handed_back(api: Api) -> None:
    body = {"type": "moderation", "data_url": "https://x.example.com/a"}
    spec = {"question": "Is it fine?", "options": OPTIONS}
    id_ = api.post("/v1/tasks", body | {"label_spec": spec}).json()["task_id"]
    assert [task["task_id"] for task in claim(api)] == [id_]
    assert release(api, api.annotator, id_) == ["released"]
    assert api.shop.value("select count(*) from leases") == 0


def test_a_task_that_settled_meanwhile_can_be_handed_back_and_goes_to_nobody(api: Api) -> None:
    job = api.shop.processing(make_chunk(2), consensus_threshold=3, stop_early=True)
    id_ = job.task_id(0)
    claim(api)
    for _ in range(2):
        other = api.new_annotator()
        claim(api, other)
        label(api, other, (id_, "cat"))
    assert release(api, api.annotator, id_) == ["released"]
    assert id_ not in {task["task_id"] for task in claim(api, api.new_annotator())}


def test_a_release_that_cannot_be_is_refused_with_all_its_faults(api: Api) -> None:
    path = "/v1/annotation/release"
    assert faults(api, path, {}) == {"task_ids"}
    assert faults(api, path, {"task_ids": []}) == {"task_ids"}
    assert faults(api, path, {"task_ids": ["x"] * 501}) == {"task_ids"}
    assert faults(api, path, {"task_ids": "x", "more": 1}) == {"task_ids", "more"}
    assert faults(api, path, {"task_ids": ["x", "y\x00"]}) == {"task_ids[1]"}
    assert faults(api, path, {"task_ids": [None]}) == {"task_ids[0]"}


def test_annotators_bring_a_job_from_its_first_claim_to_its_export(api: Api) -> None:
    job = api.shop.processing(make_chunk(3, bad=1))
    for option in ("cat", "dog", "cat"):
        annotator = api.new_annotator()
        label(api, annotator, *((task["task_id"], option) for task in claim(api, annotator)))
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (shown["status"], shown["progress_percent"]) == ("completed", 100)
    assert (shown["tasks_done"], shown["tasks_failed"], shown["total_tasks"]) == (3, 1, 4)
    lines = [
        json.loads(line) for line in api.get(f"/v1/jobs/{job.job_id}/export").text.splitlines()
    ]
    assert [line["votes"] for line in lines] == [{"cat": 2, "dog": 1, "fox": 0}] * 3


def test_a_customers_key_gets_no_work_and_an_annotators_no_job(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    label = {"labels": [{"task_id": "x", "label": "y"}]}
    customers = [
        api.post("/v1/annotation/claim", {"limit": 1}, api.customer),
        api.post("/v1/annotation/labels", label, api.customer),
        api.post("/v1/annotation/release", {"task_ids": ["x"]}, api.customer),
    ]
    annotators = [
        api.post("/v1/jobs", JOB_BODY, api.annotator),
        *(
            api.get(f"/v1/jobs/{job_id}{path}", api.annotator)
            for job_id in (job.job_id, new_id("job"))
            for path in ("", "/export", "/errors")
        ),
    ]
    for answers, wanted in (
        (customers, "takes an annotator's key"),
        (annotators, "a customer's key"),
    ):
        assert {answer.status_code for answer in answers} == {403}
        # Nobody learns from it which jobs there are.
        (body,) = {answer.content for answer in answers}
        assert b'"code":"forbidden"' in body
        assert wanted in body.decode()
    assert api.shop.value("select count(*) from leases") == 0
