"""Annotators get signed URLs of objects, by which a real store gives them those and no others."""

import json
import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest

from api.signing import UrlSigner, find_sealed
from blocks.domain.model import GoodLine
from blocks.secrets.vault import Vault
from blocks.store import customers, job_credentials, jobs
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.api_world import CANARY, CREDENTIALS, JOB_BODY, Api
from tests.support.servers import KEY
from tests.support.service_accounts import account, pem, rsa_key
from tests.support.store_shop import DELIVERY, Chunk, Shop
from tests.support.stores import S3Store

pytestmark = pytest.mark.integration

PICTURE = b"\xff\xd8 a picture"
S3 = json.dumps(CREDENTIALS).encode()
NAMES = [
    "plain.jpg",
    "with space.jpg",
    "ünïcode 字 🐕.jpg",
    "plus+percent%20.jpg",
    "question?versionId=1.jpg",
    "hash#1.jpg",
    "a/b//c.jpg",
    "quotes'\"&=;:@$,!*().jpg",
    "tilde~^`{}|[].jpg",
]


@pytest.fixture
def store(object_store: ObjectStoreAddress) -> S3Store:
    return S3Store(object_store)


def credentials_of(address: ObjectStoreAddress) -> bytes:
    fields = {
        "access_key_id": address.access_key_id,
        "secret_access_key": address.secret_access_key,
        "region": "us-east-1",
        "endpoint_url": address.endpoint_url,
    }
    return json.dumps(fields).encode()


def chunk_of(urls: Sequence[str]) -> Chunk:
    return Chunk(len(urls), [GoodLine(n * 100, n + 1, url, None) for n, url in enumerate(urls)], [])


def claim(api: Api, key: str | None = None, **body: Any) -> list[dict[str, Any]]:
    headers = {**api.annotator, **({"Idempotency-Key": key} if key else {})}
    answer = api.post("/v1/annotation/claim", {"limit": 100} | body, headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["tasks"]
    return found


def signing_of(task: dict[str, Any]) -> tuple[str | None, str | None]:
    return task.get("signed_url"), task.get("unsigned_reason")


def end_of(url: str) -> datetime:
    """When a URL of S3 runs out."""
    query = parse_qs(urlsplit(url).query)
    at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return datetime.fromtimestamp(at.timestamp() + int(query["X-Amz-Expires"][0]), UTC)


def test_a_signed_url_gives_the_object_without_credentials_and_no_other(
    api: Api, store: S3Store, object_store: ObjectStoreAddress
) -> None:
    for name in NAMES:
        store.put(name, PICTURE + name.encode())
    chunk = chunk_of([f"s3://{store.name}/{name}" for name in NAMES])
    api.shop.processing(chunk, credentials=credentials_of(object_store), sign_urls=True)
    tasks = claim(api)
    assert [task["data_url"] for task in tasks] == [f"s3://{store.name}/{name}" for name in NAMES]
    for name, task in zip(NAMES, tasks, strict=True):
        signed = task["signed_url"]
        assert signed.startswith(f"{object_store.endpoint_url}/{store.name}/")
        assert httpx.get(signed).content == PICTURE + name.encode()
        assert httpx.get(signed.partition("?")[0]).status_code == 403
    first, second = (task["signed_url"].partition("?") for task in tasks[:2])
    assert httpx.get(f"{second[0]}?{first[2]}").status_code == 403
    assert httpx.put("".join(first), content=b"x").status_code == 403
    assert httpx.get(f"{object_store.endpoint_url}/{store.name}?{first[2]}").status_code == 403


def test_every_place_that_shows_tasks_has_signed_urls(api: Api) -> None:
    chunk = chunk_of(["s3://pictures/1.jpg"])
    api.shop.processing(chunk, credentials=S3, sign_urls=True)
    begins = "https://pictures.s3.eu-west-1.amazonaws.com/1.jpg?"
    (claimed,) = claim(api, "one", lease_seconds=600)
    (again,) = claim(api, "one", lease_seconds=600)
    (held,) = api.get("/v1/annotation/leases", api.annotator).json()["tasks"]
    body = {"task_ids": [claimed["task_id"], "task_unknown"], "lease_seconds": 7200}
    renewed, unknown = api.post("/v1/annotation/renew", body, api.annotator).json()["results"]
    for shown in (claimed, again, held, renewed):
        assert shown["signed_url"].startswith(begins)
        assert "X-Amz-Security-Token=" in shown["signed_url"]
        lease_end = datetime.fromisoformat(shown["lease_expires_at"])
        assert 50 < (end_of(shown["signed_url"]) - lease_end).total_seconds() <= 61
    assert unknown == {"task_id": "task_unknown", "outcome": "not_held"}


def test_reviewers_have_signed_urls_as_well(api: Api) -> None:
    api.shop.processing(
        chunk_of(["s3://pictures/1.jpg"]),
        credentials=S3,
        sign_urls=True,
        consensus_threshold=1,
        review_share=10_000,
    )
    api.shop.answer(api.shop.annotator(), "cat")
    _, key = api.shop.do(customers.add_annotator_key, "rae", is_reviewer=True)
    reviewer = api.bearer(key)
    keyed = {**reviewer, "Idempotency-Key": "one"}
    path = "/v1/annotation/claim?queue=review"
    (claimed,) = api.post(path, {"limit": 1}, keyed).json()["tasks"]
    (again,) = api.post(path, {"limit": 1}, keyed).json()["tasks"]
    (held,) = api.get("/v1/annotation/leases?queue=review", reviewer).json()["tasks"]
    body = {"task_ids": [claimed["task_id"]], "lease_seconds": 7200}
    (renewed,) = api.post("/v1/annotation/renew", body, reviewer).json()["results"]
    for shown in (claimed, again, held, renewed):
        lease_end = datetime.fromisoformat(shown["lease_expires_at"])
        assert 50 < (end_of(shown["signed_url"]) - lease_end).total_seconds() <= 61


@pytest.mark.parametrize("lease_s, lasts_s", [(1, 300), (240, 300), (3600, 3659), (86400, 86459)])
def test_a_url_outlives_its_lease_and_lasts_for_some_minutes(
    api: Api, lease_s: int, lasts_s: int
) -> None:
    api.shop.processing(chunk_of(["s3://pictures/1.jpg"]), credentials=S3, sign_urls=True)
    (task,) = claim(api, lease_seconds=lease_s)
    query = parse_qs(urlsplit(task["signed_url"]).query)
    assert abs(int(query["X-Amz-Expires"][0]) - lasts_s) <= 2


def test_a_url_lasts_for_a_day_at_most_however_long_the_services_leases_are(shop: Shop) -> None:
    shop.processing(chunk_of(["s3://pictures/1.jpg"]), credentials=S3, sign_urls=True)
    tasks = shop.claim(shop.annotator(), lease_s=30 * 24 * 3600)
    sealed = shop.do(find_sealed, tasks)
    (signed,) = UrlSigner(shop.vault, "").sign(tasks, sealed).values()
    assert "X-Amz-Expires=86460&" in signed


def test_urls_of_gcs_are_signed_and_lead_to_the_object(api: Api) -> None:
    plain = json.dumps({"service_account_json": account(pem(rsa_key()))}).encode()
    chunk = chunk_of(["gs://my.pictures/a b.jpg"])
    api.shop.processing(
        chunk, manifest_url="gs://manifests/one.jsonl", credentials=plain, sign_urls=True
    )
    (task,) = claim(api)
    address, _, query = task["signed_url"].partition("?")
    assert address == "https://storage.googleapis.com/my.pictures/a%20b.jpg"
    assert parse_qs(query)["X-Goog-Algorithm"] == ["GOOG4-RSA-SHA256"]


@pytest.mark.parametrize(
    "url, reason",
    [
        ("gs://pictures/1.jpg", "other_place"),
        ("s3://pictures", "not_signable"),
        ("s3://pictures/a/", "not_signable"),
        ("s3://pictures/a/../b", "not_signable"),
        ("https://img.example.com/1.jpg", None),
        ("https://pictures.s3.amazonaws.com/1.jpg", None),
    ],
)
def test_what_is_not_signed_says_why(api: Api, url: str, reason: str | None) -> None:
    api.shop.processing(chunk_of([url]), credentials=S3, sign_urls=True)
    (task,) = claim(api)
    assert (task["data_url"], *signing_of(task)) == (url, None, reason)


def test_urls_stay_as_they_are_where_signing_is_not_asked_for(api: Api) -> None:
    api.shop.processing(chunk_of(["s3://pictures/1.jpg"]), credentials=S3, delivery=DELIVERY)
    (task,) = claim(api)
    assert signing_of(task) == (None, None)


SPOILED = {
    "other key": "update jobs set credentials = set_byte(credentials, 3, 255 - get_byte(credentials, 3)) where job_no = %s",
    "altered": "update jobs set credentials = set_byte(credentials, 40, 255 - get_byte(credentials, 40)) where job_no = %s",
    "cut": "update jobs set credentials = '\\x01' where job_no = %s",
}


@pytest.mark.parametrize("statement", SPOILED.values(), ids=SPOILED)
def test_an_envelope_that_does_not_open_holds_nothing_up(
    api: Api, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bad, _ = (
        api.shop.processing(chunk_of([f"s3://{n}/1.jpg"]), credentials=S3, sign_urls=True)
        for n in ("spoiled", "whole")
    )
    api.shop.run(statement, bad.job_no)
    tasks = {task["data_url"]: signing_of(task) for task in claim(api)}
    assert tasks["s3://spoiled/1.jpg"] == (None, "credentials_unreadable")
    assert tasks["s3://whole/1.jpg"][0]
    said = [each.getMessage() for each in caplog.records if each.name == "api.signing"]
    assert len(said) == 1
    assert bad.job_id in said[0]
    assert CANARY not in caplog.text
    assert "X-Amz" not in caplog.text


def test_urls_are_signed_before_and_after_a_change_of_the_key(shop: Shop) -> None:
    old, new = (bytes.fromhex(key) for key in (KEY, secrets.token_hex(32)))
    job = shop.processing(chunk_of(["s3://pictures/1.jpg"]), credentials=S3, sign_urls=True)
    tasks = shop.claim(shop.annotator())

    def sign(*keys: bytes) -> str:
        sealed = shop.do(find_sealed, tasks)
        return UrlSigner(Vault(keys), "").sign(tasks, sealed)[tasks[0].task_id]

    assert sign(new) == "credentials_unreadable"
    assert sign(new, old).startswith("https://")
    shop.do(job_credentials.reseal, Vault([new, old]))
    assert sign(new).startswith("https://")
    assert sign(old) == "credentials_unreadable"
    assert shop.job(job).credentials is not None


def test_what_is_no_credentials_holds_nothing_up(api: Api) -> None:
    api.shop.processing(chunk_of(["s3://p/1.jpg"]), credentials=b'{"x": 1}', sign_urls=True)
    assert [signing_of(task) for task in claim(api)] == [(None, "credentials_unreadable")]


def test_wiped_credentials_sign_nothing_more_and_the_job_goes_on(api: Api) -> None:
    job = api.shop.processing(
        chunk_of(["s3://pictures/1.jpg"]), credentials=S3, sign_urls=True, consensus_threshold=1
    )
    (before,) = claim(api, "one")
    assert before["signed_url"]
    path = f"/v1/jobs/{job.job_id}/credentials"
    assert api.client.delete(path, headers=api.customer).status_code == 204
    (after,) = claim(api, "one")
    assert signing_of(after) == (None, "no_credentials")
    body = {"task_ids": [after["task_id"]]}
    (renewed,) = api.post("/v1/annotation/renew", body, api.annotator).json()["results"]
    assert (renewed["outcome"], *signing_of(renewed)) == ("renewed", None, "no_credentials")
    labels = {"labels": [{"task_id": after["task_id"], "label": "cat"}]}
    assert api.post("/v1/annotation/labels", labels, api.annotator).status_code == 200
    assert api.shop.job(job).status == "completed"


@pytest.mark.parametrize("delivery", [None, DELIVERY], ids=["export", "delivery"])
@pytest.mark.parametrize("ends_by", ["labels", "cancel", "failure"])
def test_credentials_are_kept_until_the_job_has_ended(
    api: Api, delivery: Any, ends_by: str
) -> None:
    shop = api.shop
    job = shop.processing(
        chunk_of(["s3://pictures/1.jpg"]),
        credentials=S3,
        sign_urls=True,
        delivery=delivery,
        consensus_threshold=1,
        ingested=ends_by != "failure",
    )
    assert shop.job(job).credentials is not None
    if ends_by == "cancel":
        shop.do(jobs.cancel, job.job_no)
    elif ends_by == "failure":
        shop.do(jobs.fail, job.job_no, "no_valid_lines", "There are none.")
    else:
        shop.answer(shop.annotator(), "cat")
        if delivery:
            assert shop.job(job).credentials is not None
            shop.begin_delivery(job)
            shop.do(jobs.finish_delivery, job.job_no, 1)
    ended = shop.job(job)
    assert (ended.credentials, ended.status.has_ended) == (None, True)


def test_signing_without_credentials_is_refused_with_what_to_do(api: Api) -> None:
    answer = api.submit(JOB_BODY | {"sign_urls": True})
    (fault,) = answer.json()["details"]
    assert (answer.status_code, fault["field"]) == (400, "sign_urls")
    assert "give credentials that may read the objects" in fault["message"]


def test_a_google_key_that_cannot_sign_is_refused(api: Api) -> None:
    body = JOB_BODY | {
        "manifest_url": "gs://manifests/one.jsonl",
        "credentials": {"service_account_json": account(f"{CANARY}")},
    }
    assert api.submit(body).status_code == 202
    answer = api.submit(body | {"sign_urls": True})
    (fault,) = answer.json()["details"]
    assert (answer.status_code, fault["field"]) == (400, "credentials.service_account_json")
    assert CANARY not in answer.text


def test_inline_tasks_have_no_credentials_to_sign_with(api: Api) -> None:
    body = {
        "type": "image_classification",
        "data_url": "s3://pictures/1.jpg",
        "label_spec": JOB_BODY["label_spec"],
        "sign_urls": True,
    }
    answer = api.post("/v1/tasks", body)
    (fault,) = answer.json()["details"]
    assert (answer.status_code, fault["field"]) == (400, "sign_urls")
    assert "give a data_url that annotators can load, or post a job" in fault["message"]


def test_customers_see_the_url_of_the_manifest_and_nobody_the_secret(api: Api) -> None:
    made = {"callback_url": "https://hooks.example.com/x", "events": ["task.settled"]}
    assert api.post("/v1/webhooks", made).status_code == 201
    body = JOB_BODY | {"credentials": CREDENTIALS, "sign_urls": True, "consensus_threshold": 1}
    accepted = api.submit(body)
    shown = api.get(f"/v1/jobs/{accepted.json()['job_id']}")
    assert shown.json()["sign_urls"] is True
    job = api.shop.processing(
        chunk_of(["s3://pictures/1.jpg"]), credentials=S3, sign_urls=True, consensus_threshold=1
    )
    keyed = {**api.annotator, "Idempotency-Key": "one"}
    answer = api.post("/v1/annotation/claim", {"limit": 9}, keyed)
    (task,) = answer.json()["tasks"]
    labels = {"labels": [{"task_id": task["task_id"], "label": "cat"}]}
    api.post("/v1/annotation/labels", labels, api.annotator)
    exported = api.get(f"/v1/jobs/{job.job_id}/export")
    assert msgspec.json.decode(exported.content)["data_url"] == "s3://pictures/1.jpg"
    shown_to_customer = api.get(f"/v1/tasks/{task['task_id']}")
    assert shown_to_customer.json()["data_url"] == "s3://pictures/1.jpg"
    (told,) = api.shop.run("select body from notifications where event = 'task.settled'")
    assert "s3://pictures/1.jpg" in told["body"]
    for text in (exported.text, shown_to_customer.text, told["body"]):
        assert "X-Amz" not in text
    for each in (accepted, shown, answer, exported):
        assert f"{CANARY}-secret" not in each.text
