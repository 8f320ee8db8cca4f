"""What annotators look up: what they hold and for how long, what they have done, where there is work."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from blocks.domain.ids import new_id
from blocks.store import archive, customers, label_batches
from tests.support.api_world import Api
from tests.support.cli import Cli
from tests.support.side import Side
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

Headers = dict[str, str]


def claim(api: Api, headers: Headers | None = None, **body: Any) -> list[str]:
    answer = api.post("/v1/annotation/claim", {"limit": 100} | body, headers or api.annotator)
    return [task["task_id"] for task in answer.json()["tasks"]]


def label(api: Api, *said: tuple[str, str], headers: Headers | None = None) -> None:
    labels = [{"task_id": task, "label": option} for task, option in said]
    answer = api.post("/v1/annotation/labels", {"labels": labels}, headers or api.annotator)
    assert answer.status_code == 200, answer.text


def me(api: Api, headers: Headers | None = None) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/v1/annotation/me", headers or api.annotator).json()
    return found


def history(api: Api, limit: int = 100, headers: Headers | None = None) -> Iterator[Any]:
    """All labels of an annotator, page by page."""
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = api.get(f"/v1/annotation/me/labels?limit={limit}{more}", headers or api.annotator)
        assert len(page.json()["labels"]) <= limit
        yield from page.json()["labels"]
        cursor = page.json()["next_cursor"]


def said(found: Iterator[Any]) -> list[tuple[str, str | None]]:
    return [(each["task_id"], each["label"]) for each in found]


# Renewing


def renew(api: Api, tasks: list[str], headers: Headers | None = None, **more: Any) -> Any:
    answer = api.post("/v1/annotation/renew", {"task_ids": tasks} | more, headers or api.annotator)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [each["task_id"] for each in results] == tasks
    return results


def ends(api: Api, headers: Headers | None = None) -> dict[str, datetime]:
    tasks = api.get("/v1/annotation/leases", headers or api.annotator).json()["tasks"]
    return {task["task_id"]: datetime.fromisoformat(task["lease_expires_at"]) for task in tasks}


def test_what_is_held_is_held_for_longer_and_never_for_a_shorter_time(api: Api) -> None:
    api.shop.processing(make_chunk(4))
    first, second = claim(api, limit=2), claim(api, limit=2)
    before = ends(api)
    (result,) = renew(api, first[:1], lease_seconds=3600)
    assert result["outcome"] == "renewed"
    after = ends(api)
    # The rest of the claim goes along, another claim does not.
    assert {after[task] for task in first} == {datetime.fromisoformat(result["lease_expires_at"])}
    assert after[first[0]] - before[first[0]] > timedelta(minutes=40)
    assert {task: after[task] for task in second} == {task: before[task] for task in second}
    renew(api, first + second, lease_seconds=1)
    assert ends(api) == after


def test_what_is_not_held_is_told_and_stays_as_it_is(api: Api) -> None:
    ended = api.shop.processing(make_chunk(1))
    (of_ended,) = claim(api, job_id=ended.job_id)
    api.post(f"/v1/jobs/{ended.job_id}/cancel", None)
    job = api.shop.processing(make_chunk(4), consensus_threshold=2)
    theirs = claim(api, api.new_annotator())
    labelled, released, kept, also_kept = claim(api)
    label(api, (labelled, "cat"))
    api.post("/v1/annotation/release", {"task_ids": [released]}, api.annotator)
    gone = [of_ended, theirs[0], labelled, released, f"{new_id('tsk')}0", "rubbish", kept]
    results = renew(api, gone)
    assert [each["outcome"] for each in results] == ["not_held"] * 2 + ["not_held"] * 4 + [
        "renewed"
    ]
    assert ["lease_expires_at" in each for each in results] == [False] * 6 + [True]
    assert ends(api).keys() == {kept, also_kept}
    api.shop.expire_leases()
    assert {each["outcome"] for each in renew(api, [kept, also_kept])} == {"not_held"}
    # So they go to others, and are theirs alone.
    other = api.new_annotator()
    assert {kept, also_kept} <= set(claim(api, other, job_id=job.job_id))
    assert {each["outcome"] for each in renew(api, [kept])} == {"not_held"}


def test_a_renewal_beside_a_label_of_the_same_task_holds_nothing(api: Api, shop: Shop) -> None:
    job = shop.processing(make_chunk(2))
    annotator = shop.annotator()
    tasks = [task.task_id for task in shop.claim(annotator)]
    _, key = shop.do(customers.add_annotator_key, shop.value("select name from annotators where annotator_no = %s", annotator))  # fmt: skip
    with shop.held() as tx:
        tx.execute("select from leases where job_no = %s for update", [job.job_no])
        labels = Side(lambda: shop.label(annotator, (tasks[0], "cat")))
        shop.wait_for_waiters(1)
        renewal = Side(lambda: renew(api, tasks, api.bearer(key)))
        shop.wait_for_waiters(2)
    assert labels.join() == ["accepted"]
    assert [each["outcome"] for each in renewal.join()] == ["not_held", "renewed"]


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "task_ids"),
        ({"task_ids": []}, "task_ids"),
        ({"task_ids": ["x"] * 501}, "task_ids"),
        ({"task_ids": ["x"], "lease_seconds": 0}, "lease_seconds"),
        ({"task_ids": ["x"], "lease_seconds": 86_401}, "lease_seconds"),
        ({"task_ids": ["x"], "limit": 1}, "limit"),
    ],
    ids=str,
)
def test_a_renewal_is_bounded(api: Api, body: dict[str, Any], field: str) -> None:
    answer = api.post("/v1/annotation/renew", body, api.annotator)
    assert answer.status_code == 400
    assert [fault["field"] for fault in answer.json()["details"]] == [field]


# Counts and history


def test_an_annotator_sees_what_they_hold_and_have_done(api: Api) -> None:
    _, key = api.shop.do(customers.add_annotator_key, "ann")
    ann = api.bearer(key)
    nothing = me(api, ann)
    assert nothing.pop("annotator_id").startswith("ann_")
    assert nothing == {
        "name": "ann", "tasks_held": 0, "reviews_held": 0, "lease_expires_at": None, "labels": 0, "labels_today": 0,
        "settled": 0, "settled_today": 0,
    }  # fmt: skip
    api.shop.processing(make_chunk(4), consensus_threshold=2)
    others = claim(api)
    label(api, *((task, "cat") for task in others[:2]))
    mine = claim(api, ann)
    label(api, *((task, "cat") for task in mine[:3]), (mine[0], "dog"), headers=ann)
    label(api, (mine[0], "dog"), (mine[3], "cow"), headers=ann)  # neither is taken
    found = me(api, ann)
    assert (found["tasks_held"], found["labels"], found["settled"]) == (1, 3, 2)
    assert (found["labels_today"], found["settled_today"]) == (3, 2)
    assert found["lease_expires_at"] == max(
        task["lease_expires_at"] for task in api.get("/v1/annotation/leases", ann).json()["tasks"]
    )
    assert me(api)["labels"] == 2


def test_labels_are_listed_latest_first_page_by_page(api: Api) -> None:
    jobs = [api.shop.processing(make_chunk(5), priority=n) for n in (9, 1)]
    tasks = claim(api)
    options = ["cat", "dog", "fox", "cat", "dog"] * 2
    handed_in = list(zip(tasks, options, strict=True))
    label(api, *handed_in[:1])
    label(api, *handed_in[1:7])
    label(api, *handed_in[7:])
    label(api, *((task, "fox") for task in claim(api, api.new_annotator())), headers=api.new_annotator())  # fmt: skip
    # In a batch of labels for two jobs, those of one job stand together.
    expected = [handed_in[n] for n in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]
    for limit in (1, 3, 10, 100):
        assert said(history(api, limit)) == expected
    assert {each["job_id"] for each in history(api)} == {job.job_id for job in jobs}
    first = next(history(api))
    assert datetime.fromisoformat(first["created_at"]).tzinfo


def test_labels_that_come_between_two_pages_shift_nothing(api: Api) -> None:
    api.shop.processing(make_chunk(4))
    tasks = claim(api)
    label(api, *((task, "cat") for task in tasks[:3]))
    pages = history(api, 2)
    seen = [next(pages)["task_id"]]
    label(api, (tasks[3], "dog"))
    assert [*seen, *(each["task_id"] for each in pages)] == tasks[2::-1]


def test_archived_labels_are_listed_as_before(api: Api) -> None:
    job = api.shop.processing(make_chunk(3), consensus_threshold=1)
    handed_in = list(zip(claim(api), ("cat", "dog", "fox"), strict=True))
    label(api, *handed_in)
    before = list(history(api))
    assert api.shop.do(archive.archive_some, after_s=-1)
    assert api.shop.value("select count(*) from labels") == 0
    assert list(history(api)) == before
    assert said(history(api)) == handed_in[::-1]
    # One that cannot be read any more is listed without its option, and takes nothing else along.
    api.shop.run("update archived_labels set content = 'x' where job_no = %s", job.job_no)
    assert said(history(api)) == [(task, None) for task, _ in handed_in[::-1]]


def test_labels_that_were_changed_are_listed_as_they_are_now(api: Api) -> None:
    api.shop.processing(make_chunk(2))
    first, second = claim(api)
    label(api, (first, "cat"), (second, "cat"))
    changes = [{"task_id": first, "label": "fox", "replace": True}, {"task_id": second, "withdraw": True}]  # fmt: skip
    answer = api.post("/v1/annotation/labels", {"labels": changes}, api.annotator)
    assert answer.status_code == 200, answer.text
    assert said(history(api)) == [(first, "fox"), (second, None), (first, "fox")]
    assert me(api)["labels"] == 3


def own(api: Api, task: str, headers: Headers | None = None) -> Any:
    return api.get(f"/v1/annotation/me/labels/{task}", headers or api.annotator)


def test_a_label_that_may_be_replaced_is_shown_with_its_task(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), instructions="Look twice.")
    claimed = api.post("/v1/annotation/claim", {"limit": 1}, api.annotator).json()["tasks"][0]
    task = claimed["task_id"]
    assert own(api, task).json()["code"] == "label_not_found"  # held, and not labelled
    label(api, (task, "cat"))
    found = own(api, task).json()
    assert found.pop("created_at") == next(history(api))["created_at"]
    assert claimed.pop("lease_expires_at")
    assert found == claimed | {"label": "cat"}
    assert found["instructions"]["job_id"] == job.job_id
    change = {"task_id": task, "label": "fox", "replace": True}
    api.post("/v1/annotation/labels", {"labels": [change]}, api.annotator)
    assert own(api, task).json()["label"] == "fox"


@pytest.mark.parametrize(
    "why", ["settled", "withdrawn", "of another", "cancelled", "no task", "no id"]
)
def test_a_label_that_cannot_be_replaced_is_not_shown(api: Api, shop: Shop, why: str) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=1 if why == "settled" else 2)
    (task,) = claim(api)
    label(api, (task, "cat"))
    if why == "withdrawn":
        entry = {"task_id": task, "withdraw": True}
        api.post("/v1/annotation/labels", {"labels": [entry]}, api.annotator)
    if why == "cancelled":
        api.client.post(f"/v1/jobs/{job.job_id}/cancel", headers=api.customer).raise_for_status()
    asked = {"no task": f"{task}9", "no id": "tsk_x"}.get(why, task)
    answer = own(api, asked, api.new_annotator() if why == "of another" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "label_not_found")


def test_the_command_line_shows_a_label_with_its_task(api: Api, cli: Cli, shop: Shop) -> None:
    shop.processing(make_chunk(1))
    (task,) = claim(api)
    label(api, (task, "cat"))
    cli.say(REFINERY_ANNOTATOR_KEY=api.annotator["Authorization"].removeprefix("Bearer "))
    assert cli.done("me", "label", task, "--json").json == own(api, task).json()
    assert "https://img.example.com/0.jpg" in cli.done("me", "label", task).out


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "0-1", "1-0", "9" * 30 + "-1", "1-1 "])
def test_a_cursor_of_no_page_is_refused(api: Api, cursor: str) -> None:
    answer = api.get(f"/v1/annotation/me/labels?cursor={cursor}", api.annotator)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["field"] == "cursor"


def test_old_batches_are_folded_and_nothing_is_counted_twice(
    api: Api, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.processing(make_chunk(6), consensus_threshold=1)
    tasks = claim(api)
    for task in tasks[:3]:
        label(api, (task, "cat"))
    shop.run("update label_batches set created_at = created_at - interval '1 day'")
    label(api, (tasks[3], "cat"))
    monkeypatch.setattr(label_batches, "_KEPT", 2)
    monkeypatch.setattr(label_batches, "_FOLD_SHARE", 1.0)
    label(api, (tasks[4], "cat"))
    label(api, (tasks[5], "cat"))
    days = shop.run("select labels, settled from annotator_days order by day")
    assert days == [{"labels": 3, "settled": 3}, {"labels": 1, "settled": 1}]
    found = me(api)
    assert (found["labels"], found["labels_today"]) == (6, 3)
    assert (found["settled"], found["settled_today"]) == (6, 3)
    assert [each["task_id"] for each in history(api)] == tasks[:3:-1]


def test_of_requests_that_are_folded_at_once_each_is_counted_once(
    api: Api, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.processing(make_chunk(3), consensus_threshold=1)
    tasks = claim(api)
    label(api, (tasks[0], "cat"))
    annotator = shop.value("select annotator_no from label_batches")
    monkeypatch.setattr(label_batches, "_KEPT", 0)
    monkeypatch.setattr(label_batches, "_FOLD_SHARE", 1.0)
    with shop.held() as tx:
        label_batches.record(
            tx, annotator, [{"job_no": 1, "task_no": 7, "settled": False, "held_s": None}]
        )
        tx.execute("select 1")
        other = Side(lambda: label(api, (tasks[1], "cat")))
        shop.wait_for_waiters(1)
    other.join()
    assert me(api)["labels"] == 3


def test_customers_have_no_counts(api: Api) -> None:
    for path in ("me", "me/labels", "me/jobs"):
        assert api.get(f"/v1/annotation/{path}").status_code == 403


# Jobs with work


def open_jobs(api: Api, headers: Headers | None = None, limit: int = 20) -> list[str]:
    answer = api.get(f"/v1/annotation/me/jobs?limit={limit}", headers or api.annotator).json()
    return [job["job_id"] for job in answer["jobs"]]


def test_jobs_with_work_are_listed_as_claims_take_them(api: Api) -> None:
    low, high = (api.shop.processing(make_chunk(2), priority=n).job_id for n in (2, 8))
    api.shop.submit()  # is not read yet
    other = api.shop.do(customers.add_customer, "Other")
    theirs = api.shop.processing(make_chunk(1), customer_id=other, priority=1).job_id
    _, key = api.shop.do(customers.add_annotator_key, "ann", [api.shop.customer_id])
    assert open_jobs(api) == [high, low, theirs]
    assert open_jobs(api, api.bearer(key)) == [high, low]
    assert open_jobs(api, limit=1) == [high]
    claim(api, job_id=high)
    assert open_jobs(api) == [low, theirs]
    answer = api.get("/v1/annotation/me/jobs", api.annotator).json()
    assert answer["jobs"][0] == {
        "job_id": low, "task_type": "image_classification", "question": "What is it?",
        "instructions_version": None,
    }  # fmt: skip


# From the command line


def test_the_command_line_shows_the_same(cli: Cli, shop: Shop) -> None:
    _, key = shop.do(customers.add_annotator_key, "ann")
    cli.say(REFINERY_ANNOTATOR_KEY=key)
    job = shop.processing(make_chunk(3), consensus_threshold=1, instructions="Look twice.")
    annotator = shop.value("select annotator_no from annotators where name = 'ann'")
    assert job.job_id in cli.done("me", "jobs").out
    assert "Look twice." in cli.done("me", "job", job.job_id).out
    first, second, third = (task.task_id for task in shop.claim(annotator))
    shop.label(annotator, (first, "dog"))
    assert [line.split()[0] for line in cli.done("me", "leases").out.splitlines()[1:]] == [second, third]  # fmt: skip
    renewed = cli.done("me", "renew", "--lease-seconds", "7200", "--json").json["results"]
    assert [each["outcome"] for each in renewed] == ["renewed", "renewed"]
    assert "not_held" in cli.done("me", "renew", first, third).out
    assert "dog" in cli.done("me", "labels", "--limit", "5").out
    assert json.loads(cli.done("me", "show", "--json").out)["labels"] == 1
    assert cli("me", "job", "job_x").code == 6
