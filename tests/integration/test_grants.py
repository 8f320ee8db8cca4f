"""Annotators are handed tasks of the customers that they are for, and of no others."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from blocks.domain.model import GoodLine, LabelOutcome
from blocks.store import customers
from blocks.store.annotation import ClaimedTask
from tests.support.api_world import JOB_BODY, Api
from tests.support.books import check_books
from tests.support.store_shop import Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration


def annotator_for(shop: Shop, *customer_ids: str, name: str = "ann") -> int:
    shop.do(customers.add_annotator_key, name, customer_ids)
    found: int = shop.value("select annotator_no from annotators where name = %s", name)
    return found


def job_ids(tasks: Sequence[ClaimedTask]) -> set[str]:
    return {task.job.job_id for task in tasks}


@pytest.fixture
def other(shop: Shop) -> str:
    """The id of a second customer."""
    found: str = shop.do(customers.add_customer, "Other")
    return found


def test_claims_are_of_granted_customers_alone(shop: Shop, other: str) -> None:
    third = shop.do(customers.add_customer, "Third")
    own, theirs, last = (
        shop.processing(make_chunk(3), customer_id=customer_id)
        for customer_id in (shop.customer_id, other, third)
    )
    everybody, one = shop.annotator(), annotator_for(shop, shop.customer_id)
    assert job_ids(shop.claim(everybody)) == {own.job_id, theirs.job_id, last.job_id}
    assert job_ids(shop.claim(one)) == {own.job_id}
    assert shop.claim(one, job_id=theirs.job_id) == []
    # A second grant adds.
    annotator_for(shop, other)
    assert job_ids(shop.claim(one)) == {theirs.job_id}
    assert shop.claim(one) == []


def test_what_others_let_go_of_is_handed_to_granted_annotators_alone(
    shop: Shop, other: str
) -> None:
    job = shop.processing(make_chunk(3), customer_id=other, consensus_threshold=2)
    first, second, third = shop.annotators(3)
    tasks = [task.task_id for task in shop.claim(first)]
    shop.claim(second)
    shop.release(first, *tasks)
    assert shop.claim(annotator_for(shop, shop.customer_id)) == []
    assert len(shop.claim(third)) == 3
    check_books(shop, job)


def test_a_label_for_a_customer_that_was_not_granted_is_of_an_unknown_task(
    shop: Shop, other: str
) -> None:
    shop.processing(make_chunk(2), customer_id=other)
    shop.processing(make_chunk(2))
    handed = [task.task_id for task in shop.claim(shop.annotator(), limit=4)]
    one = annotator_for(shop, shop.customer_id)
    shop.claim(one)
    outcomes = dict(zip(handed, shop.label(one, *((id_, "cat") for id_ in handed)), strict=True))
    theirs = {id_ for id_ in handed if shop.job(shop.find_task(id_)[0]).customer_id == other}
    assert {outcomes[id_] for id_ in theirs} == {LabelOutcome.UNKNOWN_TASK}
    assert {outcomes[id_] for id_ in set(handed) - theirs} == {LabelOutcome.ACCEPTED}
    # Nor is it told whether there is such an option, or whether the task has ended.
    assert set(shop.label(one, *((id_, "no option") for id_ in theirs))) == {
        LabelOutcome.UNKNOWN_TASK
    }
    assert shop.value("select count(*) from labels") == 2


def test_with_the_first_restriction_tasks_of_others_are_taken_back(shop: Shop, other: str) -> None:
    own = shop.processing(make_chunk(3), consensus_threshold=2)
    theirs = shop.processing(make_chunk(3), customer_id=other, consensus_threshold=2)
    one = annotator_for(shop)
    held = shop.claim(one)
    assert job_ids(held) == {own.job_id, theirs.job_id}
    annotator_for(shop, shop.customer_id)
    left = shop.run("select distinct job_no from leases where annotator_no = %s", one)
    assert [row["job_no"] for row in left] == [own.job_no]
    assert shop.release(one, *(t.task_id for t in held if t.job.job_id == theirs.job_id)) == set()
    for job in (own, theirs):
        check_books(shop, job)


# Over HTTP: inline tasks, and metadata


def claimed(api: Api, key: str) -> list[dict[str, Any]]:
    response = api.post("/v1/annotation/claim", {"limit": 100}, api.bearer(key))
    found: list[dict[str, Any]] = response.json()["tasks"]
    return found


def inline(**more: Any) -> dict[str, Any]:
    body = {
        "type": "image_classification",
        "data_url": "https://x.example.com/1.jpg",
        "label_spec": JOB_BODY["label_spec"],
    }
    return body | more


def test_inline_tasks_are_handed_to_granted_annotators_alone(api: Api) -> None:
    other = api.new_customer()
    assert api.post("/v1/tasks", inline()).status_code == 202
    assert api.post("/v1/tasks/batch", {"tasks": [inline(), inline()]}, other).status_code == 202
    _, key = api.shop.do(customers.add_annotator_key, "ann", [api.shop.customer_id])
    assert len(claimed(api, key)) == 1
    assert len(claimed(api, api.shop.do(customers.add_annotator_key, "ben")[1])) == 3


METADATA = '{"a": 1.10,"secret":"x", "b" : [1]}'


@pytest.mark.parametrize(
    "said, shown",
    [
        ({}, METADATA),
        ({"show_metadata": True}, METADATA),
        ({"show_metadata": False}, None),
        ({"show_metadata": []}, None),
        ({"show_metadata": ["a", "b"]}, '{"a":1.10,"b":[1]}'),
        ({"show_metadata": ["absent"]}, None),
    ],
    ids=str,
)
def test_annotators_see_the_metadata_that_the_job_lets_them_see(
    api: Api, said: dict[str, Any], shown: str | None
) -> None:
    accepted = api.submit(JOB_BODY | said)
    assert accepted.status_code == 202, accepted.text
    job = api.shop.job(accepted.json()["job_id"])
    lines = [GoodLine(0, 1, "https://x.example.com/a", METADATA)]
    api.shop.processing(Chunk(1, lines, []), shown_metadata=job.shown_metadata)
    response = api.post("/v1/annotation/claim", {"limit": 1}, api.annotator)
    (task,) = response.json()["tasks"]
    assert task.get("metadata") == (json.loads(shown) if shown else None)
    assert ("metadata" in task) is (shown is not None)
    assert (shown or "").encode() in response.content
    assert api.get(f"/v1/jobs/{job.job_id}").json()["show_metadata"] == (
        said.get("show_metadata", True) or False
    )


def test_so_do_those_of_inline_tasks(api: Api) -> None:
    metadata = {"a": 1, "secret": "x"}
    for said in (True, ["a"], False):
        body = inline(metadata=metadata, show_metadata=said)
        assert api.post("/v1/tasks", body).status_code == 202
    response = api.post("/v1/annotation/claim", {"limit": 3}, api.annotator)
    found = [task.get("metadata") for task in response.json()["tasks"]]
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, [metadata, {"a": 1}, None]))


@pytest.mark.parametrize("said", ["yes", 1, None, [1], [["a"]], {"a": True}, ["x"] * 101])
def test_show_metadata_is_true_false_or_names(api: Api, said: object) -> None:
    for path, body in (("/v1/jobs", JOB_BODY), ("/v1/tasks", inline())):
        answer = api.post(path, body | {"show_metadata": said})
        assert answer.status_code == 400, answer.text
        assert answer.json()["details"][0]["field"].startswith("show_metadata")


def test_a_job_waits_for_annotators_that_are_for_its_customer(api: Api) -> None:
    shop = api.shop
    other = shop.do(customers.add_customer, "Other")
    shop.run("delete from api_keys where annotator_no is not null")  # the fixture's own
    for name in ("ann", "ben", "cat"):
        annotator_for(shop, other, name=name)
    annotator_for(shop, shop.customer_id, other, name="dan")
    job = shop.processing(make_chunk(1), consensus_threshold=3)
    waiting = api.get(f"/v1/jobs/{job.job_id}").json()["waiting_for"]
    assert (waiting["what"], waiting["annotators"]) == ("annotators", 2)
