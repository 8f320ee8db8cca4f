"""Gold over HTTP and through the flow: nothing tells annotators, and the customer may exclude them."""

import json
import random
from collections import Counter
from functools import partial
from typing import Any

import pytest

from blocks.domain.ids import parse_task_id
from blocks.store import jobs
from flows.process_job import process_job
from tests.support.api_world import Api
from tests.support.cli import Cli
from tests.support.flow_world import FlowShop, run
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


def claim(api: Api, headers: dict[str, str], limit: int = 100) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.post(
        "/v1/annotation/claim", {"limit": limit}, headers
    ).json()["tasks"]
    return found


def shape(value: Any) -> Any:
    """What can be seen of a value besides its texts and numbers."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value)


def ids(tasks: list[dict[str, Any]]) -> list[str]:
    return [task["task_id"] for task in tasks]


def held(api: Api, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = f"limit={limit}"
    while query:
        page = api.get(f"/v1/annotation/leases?{query}", api.annotator).json()
        found += page["tasks"]
        query = page["next_cursor"] and f"limit={limit}&cursor={page['next_cursor']}"
    return found


def test_nothing_tells_which_task_is_gold(api: Api) -> None:
    gold = dict.fromkeys(range(0, 60, 6), 1)
    job = api.shop.processing(make_chunk(60, gold=gold), consensus_threshold=1)
    keyed = api.annotator | {"Idempotency-Key": "one"}
    tasks = claim(api, keyed, 30)
    assert {job.task_id(number) for number in gold} & set(ids(tasks))
    # Whatever lists them has the order of their ids, which is not that of the manifest.
    assert ids(tasks) == sorted(ids(tasks), key=lambda id_: parse_task_id(id_) or ("", 0))
    assert claim(api, keyed, 30) == held(api, 100) == held(api, 3) == tasks
    assert all(shape(task) == shape(tasks[0]) for task in tasks)
    assert len({task["lease_expires_at"] for task in tasks}) == 1
    for task in tasks[:3]:  # renewing one renews all of them
        renewal = {"task_ids": [task["task_id"]], "lease_seconds": 6000}
        api.post("/v1/annotation/renew", renewal, api.annotator)
        assert len({each["lease_expires_at"] for each in held(api, 100)}) == 1
    body = {"labels": [{"task_id": task["task_id"], "label": "dog"} for task in tasks]}
    told = api.post("/v1/annotation/labels", body, api.annotator).json()
    assert {entry["outcome"] for entry in told["results"]} == {"settled"}
    assert all(shape(entry) == shape(told["results"][0]) for entry in told["results"])
    own = api.get("/v1/annotation/me/labels", api.annotator).json()["labels"]
    assert all(shape(entry) == shape(own[0]) for entry in own)
    assert ids(own) == ids(tasks)[: -len(own) - 1 : -1]  # as they were sent


def test_the_order_of_a_first_claim_is_that_of_chance(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the first tasks of the manifest, and gold from far behind them: 4 of 10, in each job."""
    monkeypatch.setattr(jobs, "new_task_key", partial(random.Random(2).getrandbits, 60))
    annotator, gold = shop.annotator(), dict.fromkeys((20, 40, 60, 80), 1)
    places: Counter[int] = Counter()
    for _ in range(60):
        job = shop.processing(make_chunk(100, gold=gold))
        claimed = [task.task_id for task in shop.claim(annotator, 10, job_id=job.job_id)]
        assert set(claimed) == {job.task_id(number) for number in (*range(6), *gold)}
        places.update(claimed.index(job.task_id(number)) for number in gold)
    # In each place 24, ± 3.8; on average the place 4.5, ± 0.15.
    assert all(12 < places[place] < 36 for place in range(10))
    assert abs(places.total() * 4.5 - sum(places.elements())) < 0.45 * places.total()


def test_a_manifest_with_gold_is_read(flow_shop: FlowShop) -> None:
    lines = [
        {"data_url": f"https://a.example/{n}"} | ({"gold": "dog"} if n % 50 == 7 else {})
        for n in range(1000)
    ]
    lines[3]["gold"] = "cow"
    flow_shop.put("\n".join(map(json.dumps, lines)).encode())  # several chunks
    job_id = flow_shop.submit()
    assert run(process_job, job_id).is_completed()
    job = flow_shop.job(job_id)
    assert job.has_gold
    assert (job.total_tasks, job.tasks_done, job.tasks_failed) == (1000, 20, 1)
    with flow_shop.database.transaction() as tx:
        numbers = tx.execute("select task_no, option from gold_tasks order by task_no").fetchall()
        codes = tx.execute("select code from bad_lines").fetchall()
    shown = flow_shop.rows(job_id)
    known = {row["task_no"] for row in numbers}
    assert [row["data_url"] for row in shown if row["task_no"] in known] == [
        f"https://a.example/{n}" for n in range(7, 1000, 50)
    ]
    assert {row["option"] for row in numbers} == {job.options.index("dog") + 1}
    assert codes == [{"code": "invalid_gold"}]


def test_an_inline_task_may_be_gold(api: Api) -> None:
    body = {
        "type": "image_classification",
        "data_url": "https://a.example/1",
        "label_spec": {"question": "What is it?", "options": ["cat", "dog"]},
    }
    assert api.post("/v1/tasks", body | {"gold": "cow"}).json()["details"][0]["field"] == "gold"
    for gold in ({}, {"gold": "dog"}, {}, {"gold": None}):
        assert api.post("/v1/tasks", body | gold).status_code == 202
    (job,) = api.shop.run("select has_gold from jobs")
    assert job["has_gold"]
    assert api.shop.run("select task_no, option from gold_tasks") == [{"task_no": 1, "option": 2}]
    assert api.shop.run("select tasks, settled from chunks") == [{"tasks": 4, "settled": 1}]
    assert len(claim(api, api.annotator)) >= 3


# Exclusion


def annotator_id(api: Api, headers: dict[str, str]) -> str:
    found: str = api.get("/v1/annotation/me", headers).json()["annotator_id"]
    return found


def test_a_customer_excludes_an_annotator(api: Api, cli: Cli) -> None:
    job = api.shop.processing(make_chunk(5), consensus_threshold=1)
    other = api.new_annotator()
    (held, *tasks) = claim(api, api.annotator, 4)
    body = {"labels": [{"task_id": task["task_id"], "label": "dog"} for task in tasks]}
    api.post("/v1/annotation/labels", body, api.annotator)
    who = annotator_id(api, api.annotator)
    path = f"/v1/jobs/{job.job_id}/annotators/{who}/exclude"
    assert api.post(path, {}, api.new_customer()).json()["code"] == "job_not_found"
    assert api.post(path.replace(who, "ann_x"), {}).json()["code"] == "annotator_not_found"
    stranger = annotator_id(api, other)
    assert api.post(path.replace(who, stranger), {}).json()["code"] == "annotator_not_found"
    first = api.post(path, {})
    assert first.status_code == 202
    assert (first.json()["labels_set_aside"], first.json()["tasks_reopened"]) == (3, 3)
    assert not first.json()["is_under_way"]
    assert api.post(path, {}).json() == first.json()
    assert claim(api, api.annotator) == []
    asked = api.post("/v1/annotation/claim", {"limit": 1, "job_id": job.job_id}, api.annotator)
    assert (asked.status_code, asked.json()) == (200, {"tasks": [], "retry_after_s": None})
    late = {"labels": [{"task_id": held["task_id"], "label": "dog"}]}
    (told,) = api.post("/v1/annotation/labels", late, api.annotator).json()["results"]
    assert told["outcome"] == "excluded"
    assert api.shop.job(job).tasks_done == 0
    assert len(claim(api, other)) == 5
    events = [line["event"] for line in api.get(f"/v1/jobs/{job.job_id}/history").json()["history"]]
    assert events[-2:] == ["annotator_excluded", "labels_set_aside"]
    shown = cli.done("jobs", "history", job.job_id).out
    assert "labels set aside: 3, tasks reopened: 3" in shown


def test_nobody_is_excluded_from_a_job_that_is_settled(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=1)
    (task,) = claim(api, api.annotator)
    body = {"labels": [{"task_id": task["task_id"], "label": "dog"}]}
    api.post("/v1/annotation/labels", body, api.annotator)
    path = f"/v1/jobs/{job.job_id}/annotators/{annotator_id(api, api.annotator)}/exclude"
    assert api.post(path, {}).json()["code"] == "job_settled"
    assert not any(
        line["event"] == "annotator_excluded"
        for line in api.get(f"/v1/jobs/{job.job_id}/history").json()["history"]
    )
