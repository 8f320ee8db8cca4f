"""Deliveries over HTTP: tried again, elsewhere, and by other credentials."""

import json
from typing import Any

import msgspec
import pytest

from blocks.domain.model import JobStatus
from blocks.store import job_credentials, jobs
from blocks.store.jobs import DeliveryTarget, Job
from tests.support.api_world import Api
from tests.support.outbound import account
from tests.support.side import at_once
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration
CREDENTIALS = {"access_key_id": "new", "secret_access_key": "newer", "region": "eu-west-1"}


def completed(shop: Shop, **changes: Any) -> Job:
    job = shop.processing(make_chunk(1), consensus_threshold=2, **changes)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    return shop.job(job)


def refused(shop: Shop, **changes: Any) -> Job:
    job = completed(shop, delivery=DELIVERY, **changes)
    shop.begin_delivery(job)
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
    opened = job_credentials.open_sealed(
        found.credentials, job.job_id, job.customer_id, api.shop.vault
    )
    assert json.loads(opened or b"").items() >= CREDENTIALS.items()
    assert "newer" not in json.dumps(shown)


def test_a_job_that_asked_for_none_gets_one(api: Api) -> None:
    job = completed(api.shop)
    status, body = deliver(api, job)
    assert (status, body["details"][0]["field"]) == (400, "delivery")
    delivery = {"type": "gcs", "bucket": "another"}
    google = {"service_account_json": account()}
    status, shown = deliver(api, job, delivery=delivery, credentials=google)
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


RECORDED = msgspec.structs.asdict(DELIVERY)
ELSEWHERE = [
    {"bucket": "operator-secret"},
    {"prefix": "chosen"},
    {"prefix": ""},
    {"acl": "public-read"},
    {"kms_key_id": "another"},
    {"type": "gcs"},
]


@pytest.mark.parametrize("change", ELSEWHERE, ids=str)
@pytest.mark.parametrize(
    "kept", [{"credentials": b"{}"}, {"credentials_block": "etl"}, {}], ids=str
)
def test_another_place_than_the_recorded_one_brings_its_own_credentials(
    api: Api, kept: dict[str, Any], change: dict[str, Any]
) -> None:
    job = refused(api.shop, **kept)
    status, answer = deliver(api, job, delivery=RECORDED | change)
    assert (status, [fault["field"] for fault in answer["details"]]) == (400, ["credentials"])
    # Whoever asks the store past the API, or has read the job before another delivery, gets no further.
    target = DeliveryTarget(**RECORDED | change)
    assert not api.shop.do(jobs.redeliver, job, target, None, api.shop.vault)
    assert api.shop.job(job) == job


@pytest.mark.parametrize("kept", [{"credentials": b"{}"}, {"credentials_block": "etl"}], ids=str)
def test_the_recorded_place_may_get_another_format_by_what_the_job_has(
    api: Api, kept: dict[str, Any]
) -> None:
    job = refused(api.shop, **kept)
    layout = {"format": "parquet", "compression": "zstd", "prefix": "/out/"}
    assert deliver(api, job, delivery=RECORDED | layout)[0] == 202
    after = api.shop.job(job)
    assert (after.credentials, after.credentials_block) == (job.credentials, job.credentials_block)
    assert after.delivery == msgspec.structs.replace(DELIVERY, format="parquet", compression="zstd")


def test_credentials_of_the_customer_take_the_place_of_the_operators_block(api: Api) -> None:
    job = refused(api.shop, credentials_block="etl")
    elsewhere = RECORDED | {"bucket": "another"}
    assert deliver(api, job, delivery=elsewhere, credentials=CREDENTIALS)[0] == 202
    after = api.shop.job(job)
    assert (after.credentials is None, after.credentials_block) == (False, None)


def test_a_job_without_a_delivery_gets_none_by_the_operators_block(api: Api) -> None:
    job = completed(api.shop, credentials_block="etl")
    status, answer = deliver(api, job, delivery=RECORDED)
    assert (status, answer["details"][0]["field"]) == (400, "credentials")
    assert not api.shop.do(jobs.redeliver, job, DELIVERY, None, api.shop.vault)


def test_what_is_not_due_is_a_conflict_that_says_why(api: Api) -> None:
    shop = api.shop
    pending = completed(shop, delivery=DELIVERY)
    delivered = completed(shop, delivery=DELIVERY)
    shop.begin_delivery(delivered)
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


# Credentials that are wiped


def wipe(api: Api, job: Job, headers: dict[str, str] | None = None) -> int:
    return api.client.delete(
        f"/v1/jobs/{job.job_id}/credentials", headers=headers or api.customer
    ).status_code


def test_credentials_of_a_refused_delivery_are_wiped_and_the_next_brings_new_ones(api: Api) -> None:
    job = refused(api.shop, credentials=b"{}")
    assert (wipe(api, job), wipe(api, job)) == (204, 204)
    assert api.shop.job(job).credentials is None
    assert api.shop.job(job).delivery_status == "failed"
    status, answer = deliver(api, job)
    assert (status, [fault["field"] for fault in answer["details"]]) == (400, ["credentials"])
    assert deliver(api, job, credentials=CREDENTIALS)[0] == 202
    assert api.shop.job(job).credentials_wiped_at is None


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_is_still_to_be_read_fails_where_its_credentials_are_wiped(
    api: Api, begun: bool
) -> None:
    shop = api.shop
    if begun:
        job = shop.processing(make_chunk(1), credentials=b"{}", ingested=False)
    else:
        job = shop.submit(credentials=b"{}")
    assert wipe(api, job) == 204
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "credentials_wiped")
    assert shop.runs(job) == []


def test_a_job_that_is_read_goes_on_without_its_credentials(api: Api) -> None:
    job = api.shop.processing(
        make_chunk(1), credentials=b"{}", delivery=DELIVERY, consensus_threshold=2
    )
    assert wipe(api, job) == 204
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat")
    after = api.shop.job(job)
    assert (after.status, after.delivery_status) == ("processing", "pending")
    assert after.credentials_wiped_at is not None


@pytest.mark.parametrize("kept", [{}, {"credentials_block": "etl"}], ids=str)
def test_where_there_are_none_nothing_changes(api: Api, kept: dict[str, Any]) -> None:
    job = api.shop.submit(**kept)
    assert wipe(api, job) == 204
    assert api.shop.job(job) == job


def test_nobody_wipes_the_credentials_of_others(api: Api) -> None:
    job = api.shop.submit(credentials=b"{}")
    assert wipe(api, job, api.new_customer()) == 404
    assert wipe(api, job, api.annotator) == 403
    assert api.shop.job(job) == job


DAY_S = 24 * 3600


def wiped(shop: Shop) -> int:
    found: int = shop.do(job_credentials.wipe_old, keep_s=DAY_S, limit=100)
    return found


def test_what_ended_a_grace_period_ago_holds_no_credentials(api: Api) -> None:
    shop = api.shop
    old, fresh, again = (refused(shop, credentials=b"{}") for _ in range(3))
    shop.run("update jobs set completed_at = now() - interval '25 hours'")
    query = (
        "update jobs set delivery_failed_at = now() - interval '25 hours' where job_no = any (%s)"
    )
    shop.run(query, [old.job_no, again.job_no])
    assert deliver(api, again)[0] == 202
    under_way = shop.submit(credentials=b"{}")
    assert (wiped(shop), wiped(shop)) == (1, 0)
    kept = [shop.job(job).credentials is not None for job in (old, fresh, again, under_way)]
    assert kept == [False, True, True, True]
    assert shop.job(old).credentials_wiped_at is not None
    # Refused once more: the grace period begins anew.
    shop.begin_delivery(again)
    shop.do(jobs.refuse_delivery, again.job_no, "access_denied", "No.")
    assert wiped(shop) == 0
