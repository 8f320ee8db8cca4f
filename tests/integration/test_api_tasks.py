"""Tasks over HTTP, one by one: submitted, looked at, labelled, their results taken away."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from httpx import Response
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from litestar.testing import TestClient

from blocks.domain.ids import new_id, task_no
from blocks.domain.model import GoodLine
from blocks.settings import Settings
from blocks.store import chunks, jobs
from tests.support.api_world import Api, make_app
from tests.support.store_shop import OPTIONS, Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration

TASK: dict[str, Any] = {
    "type": "sentiment",
    "data_url": "https://img.example.com/1.jpg",
    "label_spec": {"question": "How does it feel?", "options": OPTIONS},
}
QUICK = TASK | {"consensus_threshold": 2}
STILL_LABELLED = {"status": "in_progress", "message": "Task is still being labeled."}


def submit(api: Api, **changes: Any) -> str:
    """The id of a new task."""
    response = api.post("/v1/tasks", TASK | changes)
    assert response.status_code == 202, response.text
    return str(response.json()["task_id"])


def submit_batch(api: Api, *tasks: dict[str, Any], **more: Any) -> list[str]:
    """The ids of new tasks."""
    response = api.post("/v1/tasks/batch", {"tasks": tasks, **more})
    assert response.status_code == 202, response.text
    return list(response.json()["task_ids"])


def send(api: Api, path: str, body: str) -> Response:
    headers = {**api.customer, "Content-Type": "application/json"}
    return api.client.post(path, content=body, headers=headers)


def shown(api: Api, id_: str) -> dict[str, Any]:
    response = api.get(f"/v1/tasks/{id_}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def state(api: Api, id_: str) -> tuple[str, str | None]:
    found = shown(api, id_)
    return found["status"], found["reason"]


def result(api: Api, id_: str) -> dict[str, Any]:
    response = api.get(f"/v1/tasks/{id_}/result")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def count(api: Api) -> int:
    """Tasks that are recorded, inline or from a manifest."""
    return len(api.shop.tasks())


def faults(api: Api, body: Any, path: str = "/v1/tasks") -> list[str]:
    """The fields that are at fault."""
    response = api.post(path, body)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error", "code", "details"}
    assert response.json()["code"] == "invalid_request"
    assert all(fault["message"] for fault in response.json()["details"])
    return [fault["field"] for fault in response.json()["details"]]


def container(id_: str) -> str:
    """The id of the job that an inline task hangs on, which nobody should see."""
    return "job_" + id_.removeprefix("tsk_")[:22]


# Submitting a task


def test_a_task_is_accepted(api: Api) -> None:
    response = api.post("/v1/tasks", TASK)
    assert response.status_code == 202
    answer = response.json()
    assert set(answer) == {"task_id", "status", "created_at"}
    assert answer["task_id"].startswith("tsk_")
    assert answer["status"] == "pending"
    assert answer["created_at"].endswith("Z")
    assert shown(api, answer["task_id"])["created_at"] == answer["created_at"]


def test_what_is_not_said_has_the_defaults_of_the_contract(api: Api) -> None:
    id_ = submit(api)
    found = shown(api, id_)
    assert found.pop("created_at").endswith("Z")
    assert found == TASK | {
        "task_id": id_,
        "status": "pending",
        "reason": None,
        "consensus_threshold": 3,
        "consensus": {"method": "majority"},
        "stop_early": False,
        "skips_max": 3,
        "labels": 0,
        "skips": [],
        "metadata": None,
        "callback_url": None,
        "job_id": None,
        "line": None,
        "batch_id": None,
        "settled_at": None,
    }


def test_what_is_said_is_what_is_recorded_and_shown(api: Api) -> None:
    said = {
        "type": "moderation",
        "data_url": "s3://pictures/a+b%20ü.jpg",
        "label_spec": {"question": " ¿Qué? 🦊 ", "options": ["a", " b", "🦊"]},
        "consensus_threshold": 10,
        "stop_early": True,
        "callback_url": "https://hooks.example.com/x?y=z",
        "metadata": {"z": [1, None, {"é": "\t"}], "a": True},
    }
    found = shown(api, submit(api, **said))
    assert {field: found[field] for field in said} == said
    assert list(found["metadata"]) == ["z", "a"]


def test_each_kind_of_data_url_is_accepted(api: Api) -> None:
    for url in ("http://a.example/", "https://a.example/b?c#d", "s3://abc/d", "gs://abc/d/e"):
        assert shown(api, submit(api, data_url=url))["data_url"] == url


def test_null_is_the_same_as_nothing_where_a_field_is_optional(api: Api) -> None:
    fields = {"metadata": None, "callback_url": None, "idempotency_key": None}
    assert shown(api, submit(api, **fields))["metadata"] is None
    assert shown(api, submit(api, metadata={}))["metadata"] == {}


def test_every_fault_of_a_task_is_told_at_once(api: Api) -> None:
    body = {
        "type": "guessing",
        "data_url": "ftp://x/y",
        "label_spec": {"question": " ", "options": ["a", "a"], "extra": 1},
        "consensus_threshold": 0,
        "stop_early": "yes",
        "callback_url": "http://insecure.example.com",
        "metadata": [],
        "idempotency_key": "",
        "priority": 5,
    }
    assert set(faults(api, body)) == {
        "type", "data_url", "label_spec.question", "label_spec.options", "label_spec.extra",
        "consensus_threshold", "stop_early", "callback_url", "metadata", "idempotency_key", "priority",
    }  # fmt: skip
    assert set(faults(api, {})) == {"type", "data_url", "label_spec"}
    assert (count(api), api.shop.value("select count(*) from jobs")) == (0, 0)


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"type": None}, "type"),
    ({"type": "Sentiment"}, "type"),
    ({"data_url": None}, "data_url"),
    ({"data_url": ""}, "data_url"),
    ({"data_url": "/relative"}, "data_url"),
    ({"data_url": "https://"}, "data_url"),
    ({"data_url": "file:///etc/passwd"}, "data_url"),
    ({"data_url": "https://a.example/" + "x" * 2048}, "data_url"),
    ({"data_url": "https://a.example/\x00"}, "data_url"),
    ({"label_spec": None}, "label_spec"),
    ({"label_spec": {"question": "?", "options": ["a"]}}, "label_spec.options"),
    ({"label_spec": {"question": "?", "options": ["a", ""]}}, "label_spec.options"),
    ({"label_spec": {"question": "?", "options": ["a", "b\x00"]}}, "label_spec.options[1]"),
    ({"label_spec": {"question": "?", "options": list(map(str, range(101)))}}, "label_spec.options"),
    ({"label_spec": {"question": "", "options": OPTIONS}}, "label_spec.question"),
    ({"label_spec": {"options": OPTIONS}}, "label_spec.question"),
    ({"consensus_threshold": 11}, "consensus_threshold"),
    ({"consensus_threshold": "3"}, "consensus_threshold"),
    ({"consensus_threshold": 3.0}, "consensus_threshold"),
    ({"consensus_threshold": None}, "consensus_threshold"),
    ({"stop_early": 1}, "stop_early"),
    ({"callback_url": "https://"}, "callback_url"),
    ({"metadata": "text"}, "metadata"),
    ({"metadata": 0}, "metadata"),
    ({"metadata": {"deep": [{"er": "\x00"}]}}, "metadata.deep[0].er"),
    ({"metadata": {"a": "x" * 64 * 1024}}, "metadata"),
    ({"idempotency_key": "k" * 256}, "idempotency_key"),
    ({"idempotency_key": 7}, "idempotency_key"),
    ({"task_type": "sentiment"}, "task_type"),
    ({"job_id": "job_x"}, "job_id"),
]  # fmt: skip


def test_a_fault_is_told_by_the_name_of_its_field_in_a_batch_by_its_path(api: Api) -> None:
    strayed = []
    for change, field in FAULTS:
        found = faults(api, TASK | change)
        batch = faults(api, {"tasks": [TASK, TASK | change]}, "/v1/tasks/batch")
        if (found, batch) != ([field], [f"tasks[1].{field}"]):
            strayed.append((change, found, batch))
    assert strayed == []
    assert count(api) == 0


def test_a_body_that_is_no_object_is_refused(api: Api) -> None:
    for path in ("/v1/tasks", "/v1/tasks/batch"):
        for body in ("[]", '"text"', "17", "null"):
            response = send(api, path, body)
            assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


# Metadata

METADATA = (
    '{ "n": 1.10, "exact":0.12345678901234567890123, "big":123456789012345678901234567890,\n'
    '"small": -0.0, "e":"\\u00e9\\/", "dup":1, "dup":2, "none": null }'
)


def test_metadata_is_kept_as_it_was_written(api: Api) -> None:
    task = json.dumps(TASK | {"stop_early": True})[:-1] + f', "metadata" :  {METADATA} }}'
    one = send(api, "/v1/tasks", task).json()["task_id"]
    batch = send(api, "/v1/tasks/batch", f'{{"tasks": [{task}]}}').json()["task_ids"]
    claimed = api.post("/v1/annotation/claim", {"limit": 2}, api.annotator)
    assert claimed.text.count(METADATA) == 2
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat")
    for id_ in (one, *batch):
        assert METADATA in api.get(f"/v1/tasks/{id_}").text
        assert METADATA in api.get(f"/v1/tasks/{id_}/result").text


def test_a_claim_has_an_equal_object_and_no_metadata_where_there_is_none(api: Api) -> None:
    submit(api, metadata={"a": {"b": [1, 2.5, "c"]}})
    submit(api)
    submit(api, metadata={})
    response = api.post("/v1/annotation/claim", {"limit": 3}, api.annotator)
    found = [task.get("metadata", "absent") for task in response.json()["tasks"]]
    assert found == [{"a": {"b": [1, 2.5, "c"]}}, "absent", {}]


def test_metadata_may_be_64_kib_and_nested_and_no_more(api: Api) -> None:
    largest = {"a": "x" * (64 * 1024 - len('{"a":"","b":"0123"}')), "b": "0123"}
    assert len(msgspec.json.encode(largest)) == 64 * 1024
    task = json.dumps(TASK)[:-1] + ',"metadata":'
    body = task + msgspec.json.encode(largest).decode() + "}"
    assert send(api, "/v1/tasks", body).status_code == 202
    assert send(api, "/v1/tasks", body.replace("0123", "01234")).status_code == 400
    for depth in (100, 500, 900, 1000, 2000, 100_000):
        answer = send(api, "/v1/tasks", task + '{"a":' * depth + "1" + "}" * depth + "}")
        assert answer.status_code == (202 if depth <= 500 else answer.status_code)
        assert answer.status_code in (202, 400)
        if answer.status_code == 202:
            assert api.get(f"/v1/tasks/{answer.json()['task_id']}").status_code == 200


# Idempotency


def test_the_same_key_and_body_return_the_same_task_and_its_current_status(api: Api) -> None:
    task = QUICK | {"idempotency_key": "k" * 255, "metadata": {"a": 1.10}}
    first = api.post("/v1/tasks", task)
    assert (first.status_code, "idempotent" in first.json()) == (202, False)

    def replay() -> str:
        response = api.post("/v1/tasks", dict(reversed(task.items())))
        assert response.status_code == 200
        assert response.json() == first.json() | {
            "status": response.json()["status"],
            "idempotent": True,
        }
        return str(response.json()["status"])

    one, two = api.shop.annotators(2)
    found = [replay()]
    api.shop.claim(one)
    found.append(replay())
    api.shop.answer(two, "cat")
    api.shop.label(one, (first.json()["task_id"], "cat"))
    found.append(replay())
    assert found == ["pending", "in_progress", "settled"]
    assert count(api) == 1


def test_the_same_key_and_another_body_are_a_conflict(api: Api) -> None:
    submit(api, idempotency_key="one", metadata={"a": 1})
    for change in (
        {"metadata": {"a": 2}},
        {"metadata": None},
        {"type": "moderation"},
        {"consensus_threshold": 4},
        {"data_url": "https://img.example.com/2.jpg"},
        {"callback_url": "https://hooks.example.com/"},
    ):
        task = TASK | {"idempotency_key": "one", "metadata": {"a": 1}} | change
        answers = [
            api.post("/v1/tasks", task),
            api.post("/v1/tasks/batch", {"tasks": [TASK, task]}),
        ]
        for response in answers:
            assert response.status_code == 409, change
            assert set(response.json()) == {"error", "code"}
            assert response.json()["code"] == "idempotency_conflict"
            assert "one" in response.json()["error"]
    assert count(api) == 1


def test_numbers_that_floats_take_for_equal_are_another_body(api: Api) -> None:
    def task(number: str) -> str:
        return json.dumps(TASK | {"idempotency_key": "k", "metadata": {}}).replace(
            "{}", f'{{"n":{number}}}'
        )

    assert send(api, "/v1/tasks", task("0.1")).status_code == 202
    assert send(api, "/v1/tasks", task("0.1")).status_code == 200
    assert send(api, "/v1/tasks", task("0.10000000000000000001")).status_code == 409


def test_a_key_is_a_customers_own(api: Api) -> None:
    task = TASK | {"idempotency_key": "one"}
    first = api.post("/v1/tasks", task).json()
    other = api.post("/v1/tasks", task | {"metadata": {}}, api.new_customer())
    assert other.status_code == 202
    assert other.json()["task_id"] != first["task_id"]


def test_a_refused_body_does_not_use_up_its_key(api: Api) -> None:
    assert api.post("/v1/tasks", {"idempotency_key": "one"}).status_code == 400
    submit(api, idempotency_key="one")


def test_without_a_key_the_same_body_is_another_task(api: Api) -> None:
    assert submit(api) != submit(api)


def test_in_a_batch_a_key_stands_for_one_task_however_often_it_comes(api: Api) -> None:
    old = submit(api, idempotency_key="old")
    keyed = {key: TASK | {"idempotency_key": key} for key in ("old", "new")}
    moderation = TASK | {"type": "moderation", "idempotency_key": "other rule"}
    batch = [keyed["new"], TASK, keyed["old"], moderation, keyed["new"], moderation, TASK]
    found = submit_batch(api, *batch)
    assert found[2] == old
    assert found[0] == found[4]
    assert found[3] == found[5]
    assert len(set(found)) == 5
    assert count(api) == 5
    assert submit_batch(api, keyed["new"], moderation) == [found[0], found[3]]
    assert api.post("/v1/tasks", keyed["new"]).json()["task_id"] == found[0]


def test_in_a_batch_one_key_with_two_bodies_is_a_conflict_and_nothing_is_recorded(api: Api) -> None:
    tasks = [TASK | {"idempotency_key": "k", "metadata": {"n": n}} for n in range(2)]
    response = api.post("/v1/tasks/batch", {"tasks": [TASK, *tasks]})
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_conflict")
    assert count(api) == 0
    assert submit_batch(api, tasks[1])


def test_the_callback_url_of_the_batch_is_a_part_of_what_a_key_stands_for(api: Api) -> None:
    keyed = TASK | {"idempotency_key": "k"}
    there = "https://hooks.example.com/there"
    found = submit_batch(api, keyed, callback_url=there)
    assert submit_batch(api, keyed, callback_url=there) == found
    for other in ({}, {"callback_url": "https://hooks.example.com/elsewhere"}):
        response = api.post("/v1/tasks/batch", {"tasks": [keyed], **other})
        assert response.status_code == 409


# Batches


def test_a_batch_is_accepted(api: Api) -> None:
    response = api.post("/v1/tasks/batch", {"tasks": [TASK, QUICK, TASK]})
    assert response.status_code == 202
    answer = response.json()
    assert set(answer) == {"batch_id", "task_count", "status", "task_ids"}
    assert answer["batch_id"].startswith("bat_")
    assert (answer["task_count"], answer["status"]) == (3, "accepted")
    assert len(set(answer["task_ids"])) == 3
    assert {shown(api, id_)["batch_id"] for id_ in answer["task_ids"]} == {answer["batch_id"]}


def test_the_ids_of_a_batch_are_in_the_order_of_its_tasks_whatever_their_rules(api: Api) -> None:
    tasks = [
        TASK | {"data_url": f"https://img.example.com/{n}", "consensus_threshold": 2 + n % 3}
        for n in range(12)
    ]
    found = [shown(api, id_) for id_ in submit_batch(api, *tasks)]
    assert [task["data_url"] for task in found] == [task["data_url"] for task in tasks]
    assert [task["consensus_threshold"] for task in found] == [2, 3, 4] * 4


def test_a_batch_has_one_to_a_thousand_tasks(api: Api) -> None:
    path = "/v1/tasks/batch"
    assert len(set(submit_batch(api, *[TASK] * 1000))) == 1000
    assert faults(api, {"tasks": [TASK] * 1001}, path) == ["tasks"]
    # What is too long is not looked into: each item could hold a fault.
    bad = {**TASK, "type": "x"}
    assert faults(api, {"tasks": [bad] + [TASK] * 1000}, path) == ["tasks"]
    assert faults(api, {"tasks": []}, path) == ["tasks"]
    assert faults(api, {}, path) == ["tasks"]
    assert faults(api, {"tasks": TASK}, path) == ["tasks"]
    assert count(api) == 1000


def test_every_fault_of_a_batch_is_told_at_once_and_nothing_is_recorded(api: Api) -> None:
    body = {
        "tasks": [
            {},
            TASK,
            TASK | {"mood": 1, "consensus_threshold": 99},
            TASK | {"label_spec": {"question": "?", "options": ["a", "a"]}},
            7,
            TASK | {"metadata": 5},
            TASK | {"data_url": "https://a.example/\x00"},
        ],
        "callback_url": "http://insecure.example.com",
        "batch_id": "bat_x",
    }
    assert set(faults(api, body, "/v1/tasks/batch")) == {
        "tasks[0].type", "tasks[0].data_url", "tasks[0].label_spec", "tasks[2].mood",
        "tasks[2].consensus_threshold", "tasks[3].label_spec.options", "tasks[4]", "tasks[5].metadata",
        "tasks[6].data_url", "callback_url", "batch_id",
    }  # fmt: skip
    assert (count(api), api.shop.value("select count(*) from jobs")) == (0, 0)


def test_the_callback_url_of_a_batch_is_for_tasks_without_their_own(api: Api) -> None:
    own, common = "https://hooks.example.com/own", "https://hooks.example.com/all"
    found = submit_batch(api, TASK, TASK | {"callback_url": own}, callback_url=common)
    assert [shown(api, id_)["callback_url"] for id_ in found] == [common, own]


def test_the_answer_to_a_thousand_bad_tasks_is_bounded(api: Api) -> None:
    assert 0 < len(faults(api, {"tasks": [{}] * 1000}, "/v1/tasks/batch")) <= 100


@pytest.fixture
def small_bodies(api_settings: Settings, shop: Shop) -> Iterator[Api]:
    settings = msgspec.structs.replace(api_settings, request_bytes_max=1000)
    with TestClient(make_app(settings)) as client:
        yield Api(client, shop)


def test_a_body_may_be_as_large_as_the_settings_say_and_no_larger(small_bodies: Api) -> None:
    for path, body in (("/v1/tasks", TASK), ("/v1/tasks/batch", {"tasks": [TASK]})):
        text = json.dumps(body)
        assert send(small_bodies, path, text.ljust(1000)).status_code == 202
        refused = send(small_bodies, path, text.ljust(1001))
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


# Who may see it


def test_another_customers_task_is_as_one_that_never_existed(api: Api) -> None:
    other = api.new_customer()
    manifest = api.shop.processing(make_chunk(1)).task_id(0)
    mine = submit(api)
    for path in ("", "/result"):
        answers = [
            api.get(f"/v1/tasks/{id_}{path}", headers)
            for id_, headers in (
                (mine, other),
                (manifest, other),
                (f"{new_id('tsk')}0", api.customer),
                (f"{mine}f", api.customer),
                (f"{mine}ffffffffffffffff", api.customer),
                (mine.upper(), api.customer),
                (container(mine), api.customer),
                ("x", api.customer),
            )
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert {answer.content for answer in answers} == {
            b'{"error":"There is no such task.","code":"task_not_found"}'
        }


def test_what_inline_tasks_hang_on_is_not_to_be_seen(api: Api) -> None:
    hidden = container(submit(api))
    assert api.shop.value("select count(*) from jobs where job_id = %s", hidden) == 1
    for path in ("", "/export", "/errors", "/quality", "/quality/changes"):
        answer = api.get(f"/v1/jobs/{hidden}{path}")
        nothing = api.get(f"/v1/jobs/{new_id('job')}{path}")
        assert (answer.status_code, answer.content) == (404, nothing.content)


def test_customers_with_the_same_question_do_not_meet(api: Api) -> None:
    one = submit(api)
    two = api.post("/v1/tasks", TASK, api.new_customer()).json()["task_id"]
    assert container(one) != container(two)
    assert container(one) == container(submit(api))


def test_an_annotators_key_submits_and_sees_no_task(api: Api) -> None:
    id_ = submit(api)
    answers = [
        api.post("/v1/tasks", TASK, api.annotator),
        api.post("/v1/tasks", {}, api.annotator),
        api.post("/v1/tasks/batch", {"tasks": [TASK]}, api.annotator),
        *(api.get(f"/v1/tasks/{each}", api.annotator) for each in (id_, "x")),
        api.get(f"/v1/tasks/{id_}/result", api.annotator),
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    assert count(api) == 1


# The life of a task


def test_a_task_goes_from_pending_over_in_progress_to_settled(api: Api) -> None:
    first, second = submit_batch(api, QUICK, QUICK)
    one, two = api.shop.annotators(2)
    assert state(api, first) == ("pending", None)
    api.shop.claim(one, 1)
    assert [state(api, id_)[0] for id_ in (first, second)] == ["in_progress", "pending"]
    api.shop.label(one, (first, "cat"))
    assert state(api, first) == ("in_progress", None)
    assert shown(api, first)["settled_at"] is None
    api.shop.claim(two, 1)
    api.shop.label(two, (first, "cat"))
    assert state(api, first) == ("settled", None)
    assert shown(api, first)["settled_at"] >= shown(api, first)["created_at"]
    assert state(api, second)[0] == "pending"


def test_a_task_that_was_handed_back_stays_in_progress(api: Api) -> None:
    id_ = submit(api)
    annotator = api.shop.annotator()
    api.shop.claim(annotator)
    api.shop.release(annotator, id_)
    assert state(api, id_) == ("in_progress", None)


def test_a_task_without_consensus_has_failed_and_a_result_that_says_so(api: Api) -> None:
    options = ["a", "b", "c", "d"]
    id_ = submit(
        api, consensus_threshold=2, label_spec={"question": "?", "options": options}, metadata={}
    )
    for option in options:
        assert api.get(f"/v1/tasks/{id_}/result").status_code == 202
        api.shop.answer(api.shop.annotator(), option)
    assert state(api, id_) == ("failed", "no_consensus")
    found = result(api, id_)
    assert found.pop("created_at") < found.pop("settled_at")
    assert found == {
        "task_id": id_,
        "line": None,
        "data_url": TASK["data_url"],
        "metadata": {},
        "status": "failed",
        "reason": "no_consensus",
        "consensus_label": None,
        "confidence": None,
        "worker_count": 4,
        "agreement_count": 1,
        "votes": dict.fromkeys(options, 1),
    }


def test_tasks_of_a_job_that_failed_have_failed_too_but_for_those_that_had_settled(
    api: Api,
) -> None:
    job = api.shop.processing(make_chunk(3), ingested=False, consensus_threshold=2)
    settled, begun, untouched = (job.task_id(n) for n in range(3))
    one, two = api.shop.annotators(2)
    for annotator in (one, two):
        api.shop.claim(annotator, 2)
        api.shop.label(annotator, (settled, "cat"))
    api.shop.label(one, (begun, "dog"))
    api.shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    assert state(api, settled) == ("settled", None)
    assert [state(api, id_) for id_ in (begun, untouched)] == [("failed", "job_failed")] * 2
    assert [result(api, id_)["worker_count"] for id_ in (begun, untouched)] == [1, 0]
    assert result(api, untouched)["settled_at"] is None


def test_tasks_of_a_cancelled_job_have_failed_as_cancelled(api: Api) -> None:
    job = api.shop.processing(make_chunk(2), consensus_threshold=2)
    begun, untouched = (job.task_id(n) for n in range(2))
    api.shop.claim(api.shop.annotator(), 1)
    api.shop.run("update jobs set status = 'cancelled' where job_no = %s", job.job_no)
    for id_ in (begun, untouched):
        assert state(api, id_) == ("failed", "cancelled")
        found = result(api, id_)
        assert (found["status"], found["reason"]) == ("failed", "cancelled")
        assert (found["consensus_label"], found["votes"]) == (None, dict.fromkeys(OPTIONS, 0))


def test_until_there_is_a_result_the_answer_is_that_of_the_contract(api: Api) -> None:
    id_ = submit(api)
    for annotator in (None, api.shop.annotator()):
        if annotator:
            api.shop.answer(annotator, "cat")
        response = api.get(f"/v1/tasks/{id_}/result")
        assert (response.status_code, response.json()) == (202, STILL_LABELLED)


def test_a_result_has_the_fields_of_an_export_line(api: Api) -> None:
    texts = ['{"a": 1.10, "b":[]}', None, "null"]
    lines = [
        GoodLine(n * 50, n + 1, f"https://a.example/{n}", text) for n, text in enumerate(texts)
    ]
    job = api.shop.processing(Chunk(3, lines, []))
    for option in ("cat", "dog", "cat"):
        api.shop.answer(api.shop.annotator(), option)
    export = api.get(f"/v1/jobs/{job.job_id}/export").text.splitlines()
    assert len(export) == 3
    for line in map(json.loads, export):
        found = result(api, line["task_id"])
        for time in ("created_at", "settled_at"):
            assert datetime.fromisoformat(found[time]) == datetime.fromisoformat(line[time])
            found[time] = line[time]
        assert list(found.items()) == list(line.items())


def test_the_result_of_an_inline_task_is_as_an_export_line_without_a_number(api: Api) -> None:
    id_ = submit(api, metadata={"a": "b"})
    for option in ("cat", "dog", "cat"):
        api.shop.answer(api.shop.annotator(), option)
    found = result(api, id_)
    assert found.pop("created_at") < found.pop("settled_at")
    assert found == {
        "task_id": id_,
        "line": None,
        "data_url": TASK["data_url"],
        "metadata": {"a": "b"},
        "status": "settled",
        "consensus_label": "cat",
        "confidence": 2 / 3,
        "worker_count": 3,
        "agreement_count": 2,
        "votes": {"cat": 2, "dog": 1, "fox": 0},
    }


def test_a_task_of_a_manifest_is_shown_with_its_job_and_line(api: Api) -> None:
    job = api.shop.processing(
        make_chunk(2, bad=1),
        make_chunk(2, start=1000),
        consensus_threshold=2,
        stop_early=True,
        callback_url="https://hooks.example.com/job",
    )
    found = shown(api, job.task_id(task_no(1, 1)))
    assert datetime.fromisoformat(found.pop("created_at")) <= datetime.now().astimezone()
    assert found == {
        "task_id": job.task_id(task_no(1, 1)),
        "status": "pending",
        "reason": None,
        "type": "image_classification",
        "data_url": "https://img.example.com/1001.jpg",
        "label_spec": {"question": "What is it?", "options": OPTIONS},
        "consensus_threshold": 2,
        "consensus": {"method": "majority"},
        "stop_early": True,
        "skips_max": 3,
        "labels": 0,
        "skips": [],
        "metadata": None,
        "callback_url": "https://hooks.example.com/job",
        "job_id": job.job_id,
        "line": 5,
        "batch_id": None,
        "settled_at": None,
    }
    bad = job.task_id(2)
    assert api.get(f"/v1/tasks/{bad}").status_code == 404


def test_a_line_has_no_number_before_all_chunks_before_its_own_are_there(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), ingested=False)
    api.shop.do(chunks.commit, job.job_no, 2, make_chunk(1, start=2000), None)
    id_ = job.task_id(task_no(2, 0))
    assert shown(api, id_)["line"] is None
    api.shop.do(chunks.commit, job.job_no, 1, make_chunk(3, start=1000), None)
    assert shown(api, id_)["line"] == 5


# Inline tasks among annotators


def test_inline_tasks_are_claimed_like_others(api: Api) -> None:
    id_ = submit(api)
    api.shop.processing(make_chunk(1))
    response = api.post(
        "/v1/annotation/claim", {"limit": 9, "task_types": ["sentiment"]}, api.annotator
    )
    (task,) = response.json()["tasks"]
    assert task.pop("lease_expires_at").endswith("Z")
    assert task == {
        "task_id": id_,
        "data_url": TASK["data_url"],
        "task_type": "sentiment",
        "label_spec": TASK["label_spec"],
    }
    body = {"labels": [{"task_id": id_, "label": "cat"}]}
    answer = api.post("/v1/annotation/labels", body, api.annotator)
    assert answer.json()["results"] == [{"task_id": id_, "outcome": "accepted"}]
    assert len(api.shop.claim(api.shop.annotator())) == 2


def test_each_inline_task_has_a_threshold_and_stop_early_of_its_own(api: Api) -> None:
    early = {"stop_early": True, "consensus_threshold": 5}
    tasks = [TASK | early, TASK | {"consensus_threshold": 5}, QUICK]
    ids = submit_batch(api, *tasks)
    settled_after: dict[str, int] = {}
    for n in range(1, 7):
        api.shop.answer(api.shop.annotator(), "fox")
        for id_ in ids:
            if state(api, id_)[0] == "settled":
                settled_after.setdefault(id_, n)
    assert [settled_after[id_] for id_ in ids] == [3, 5, 2]
    assert [result(api, id_)["worker_count"] for id_ in ids] == [3, 5, 2]


def test_where_all_inline_tasks_have_ended_more_can_come(api: Api) -> None:
    for _ in range(3):
        id_ = submit(api, consensus_threshold=2)
        for _ in range(2):
            api.shop.answer(api.shop.annotator(), "cat")
        assert state(api, id_) == ("settled", None)


# The published reference


def test_answers_are_as_the_reference_says(api: Api) -> None:
    schema = api.client.get("/schema/openapi.json").json()
    task = QUICK | {"idempotency_key": "k", "metadata": {"a": 1}}
    first = api.post("/v1/tasks", task)
    bare = api.post("/v1/tasks", QUICK).json()["task_id"]
    id_ = first.json()["task_id"]
    answers = [
        ("post", "/v1/tasks", "202", first),
        ("post", "/v1/tasks", "200", api.post("/v1/tasks", task)),
        ("post", "/v1/tasks", "400", api.post("/v1/tasks", {})),
        ("post", "/v1/tasks", "409", api.post("/v1/tasks", task | {"metadata": {}})),
        ("post", "/v1/tasks/batch", "202", api.post("/v1/tasks/batch", {"tasks": [TASK]})),
        ("get", "/v1/tasks/{task_id}", "200", api.get(f"/v1/tasks/{id_}")),
        ("get", "/v1/tasks/{task_id}", "200", api.get(f"/v1/tasks/{bare}")),
        ("get", "/v1/tasks/{task_id}", "404", api.get("/v1/tasks/x")),
        ("get", "/v1/tasks/{task_id}/result", "202", api.get(f"/v1/tasks/{id_}/result")),
    ]
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat")
    answers += (
        ("get", "/v1/tasks/{task_id}/result", "200", api.get(f"/v1/tasks/{each}/result"))
        for each in (id_, bare)
    )
    for method, path, status, answer in answers:
        assert str(answer.status_code) == status, (method, path)
        expected = schema["paths"][path][method]["responses"][status]["content"]
        whole = {
            **expected["application/json"]["schema"],
            "components": schema["components"],
        }
        errors = [error.message for error in Draft202012Validator(whole).iter_errors(answer.json())]
        assert errors == [], (method, path, status)


def test_what_a_task_takes_is_in_the_reference_as_it_is(api: Api) -> None:
    schemas = api.client.get("/schema/openapi.json").json()["components"]["schemas"]
    task, batch = schemas["TaskBody"], schemas["TasksBody"]
    assert set(task["required"]) == {"type", "label_spec"}
    assert task["properties"]["metadata"]["type"] == ["object", "null"]
    threshold = task["properties"]["consensus_threshold"]
    assert (threshold["minimum"], threshold["maximum"], threshold["default"]) == (1, 10, 3)
    tasks = batch["properties"]["tasks"]
    assert (tasks["minItems"], tasks["maxItems"]) == (1, 1000)
    assert batch["required"] == ["tasks"]
    assert "reason" not in schemas["TaskResult"]["required"]
