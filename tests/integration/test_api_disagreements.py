"""Disagreements over HTTP: who said what of which task, and how pages follow one another."""

from typing import Any

import pytest

from blocks.domain.ids import new_id
from blocks.domain.model import GoodLine
from blocks.store import customers, jobs
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.store_shop import Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration

OPTION_OF = {"c": "cat", "d": "dog", "f": "fox", "o": "owl"}


def make_job(shop: Shop, *votes: str) -> tuple[Job, list[str]]:
    """A job, and the ids of its annotators: `votes[task][n]` is what the nth said of a task."""
    job = shop.processing(
        make_chunk(len(votes)), consensus_threshold=2, options=list(OPTION_OF.values())
    )
    people = shop.annotators(max(map(len, votes)))
    shop.claim(people[0])
    for n, annotator in enumerate(people):
        said = [(task, each[n]) for task, each in enumerate(votes) if n < len(each)]
        shop.label(annotator, *((job.task_id(task), OPTION_OF[o]) for task, o in said))
    ids = [
        shop.value("select annotator_id from annotators where annotator_no = %s", number)
        for number in people
    ]
    return job, ids


def page(api: Api, job: Job, query: str = "") -> dict[str, Any]:
    answer = api.get(f"/v1/jobs/{job.job_id}/disagreements{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def numbers(found: dict[str, Any], job: Job) -> list[int]:
    number_of = {job.task_id(number): number for number in range(job.total_tasks)}
    return [number_of[each["task_id"]] for each in found["disagreements"]]


VOTES = ("cc", "cdc", "cd", "cdfo", "c", "dcd")


def test_a_disagreement_says_who_chose_what(api: Api) -> None:
    job, people = make_job(api.shop, *VOTES)
    api.shop.run("update annotators set customer_ids = %s where annotator_id = %s", [api.shop.customer_id], people[0])  # fmt: skip
    name = api.shop.value("select name from annotators where annotator_id = %s", people[0])
    found = page(api, job)
    assert found["next_cursor"] is None
    assert numbers(found, job) == [1, 2, 3, 5]
    settled, open_one, failed, _ = found["disagreements"]
    times = [each.pop("created_at") for each in settled["labels"]]
    assert times == sorted(times)
    assert settled == {
        "task_id": job.task_id(1),
        "line": 2,
        "data_url": "https://img.example.com/1.jpg",
        "metadata": None,
        "status": "settled",
        "reason": None,
        "consensus_label": "cat",
        "confidence": 2 / 3,
        "votes": {"cat": 2, "dog": 1, "fox": 0, "owl": 0},
        "labels": [
            {"annotator_id": people[0], "name": name, "label": "cat"},
            {"annotator_id": people[1], "name": None, "label": "dog"},
            {"annotator_id": people[2], "name": None, "label": "cat"},
        ],
    }
    ends = ("status", "reason", "consensus_label", "confidence")
    assert [open_one[field] for field in ends] == ["in_progress", None, None, None]
    assert [failed[field] for field in ends] == ["failed", "no_consensus", None, None]


@pytest.mark.parametrize(
    "query, tasks",
    [
        ("?status=settled", [1, 5]),
        ("?status=failed", [3]),
        ("?status=in_progress", [2]),
        ("?status=pending", []),
        ("?option=fox", [3]),
        ("?option=dog&status=settled", [1, 5]),
    ],
)
def test_disagreements_are_chosen(api: Api, query: str, tasks: list[int]) -> None:
    job, _ = make_job(api.shop, *VOTES)
    assert numbers(page(api, job, query), job) == tasks


def test_disagreements_of_one_annotator_are_chosen(api: Api) -> None:
    job, people = make_job(api.shop, *VOTES)
    assert numbers(page(api, job, f"?annotator={people[2]}"), job) == [1, 3, 5]
    assert numbers(page(api, job, f"?annotator={people[3]}"), job) == [3]
    assert numbers(page(api, job, f"?annotator={new_id('ann')}"), job) == []


def test_open_tasks_of_a_cancelled_job_have_failed(api: Api) -> None:
    job, _ = make_job(api.shop, *VOTES)
    api.shop.do(jobs.cancel, job.job_no)
    assert numbers(page(api, job, "?status=in_progress"), job) == []
    found = page(api, job, "?status=failed")
    assert [each["reason"] for each in found["disagreements"]] == ["cancelled", "no_consensus"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_follow_one_another(api: Api, limit: int) -> None:
    job, _ = make_job(api.shop, *VOTES)
    found: list[int] = []
    cursor = ""
    while True:
        some = page(api, job, f"?limit={limit}{cursor}")
        assert len(some["disagreements"]) <= limit
        found += numbers(some, job)
        if some["next_cursor"] is None:
            break
        cursor = f"&cursor={some['next_cursor']}"
    assert found == [1, 2, 3, 5]


@pytest.mark.parametrize(
    "query, field",
    [
        ("?cursor=x", "cursor"),
        ("?cursor=-1", "cursor"),
        ("?cursor=1e3", "cursor"),
        ("?cursor=9999999999999999999", "cursor"),
        ("?option=horse", "option"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?status=odd", "status"),
        ("?annotator=ann", "annotator"),
    ],
)
def test_what_is_wrong_is_named(api: Api, query: str, field: str) -> None:
    job, _ = make_job(api.shop, "cd")
    answer = api.get(f"/v1/jobs/{job.job_id}/disagreements{query}")
    assert answer.status_code == 400
    assert [fault["field"] for fault in answer.json()["details"]] == [field]


def test_a_text_and_its_metadata_come_as_they_were_written(api: Api) -> None:
    line = GoodLine(0, 1, None, '{"n": 1.10}', "It rains.")
    job = api.shop.processing(Chunk(1, [line], []), consensus_threshold=3)
    for option in ("cat", "dog"):
        api.shop.answer(api.shop.annotator(), option)
    answer = api.get(f"/v1/jobs/{job.job_id}/disagreements")
    assert '"text":"It rains."' in answer.text
    assert '"metadata":{"n": 1.10}' in answer.text


def test_anothers_job_is_as_one_that_never_existed(api: Api) -> None:
    job, _ = make_job(api.shop, "cd")
    other = api.shop.do(customers.add_customer, "Other")
    key = api.bearer(api.shop.do(customers.add_customer_key, other))
    answer = api.get(f"/v1/jobs/{job.job_id}/disagreements", key)
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
