"""Deliveries over HTTP: tried again, elsewhere, and by other credentials."""

import json
from typing import Any

import pytest

from blocks.model import JobStatus
from blocks.store import jobs
from blocks.store.jobs import Job
from tests.integration.conftest import DELIVERY, Api, Shop, at_once, make_chunk

pytestmark = pytest.mark.integration
CREDENTIALS = {"access_key_id": "new", "secret_access_key": "newer", "region": "eu-west-1"}


def completed(shop: Shop, **changes: Any) -> Job:
    job = shop.processing(make_chunk(1), consensus_threshold=2, **changes)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    return shop.job(job)


def refused(shop: Shop, **changes: Any) -> Job:
    job = completed(shop, delivery=DELIVERY, **changes)
    shop.do(jobs.begin_delivery, job.job_no)
    shop.do(jobs.refuse_delivery, job.job_no, "bucket_not_found", "There is no bucket.")
    return shop.job(job)


def deliver(api: Api, job: Job, **body: Any) -> tuple[int, dict[str, Any]]:
    response = api.post(f"/v1/jobs/{job.job_id}/deliver", body)
    return response.status_code, response.json()


def test_a_refused_delivery_is_tried_again(api: Api) -> None:
    job = refused(api.shop, credentials=b"{}")
    status, shown = deliver(api, job)
    assert (status, shown["status"], shown["delivery"]["status"]) == (202, "completed", "pending")
    assert (shown["delivery"]["code"], shown["delivery"]["message"]) == (None, None)
    assert api.shop.job(job).credentials == job.credentials
    assert api.shop.job(job).delivery == DELIVERY
    assert api.shop.runs(job) == ["deliver_job"]


def test_elsewhere_and_with_other_credentials(api: Api) -> None:
    job = refused(api.shop, credentials=b"{}")
    delivery = {"type": "s3", "bucket": "another", "prefix": "/here/", "format": "parquet"}
    status, shown = deliver(api, job, credentials=CREDENTIALS, delivery=delivery)
    assert status == 202
    assert shown["delivery"] | delivery | {"prefix": "here"} == shown["delivery"]
    found = api.shop.job(job)
    opened = jobs.open_credentials(found.credentials, job.job_id, job.customer_id, api.shop.vault)
    assert json.loads(opened or b"").items() >= CREDENTIALS.items()
    assert "newer" not in json.dumps(shown)


def test_a_job_that_asked_for_none_gets_one(api: Api) -> None:
    job = completed(api.shop)
    status, body = deliver(api, job)
    assert (status, body["details"][0]["field"]) == (400, "delivery")
    delivery = {"type": "gcs", "bucket": "another"}
    account = {"service_account_json": "{}"}
    status, shown = deliver(api, job, delivery=delivery, credentials=account)
    assert (status, shown["delivery"]["status"]) == (202, "pending")


@pytest.mark.parametrize(
    "body, fields",
    [
        ({"credentials": {"access_key_id": "a"}}, ["secret_access_key", "region"]),
        ({"credentials": {"service_account_json": "{}"}}, [
            "service_account_json", "access_key_id", "secret_access_key", "region",
        ]),
        ({"delivery": {"type": "gcs", "bucket": "another"}}, [""]),
        ({"delivery": {"type": "gcs", "bucket": "another", "acl": "private"}}, ["acl"]),
        ({"delivery": {"type": "s3", "bucket": "No"}}, ["bucket"]),
        ({"retry": True}, [""]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_field(
    api: Api, body: dict[str, Any], fields: list[str]
) -> None:
    job = refused(api.shop, credentials=b"{}")
    status, answer = deliver(api, job, **body)
    assert status == 400
    assert [fault["field"].partition(".")[2] for fault in answer["details"]] == fields
    assert api.shop.job(job) == job


def test_what_is_not_due_is_a_conflict_that_says_why(api: Api) -> None:
    shop = api.shop
    pending = completed(shop, delivery=DELIVERY)
    delivered = completed(shop, delivery=DELIVERY)
    shop.do(jobs.begin_delivery, delivered.job_no)
    shop.do(jobs.finish_delivery, delivered.job_no, 3)
    again = refused(shop)
    assert deliver(api, again)[0] == 202
    failed = shop.submit()
    shop.do(jobs.fail, failed.job_no, "x", "X.")
    cancelled = shop.submit()
    shop.do(jobs.cancel, cancelled.job_no)
    codes = {
        deliver(api, job)[1]["code"]: deliver(api, job)[0]
        for job in (shop.submit(), pending, delivered, again, failed, cancelled)
    }
    assert codes == {
        "job_not_completed": 409,
        "already_delivered": 409,
        "delivery_under_way": 409,
        "job_failed": 409,
        "job_cancelled": 409,
    }


def test_of_two_requests_at_once_one_is_accepted(api: Api) -> None:
    job = refused(api.shop)
    answers = at_once(*[lambda: deliver(api, job)] * 3)
    assert sorted(status for status, _ in answers) == [202, 409, 409]
    assert api.shop.job(job).status is JobStatus.COMPLETED


def test_jobs_of_others_are_not_there(api: Api) -> None:
    job = refused(api.shop)
    response = api.post(f"/v1/jobs/{job.job_id}/deliver", {}, api.new_customer())
    assert response.status_code == 404
    assert api.shop.job(job) == job
