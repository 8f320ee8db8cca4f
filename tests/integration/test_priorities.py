"""An operator changes the priority of a job: claims and launches go by it at once."""

import pytest

from blocks.store import customers, job_changes, jobs
from tests.support.api_world import Api
from tests.support.cli import Cli
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, Shop, make_chunk, take

pytestmark = pytest.mark.integration


def test_claims_and_launches_follow_at_once(shop: Shop) -> None:
    _, second = shop.submit(), shop.submit()
    _, labelled = (shop.processing(make_chunk(2), priority=6) for _ in range(2))
    assert shop.do(job_changes.set_priority, second.job_no, 9) == 5
    assert shop.do(job_changes.set_priority, second.job_no, 9) is None
    assert shop.do(job_changes.set_priority, labelled.job_no, 7) == 6
    taken = take(shop)
    assert taken is not None
    assert taken.job_id == second.job_id
    assert {task.job.job_id for task in shop.claim(shop.annotator(), 2)} == {labelled.job_id}


def test_a_delivery_that_comes_due_has_the_new_priority(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=1, delivery=DELIVERY)
    annotator = shop.annotator()
    (claimed,) = shop.claim(annotator)
    with shop.held() as operator:
        assert job_changes.set_priority(operator, job.job_no, 8) == 5
        last = Side(lambda: shop.label(annotator, (claimed.task_id, "cat")))
        shop.wait_for_waiters(1)
    last.join()
    assert shop.value("select priority from runs") == 8


def test_of_operators_at_once_each_sees_what_the_other_has_set(shop: Shop) -> None:
    job = shop.submit()
    earlier = at_once(
        *(lambda n=n: shop.do(job_changes.set_priority, job.job_no, n) for n in (7, 8))
    )
    last = shop.job(job).priority
    assert set(earlier) == {5, 15 - last}
    assert shop.value("select priority from runs") == last


def test_a_launcher_that_is_just_taking_the_job_waits_and_takes_it(shop: Shop) -> None:
    job = shop.submit()
    with shop.held() as operator:
        job_changes.set_priority(operator, job.job_no, 1)
        launcher = Side(lambda: take(shop))
        shop.wait_for_waiters(1)
    taken = launcher.join()
    assert taken is not None
    assert taken.job_id == job.job_id


def test_priorities_are_changed_by_the_api_and_from_a_terminal(
    api: Api, cli: Cli, shop: Shop
) -> None:
    key = shop.do(customers.add_admin_key, "Ona")
    admin = api.bearer(key)
    job, other = shop.submit(), shop.submit()
    path = f"/v1/operations/jobs/{job.job_id}"

    def change(body: object, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
        answer = api.client.patch(path, json=body, headers=headers)
        return answer.status_code, answer.json()

    for headers in (api.customer, api.annotator):
        assert change({"priority": 7}, headers)[0] == 403
    for wrong in ({"priority": 10}, {"priority": "7"}, {}, {"priority": 7, "question": "?"}):
        assert change(wrong, admin)[0] == 400
    for _ in range(2):
        status, shown = change({"priority": 7}, admin)
        assert (status, shown["priority"]) == (200, 7)
    cli.say(REFINERY_API_KEY=key)
    dry = cli.done("ops", "priority", "--to", "7", "--status", "accepted", "--dry-run")
    assert dry.out == f"{other.job_id}  would be asked to go by priority 7\n"
    done = cli.done("ops", "priority", "--to", "2", job.job_id, other.job_id)
    assert done.out.count("has priority 2") == 2
    assert cli("ops", "priority", "--to", "10", job.job_id).code == 2
    shop.do(jobs.cancel, job.job_no)
    assert change({"priority": 3}, admin)[1]["code"] == "job_ended"
    lines = shop.run(
        "select details from audit_log where action = 'job_priority_changed' order by audit_no"
    )
    assert [line["details"] for line in lines] == [
        {"priority": 7, "earlier": 5}, {"priority": 2, "earlier": 7}, {"priority": 2, "earlier": 5},
    ]  # fmt: skip
