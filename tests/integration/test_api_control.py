"""Jobs over HTTP: listed, waited for, and cancelled at any moment of their lives."""

import json
import time
from typing import Any

import pytest

from blocks.domain.model import BadLine, GoodLine, LineCode
from blocks.store import chunks, jobs
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, LINE_BYTES, Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration


def ids(page: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in page["jobs"]]


def cancel(api: Api, job: Job) -> tuple[int, dict[str, Any]]:
    response = api.post(f"/v1/jobs/{job.job_id}/cancel", None)
    return response.status_code, response.json()


# The list


def test_jobs_are_listed_newest_first_in_pages(api: Api) -> None:
    made = [api.shop.submit().job_id for _ in range(5)]
    first = api.get("/v1/jobs?limit=2").json()
    assert ids(first) == [made[4], made[3]]
    api.shop.submit()  # does not shift the next page
    second = api.get(f"/v1/jobs?limit=2&cursor={first['next_cursor']}").json()
    third = api.get(f"/v1/jobs?limit=2&cursor={second['next_cursor']}").json()
    assert ids(second) + ids(third) == [made[2], made[1], made[0]]
    assert third["next_cursor"] is None


def test_a_listed_job_is_shown_as_it_is_on_its_own_page(api: Api) -> None:
    job = api.shop.processing(make_chunk(2, bad=1))
    (listed,) = api.get("/v1/jobs").json()["jobs"]
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert shown.pop("pace")["labels_left"] == 6  # counted for one job at a time
    assert listed == shown


def test_the_list_can_be_of_one_status(api: Api) -> None:
    accepted = api.shop.submit()
    processing = api.shop.processing(make_chunk(1))
    assert ids(api.get("/v1/jobs?status=accepted").json()) == [accepted.job_id]
    assert ids(api.get("/v1/jobs?status=processing").json()) == [processing.job_id]
    assert ids(api.get("/v1/jobs?status=failed").json()) == []


def test_the_list_has_nothing_of_others(api: Api) -> None:
    other = api.new_customer()
    job = api.shop.submit()
    assert api.get("/v1/jobs", other).json() == {"jobs": [], "next_cursor": None}
    stolen = api.get(f"/v1/jobs?cursor={job.job_id}", other)
    unknown = api.get("/v1/jobs?cursor=job_0000000000000000000000", other)
    assert stolen.status_code == unknown.status_code == 400
    assert stolen.content == unknown.content


def test_what_inline_tasks_hang_on_is_not_listed(api: Api) -> None:
    spec = {"question": "What is it?", "options": ["cat", "dog"]}
    task = {"type": "sentiment", "data_url": "https://a.example/1.jpg", "label_spec": spec}
    assert api.post("/v1/tasks", task).status_code == 202
    assert ids(api.get("/v1/jobs").json()) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "status=done", "cursor=", "page=2"])
def test_a_page_that_cannot_be_is_refused(api: Api, query: str) -> None:
    response = api.get(f"/v1/jobs?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["details"][0]["field"] == query.partition("=")[0]


# Waiting, and not being told twice


def test_what_is_known_is_not_sent_again(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=2)
    path = f"/v1/jobs/{job.job_id}"
    etag = api.get(path).headers["etag"]
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        response = api.get(path, {**api.customer, "If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat")
    response = api.get(path, {**api.customer, "If-None-Match": etag})
    assert (response.status_code, response.json()["status"]) == (200, "completed")
    assert response.headers["etag"] != etag


def test_who_waits_is_answered_as_soon_as_something_changes(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=2)
    people = api.shop.annotators(2)
    waiting = Side(lambda: api.get(f"/v1/jobs/{job.job_id}?wait=20"))
    assert not waiting.wait(0.7)
    for annotator in people:
        api.shop.answer(annotator, "cat")
    assert waiting.join().json()["status"] == "completed"


def test_who_waits_for_what_has_changed_already_is_answered_at_once(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    response = api.get(
        f"/v1/jobs/{job.job_id}?wait=20", {**api.customer, "If-None-Match": '"an older one"'}
    )
    assert (response.status_code, response.json()["status"]) == (200, "processing")


def test_a_wait_in_which_nothing_changes_ends(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    path, began = f"/v1/jobs/{job.job_id}", time.monotonic()
    first = api.get(f"{path}?wait=1")
    assert (first.status_code, time.monotonic() - began > 0.9) == (200, True)
    again = api.get(f"{path}?wait=1", {**api.customer, "If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


def test_nobody_waits_for_a_job_that_has_ended(api: Api) -> None:
    job = api.shop.submit()
    api.shop.do(jobs.cancel, job.job_no)
    assert api.get(f"/v1/jobs/{job.job_id}?wait=60").json()["status"] == "cancelled"


# Cancelling


def test_an_accepted_job_is_cancelled(api: Api) -> None:
    job = api.shop.submit(credentials=b"{}")
    status, shown = cancel(api, job)
    assert (status, shown["status"], shown["total_tasks"]) == (202, "cancelled", 0)
    assert shown["completed_at"] is not None
    found = api.shop.job(job)
    assert (found.credentials, found.status) == (None, "cancelled")


def test_to_cancel_again_changes_nothing(api: Api) -> None:
    job = api.shop.submit()
    first, second = cancel(api, job), cancel(api, job)
    assert first == second
    # The launcher may have taken what it can do.
    assert api.shop.outbox(job).count("cancel_job") <= 1


def test_a_cancelled_job_keeps_what_settled_and_fails_the_rest(api: Api) -> None:
    job = api.shop.processing(make_chunk(3, bad=1), consensus_threshold=2)
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat", limit=1)
    status, shown = cancel(api, job)
    assert (status, shown["status"]) == (202, "cancelled")
    assert (shown["total_tasks"], shown["tasks_done"], shown["tasks_failed"]) == (4, 1, 3)
    assert shown["progress_percent"] == 100
    export = api.get(f"/v1/jobs/{job.job_id}/export")
    assert [line["line"] for line in map(json.loads, export.text.splitlines())] == [1]
    task = api.get(f"/v1/tasks/{job.task_id(1)}").json()
    assert (task["status"], task["reason"]) == ("failed", "cancelled")


def test_of_a_cancelled_job_nothing_is_handed_out_or_taken(api: Api) -> None:
    job = api.shop.processing(make_chunk(3))
    annotator = api.shop.annotator()
    (held,) = api.shop.claim(annotator, limit=1)
    cancel(api, job)
    assert api.shop.claim(api.shop.annotator()) == []
    assert api.shop.label(annotator, (held.task_id, "cat")) == ["already_settled"]
    assert api.shop.value("select count(*) from labels") == 0


@pytest.mark.parametrize("ended", ["completed", "failed"])
def test_what_has_ended_otherwise_cannot_be_cancelled(api: Api, ended: str) -> None:
    job = api.shop.processing(make_chunk(1), ingested=ended == "completed", consensus_threshold=2)
    if ended == "failed":
        api.shop.do(jobs.fail, job.job_no, "object_not_found", "There is no manifest.")
    else:
        for _ in range(2):
            api.shop.answer(api.shop.annotator(), "cat")
    status, body = cancel(api, job)
    assert (status, body["code"]) == (409, f"job_{ended}")
    assert api.shop.job(job).status == ended


def test_jobs_of_others_cannot_be_cancelled(api: Api) -> None:
    job = api.shop.submit()
    response = api.post(f"/v1/jobs/{job.job_id}/cancel", None, api.new_customer())
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")
    assert api.shop.job(job).status == "accepted"


# Cancelling while something else happens


def test_a_chunk_that_is_being_committed_comes_first(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), ingested=False)
    with shop.held() as tx:
        assert chunks.commit(tx, job.job_no, 1, make_chunk(2, start=2 * LINE_BYTES), None)
        cancelling = Side(lambda: shop.do(jobs.cancel, job.job_no))
        shop.wait_for_waiters(1)
    assert cancelling.join() is True
    found = shop.job(job)
    assert (found.status, found.total_tasks, found.tasks_failed) == ("cancelled", 4, 4)
    assert shop.claim(shop.annotator()) == []


def test_no_chunk_is_committed_after_it(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), ingested=False)
    shop.do(jobs.cancel, job.job_no)
    assert shop.do(chunks.commit, job.job_no, 1, make_chunk(2, start=2 * LINE_BYTES), None) is None
    shop.do(jobs.finish_ingestion, job.job_no)
    shop.do(jobs.fail, job.job_no, "late", "Too late.")
    found = shop.job(job)
    assert (found.status, found.error_code, found.total_tasks) == ("cancelled", None, 2)


@pytest.mark.parametrize("_", range(5))
def test_of_the_last_label_and_a_cancellation_one_wins(shop: Shop, _: int) -> None:
    job = shop.processing(make_chunk(20), consensus_threshold=2)
    shop.answer(shop.annotator(), "cat")
    last = shop.annotator()
    labels = [(task.task_id, "cat") for task in shop.claim(last)]
    at_once(lambda: shop.label(last, *labels), lambda: shop.do(jobs.cancel, job.job_no))
    found = shop.job(job)
    assert (found.status, found.tasks_done) in {
        ("completed", 20),
        ("cancelled", 0),
        ("cancelled", 20),
    }
    assert found.tasks_done + found.tasks_failed == found.total_tasks == 20


def test_a_delivery_that_is_cancelled_does_not_come_to_an_end(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2, delivery=DELIVERY)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    shop.begin_delivery(job)
    assert shop.do(jobs.cancel, job.job_no)
    shop.do(jobs.finish_delivery, job.job_no, 3)
    shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "No.")
    found = shop.job(job)
    assert (found.status, found.delivery_status) == ("cancelled", "failed")
    assert (found.delivery_error_code, found.tasks_done) == ("cancelled", 1)


@pytest.mark.parametrize("_", range(5))
def test_of_a_delivery_and_a_cancellation_one_wins(shop: Shop, _: int) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2, delivery=DELIVERY)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    shop.begin_delivery(job)
    at_once(
        lambda: shop.do(jobs.finish_delivery, job.job_no, 3),
        lambda: shop.do(jobs.cancel, job.job_no),
    )
    found = shop.job(job)
    assert (found.status, found.delivery_status, found.delivery_objects) in {
        ("completed", "delivered", 3),
        ("cancelled", "failed", None),
    }


def test_a_result_whose_line_is_not_known_is_exported_without_it(api: Api) -> None:
    """Chunks are committed in any order, and a job may be cancelled before the first."""
    job = api.shop.processing(ingested=False, consensus_threshold=2)
    good = GoodLine(900, 1, "https://img.example.com/late.jpg", None)
    bad = BadLine(1000, 2, LineCode.MALFORMED_JSON, "It is not JSON.", b"{oops")
    api.shop.do(chunks.commit, job.job_no, 1, Chunk(2, [good], [bad]), None)
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat")
    cancel(api, job)
    (line,) = map(json.loads, api.get(f"/v1/jobs/{job.job_id}/export").text.splitlines())
    assert (line["line"], line["consensus_label"]) == (None, "cat")
