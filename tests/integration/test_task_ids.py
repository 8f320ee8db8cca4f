"""Ids of tasks by the server and by the store."""

import random
from typing import cast

import pytest

from blocks.domain.ids import new_id, parse_task_id, task_id
from blocks.domain.model import LabelOutcome
from blocks.store import annotation, labelling, task_numbers, tasks
from blocks.store.database import Transaction
from blocks.store.labelling import Label
from tests.support.api_world import Api
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

END = 2**60


def test_the_server_makes_the_same_task_ids(shop: Shop) -> None:
    rng = random.Random(3)
    bounds = [0, 1, 2**30 - 1, 2**30, 2**32 - 1, 2**32, END - 1]
    pairs = [(key, number) for key in bounds for number in bounds]
    pairs += [(rng.randrange(END), rng.randrange(END)) for _ in range(500)]
    rows = shop.run(
        "select task_id('job_x', i.task_key, i.task_no) as id, i.* "
        "from unnest(%s::bigint[], %s::bigint[]) as i (task_key, task_no)",
        *([key for key, _ in pairs], [number for _, number in pairs]),
    )
    assert len(rows) == len(pairs)
    for row in rows:
        assert row["id"] == task_id("job_x", row["task_key"], row["task_no"])


@pytest.mark.parametrize("key", ["-1", "1::bigint << 60"])
def test_a_key_has_60_bits(shop: Shop, key: str) -> None:
    shop.submit()
    with pytest.raises(Exception, match="jobs_task_key_check"):
        shop.run(f"update jobs set task_key = {key}")


def test_every_job_has_a_key_of_its_own(shop: Shop) -> None:
    made = [shop.submit() for _ in range(20)]
    assert len({job.task_key for job in made}) == 20


def test_no_route_shows_the_key(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    job = api.shop.processing(make_chunk(3, gold={1: 1}), consensus_threshold=1)
    task = job.task_id(0)
    by_customer = [
        f"/v1/tasks/{task}", "/v1/jobs", f"/v1/jobs/{job.job_id}",
        *(
            f"/v1/jobs/{job.job_id}/{part}"
            for part in ("export", "errors", "quality", "quality/changes", "disagreements", "history")
        ),
    ]  # fmt: skip
    by_annotator = [
        "/v1/annotation/leases", "/v1/annotation/me", "/v1/annotation/me/labels",
        "/v1/annotation/me/jobs", f"/v1/annotation/jobs/{job.job_id}",
    ]  # fmt: skip
    claim = api.post("/v1/annotation/claim", {"limit": 3}, api.annotator)
    body = {"labels": [{"task_id": id_, "label": "cat"} for id_ in (task, job.task_id(7))]}
    answers = [claim, api.post("/v1/annotation/labels", body, api.annotator)]
    answers += [api.get(path, api.annotator) for path in by_annotator]
    api.post(f"/v1/jobs/{job.job_id}/cancel", None)  # its results can be read then
    answers += [api.get(path) for path in by_customer]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    for shown in (*(answer.text for answer in answers), caplog.text):
        assert str(job.task_key) not in shown


def test_ids_of_no_task_are_unknown(shop: Shop) -> None:
    """Whether they are of another job, of a number that no task has, or of more bits than there are."""
    job = shop.processing(make_chunk(3))
    start = job.task_id(0)[:26]
    annotator = shop.annotator()
    shop.claim(annotator)
    strange = [
        task_id(new_id("job"), job.task_key, 0),
        job.task_id(3),
        job.task_id(END - 1),
        *(f"{start}{number}" for number in (0, 1, END - 1, END, 2**63, 10**19 - 1, 10**30)),
    ]
    assert not {job.task_id(number) for number in range(3)} & set(strange)
    with shop.database.transaction() as tx:
        told = labelling.submit(tx, annotator, [Label(id_, "cat") for id_ in strange])
        assert told == [LabelOutcome.UNKNOWN_TASK] * len(strange)
        assert annotation.release(tx, annotator, strange) == set()
        assert annotation.find_not_handed_out(tx, annotator, strange) == set()
        assert not any(tasks.get(tx, id_, customer_id=shop.customer_id) for id_ in strange)
        assert tasks.get(tx, job.task_id(2), customer_id=shop.customer_id)


def test_keys_are_asked_for_once_and_forgotten_beyond_a_bound(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_numbers, "_KEPT_MAX", 3)
    monkeypatch.setattr(task_numbers, "_kept", {})
    made = [shop.submit() for _ in range(4)]
    wanted = {job.task_id(7): (job.job_id, 7) for job in made}
    for some in (made[:2], made[1:3], made[2:], made[:3]):
        ids = [job.task_id(7) for job in some]
        expected = {id_: wanted[id_] for id_ in ids}
        assert shop.do(task_numbers.find, ids) == expected
        assert len(task_numbers._kept) <= 3
    (last, *_) = wanted.items()
    assert task_numbers.find(cast(Transaction, None), [last[0]]) == dict([last])


def test_the_order_of_ids_is_not_that_of_the_manifest(shop: Shop) -> None:
    job = shop.processing(make_chunk(50))
    claimed = [task.task_id for task in shop.claim(shop.annotator(), 50)]
    assert claimed == [job.task_id(number) for number in range(50)]  # as it has no gold
    assert claimed != sorted(claimed, key=lambda id_: parse_task_id(id_) or ("", 0))
