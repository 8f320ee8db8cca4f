"""Jobs over HTTP: submitted, looked at, exported, and started in Prefect."""

import json
from typing import Any

import pyarrow as pa
import pytest
from litestar.testing import TestClient

from blocks.domain.ids import new_id, task_no
from blocks.domain.model import BadLine, GoodLine, LineCode
from blocks.settings import Settings
from blocks.store import job_credentials, jobs
from blocks.store.jobs import Job
from tests.support.api_world import CANARY, CREDENTIALS, JOB_BODY, Api, make_app
from tests.support.canaries import in_database, places_of
from tests.support.outbound import account
from tests.support.side import at_once
from tests.support.store_shop import DELIVERY, OPTIONS, Chunk, Shop, make_chunk

pytestmark = [
    pytest.mark.integration,
    # test_api_errors has a test of its own for them.
]


def finish(shop: Shop, *made: Chunk, **changes: Any) -> Job:
    """A completed job whose tasks are all cats."""
    job = shop.processing(*made, consensus_threshold=2, **changes)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat", 500)
    assert shop.job(job).status == "completed"
    return job


# Submitting a job


def test_a_job_is_accepted(api: Api) -> None:
    response = api.submit()
    assert response.status_code == 202
    job_id = response.json()["job_id"]
    assert response.json() == {
        "job_id": job_id,
        "status": "accepted",
        "message": "Job accepted. Manifest will be processed asynchronously.",
    }
    assert job_id.startswith("job_")
    assert response.headers["location"] == f"/v1/jobs/{job_id}"
    assert "idempotent-replayed" not in response.headers
    assert api.get(response.headers["location"]).status_code == 200


def test_what_is_not_said_has_the_defaults_of_the_contract(api: Api) -> None:
    job = api.shop.job(api.submit().json()["job_id"])
    assert (job.consensus_threshold, job.task_type, job.priority) == (3, "image_classification", 5)
    assert (job.stop_early, job.failure_threshold_percent) == (False, 100)
    assert (job.callback_url, job.metadata, job.credentials, job.delivery) == (None,) * 4


def test_what_is_said_is_what_is_recorded_and_shown(api: Api) -> None:
    said = {
        "label_spec": {"question": " ¿Qué? 🦊 ", "options": ["a", " b", "🦊"]},
        "consensus_threshold": 10,
        "task_type": "moderation",
        "callback_url": "https://hooks.example.com/x?y=z",
        "priority": 0,
        "stop_early": True,
        "failure_threshold_percent": 12.5,
        "metadata": {"z": "1", "a": "é\t"},
    }
    delivery = {"type": "s3", "bucket": "results", "prefix": "/to/here/", "compression": "zstd"}
    body = {"manifest_url": "s3://manifests/a b+c%20.jsonl", "delivery": delivery, **said}
    shown = api.get(f"/v1/jobs/{api.submit(body).json()['job_id']}").json()
    assert {field: shown[field] for field in said} == said
    assert list(shown["metadata"]) == ["z", "a"]
    assert shown["manifest"] == {
        "url": "s3://manifests/a b+c%20.jsonl", "bytes": None, "etag": None, "lines_read": 0,
    }  # fmt: skip
    expected = {"type": "s3", "bucket": "results", "prefix": "to/here", "compression": "zstd"}
    assert expected.items() <= shown["delivery"].items()


def test_an_empty_metadata_object_is_echoed_as_one(api: Api) -> None:
    job_id = api.submit(JOB_BODY | {"metadata": {}}).json()["job_id"]
    assert api.get(f"/v1/jobs/{job_id}").json()["metadata"] == {}


def test_each_form_of_a_manifest_url_is_accepted(api: Api) -> None:
    for url in (
        "s3://manifests/one.jsonl",
        "s3://manifests/deep/er/one.jsonl",
        "gs://manifests/one.jsonl",
        "https://manifests.s3.amazonaws.com/one.jsonl",
        "https://manifests.s3.eu-west-1.amazonaws.com/one.jsonl",
        "https://s3.amazonaws.com/manifests/one.jsonl",
        "https://s3.eu-west-1.amazonaws.com/manifests/one.jsonl",
        "https://storage.googleapis.com/manifests/one.jsonl",
    ):
        assert api.submit(JOB_BODY | {"manifest_url": url}).status_code == 202, url


def test_gcs_credentials_go_with_a_gcs_manifest(api: Api) -> None:
    body = JOB_BODY | {
        "manifest_url": "gs://manifests/one.jsonl",
        "credentials": {"service_account_json": account()},
        "delivery": {"type": "gcs", "bucket": "results"},
    }
    assert api.submit(body).status_code == 202


def refused(api: Api, body: Any) -> set[str]:
    """The fields that are at fault."""
    response = api.submit(body)
    assert response.status_code == 400, response.text
    found = response.json()
    assert set(found) == {"error", "code", "details"}
    assert found["code"] == "invalid_request"
    assert all(
        set(fault) == {"field", "message"} and fault["message"] for fault in found["details"]
    )
    return {fault["field"] for fault in found["details"]}


def test_every_fault_is_told_at_once(api: Api) -> None:
    body = {
        "manifest_url": "ftp://x/y",
        "label_spec": {"question": " ", "options": ["a", "a"], "extra": 1},
        "consensus_threshold": 0,
        "task_type": "guessing",
        "callback_url": "http://insecure.example.com",
        "delivery": {"type": "s3", "bucket": "!", "prefix": "a/../b", "format": "csv"},
        "metadata": {"n": 1},
        "priority": 10,
        "stop_early": "yes",
        "failure_threshold_percent": 101,
        "nonsense": True,
    }
    assert refused(api, body) == {
        "manifest_url", "label_spec.question", "label_spec.options", "label_spec.extra",
        "consensus_threshold", "task_type", "callback_url", "delivery.bucket", "delivery.prefix",
        "delivery.format", "metadata", "priority", "stop_early", "failure_threshold_percent",
        "nonsense",
    }  # fmt: skip
    assert api.shop.value("select count(*) from jobs") == 0


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"manifest_url": None}, "manifest_url"),
    ({"manifest_url": 5}, "manifest_url"),
    ({"manifest_url": ["s3://a/b"]}, "manifest_url"),
    ({"manifest_url": "s3://bucket/"}, "manifest_url"),
    ({"manifest_url": "s3://bucket"}, "manifest_url"),
    ({"manifest_url": "https://example.com/bucket/key"}, "manifest_url"),
    ({"label_spec": None}, "label_spec"),
    ({"label_spec": {"question": "", "options": OPTIONS}}, "label_spec.question"),
    ({"label_spec": {"options": OPTIONS}}, "label_spec.question"),
    ({"label_spec": {"question": "?", "options": ["a"]}}, "label_spec.options"),
    ({"label_spec": {"question": "?", "options": ["a", ""]}}, "label_spec.options"),
    ({"label_spec": {"question": "?", "options": list(map(str, range(101)))}}, "label_spec.options"),
    ({"consensus_threshold": 11}, "consensus_threshold"),
    ({"consensus_threshold": 2.5}, "consensus_threshold"),
    ({"consensus_threshold": "3"}, "consensus_threshold"),
    ({"consensus_threshold": True}, "consensus_threshold"),
    ({"priority": -1}, "priority"),
    ({"failure_threshold_percent": -0.1}, "failure_threshold_percent"),
    ({"metadata": {"deep": {}}}, "metadata"),
    ({"metadata": []}, "metadata"),
    ({"credentials": {"access_key_id": "a", "region": "b"}}, "credentials.secret_access_key"),
    ({"credentials": CREDENTIALS | {"service_account_json": "{}"}}, "credentials.service_account_json"),
    ({"credentials": CREDENTIALS | {"endpoint_url": "ftp://x"}}, "credentials.endpoint_url"),
    ({"delivery": {"type": "gcs", "bucket": "results"}}, "delivery.type"),
    ({"delivery": {"type": "azure", "bucket": "results"}}, "delivery.type"),
    ({"delivery": {"type": "s3"}}, "delivery.bucket"),
    ({"label_spec": {"question": "a\x00b", "options": OPTIONS}}, "label_spec.question"),
    ({"manifest_ur": "s3://a/b"}, "manifest_ur"),
]  # fmt: skip


def test_a_fault_is_told_by_the_name_of_its_field(api: Api) -> None:
    strayed = []
    for change, field in FAULTS:
        response = api.submit(JOB_BODY | change)
        found = [fault["field"] for fault in response.json().get("details", [])]
        if (response.status_code, found) != (400, [field]):
            strayed.append((change, response.status_code, found))
    assert strayed == []


def test_a_body_that_is_no_object_is_refused(api: Api) -> None:
    headers = {**api.customer, "Content-Type": "application/json"}
    for body in (b"[]", b'"text"', b"17", b"null"):
        response = api.client.post("/v1/jobs", content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


# Idempotency


def test_the_same_key_and_body_return_the_same_job(api: Api) -> None:
    first = api.submit(**{"Idempotency-Key": "k" * 255})
    second = api.submit(dict(reversed(JOB_BODY.items())), **{"Idempotency-Key": "k" * 255})
    assert second.status_code == first.status_code == 202
    assert second.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert api.shop.value("select count(*) from jobs") == 1


def test_the_same_key_and_another_body_are_a_conflict(api: Api) -> None:
    api.submit(**{"Idempotency-Key": "one"})
    response = api.submit(JOB_BODY | {"priority": 6}, **{"Idempotency-Key": "one"})
    assert response.status_code == 409
    assert response.json()["code"] == "idempotency_conflict"
    assert set(response.json()) == {"error", "code"}


def test_a_refused_body_does_not_use_up_its_key(api: Api) -> None:
    assert api.submit({}, **{"Idempotency-Key": "one"}).status_code == 400
    response = api.submit(**{"Idempotency-Key": "one"})
    assert (response.status_code, "idempotent-replayed" in response.headers) == (202, False)


def test_a_key_is_a_customers_own(api: Api) -> None:
    first = api.submit(**{"Idempotency-Key": "one"}).json()
    headers = {**api.new_customer(), "Idempotency-Key": "one"}
    assert api.post("/v1/jobs", JOB_BODY, headers).json()["job_id"] != first["job_id"]


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_empty_or_too_long_is_refused(api: Api, key: str) -> None:
    response = api.submit(**{"Idempotency-Key": key})
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_request"
    assert response.json()["details"]


def test_requests_with_the_same_key_at_once_make_one_job(api: Api) -> None:
    responses = at_once(*[lambda: api.submit(**{"Idempotency-Key": "one"})] * 4)
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["job_id"] for response in responses}) == 1
    assert api.shop.value("select count(*) from jobs") == 1


# Looking at a job


def test_a_job_has_the_fields_of_the_contract(api: Api) -> None:
    job_id = api.submit().json()["job_id"]
    shown = api.get(f"/v1/jobs/{job_id}").json()
    public = {
        "job_id", "status", "total_tasks", "tasks_done", "tasks_failed", "progress_percent",
        "created_at", "completed_at", "started_at", "manifest", "delivery", "label_spec",
        "consensus_threshold", "task_type", "metadata", "error",
    }  # fmt: skip
    assert public <= set(shown)
    assert (shown["job_id"], shown["status"], shown["progress_percent"]) == (job_id, "accepted", 0)
    assert (shown["total_tasks"], shown["tasks_done"], shown["tasks_failed"]) == (0, 0, 0)
    assert (shown["started_at"], shown["completed_at"], shown["delivery"]) == (None, None, None)
    assert (shown["metadata"], shown["error"]) == (None, None)


@pytest.mark.parametrize(
    "settled, failed, total, percent",
    [(240, 3, 1000, 24.3), (0, 0, 1000, 0), (1, 0, 3, 33.3), (2, 1, 3, 100), (0, 0, 0, 0), (999, 0, 1000, 99.9)],
)  # fmt: skip
def test_progress_counts_what_is_done_and_what_failed(
    api: Api, settled: int, failed: int, total: int, percent: float
) -> None:
    job = api.shop.processing(make_chunk(total), ingested=False)
    api.shop.run("update chunks set settled = %s, failed = %s", settled, failed)
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (shown["tasks_done"], shown["tasks_failed"], shown["total_tasks"]) == (
        settled,
        failed,
        total,
    )
    assert shown["progress_percent"] == percent


def test_progress_is_not_a_hundred_before_the_last_task(api: Api) -> None:
    job = api.shop.processing(make_chunk(0), ingested=False)
    api.shop.run("update chunks set tasks = 10000, settled = 9999")
    assert api.get(f"/v1/jobs/{job.job_id}").json()["progress_percent"] < 100


def test_bad_lines_count_in_the_total_and_as_failed(api: Api) -> None:
    job = api.shop.processing(make_chunk(6, bad=2), ingested=False)
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (shown["total_tasks"], shown["tasks_failed"], shown["progress_percent"]) == (8, 2, 25)
    assert shown["manifest"] == {
        "url": job.manifest_url, "bytes": 1_000_000, "etag": '"etag"', "lines_read": 8,
    }  # fmt: skip


def test_a_failed_job_says_why(api: Api) -> None:
    job = api.shop.processing(ingested=False)
    api.shop.do(jobs.fail, job.job_no, "manifest_changed", "The manifest changed.")
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert shown["status"] == "failed"
    assert shown["error"] == {"code": "manifest_changed", "message": "The manifest changed."}


def test_a_delivery_shows_how_far_it_is(api: Api) -> None:
    job = api.shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)

    def shown() -> tuple[str, dict[str, Any]]:
        found = api.get(f"/v1/jobs/{job.job_id}").json()
        return found["status"], found["delivery"]

    assert shown()[0] == "processing"
    assert shown()[1]["status"] == "pending"
    api.shop.begin_delivery(job)
    assert shown()[1]["status"] == "delivering"
    api.shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "Access is denied.")
    status, delivery = shown()
    assert (status, delivery["status"]) == ("completed", "failed")
    assert (delivery["code"], delivery["message"]) == ("access_denied", "Access is denied.")
    assert delivery["delivered_at"] is None


def test_times_are_utc_with_a_z(api: Api) -> None:
    job = finish(api.shop, make_chunk(1))
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    for field in ("created_at", "started_at", "completed_at"):
        assert shown[field].endswith("Z")
        assert shown[field][10] == "T"
    assert shown["created_at"] <= shown["started_at"] <= shown["completed_at"]


def test_times_are_utc_with_a_z_whatever_the_time_zone_of_the_database(
    api_settings: Settings, shop: Shop
) -> None:
    shop.run(
        f"alter database {shop.value('select current_database()')} set timezone = 'Asia/Kolkata'"
    )
    job = finish(shop, make_chunk(1))
    with TestClient(make_app(api_settings)) as client:
        api = Api(client, shop)
        shown = api.get(f"/v1/jobs/{job.job_id}").json()
        shop.processing(make_chunk(1))
        (task,) = api.post("/v1/annotation/claim", {"limit": 1}, api.annotator).json()["tasks"]
    assert [shown[field][-1] for field in ("created_at", "started_at", "completed_at")] == ["Z"] * 3
    assert task["lease_expires_at"][-1] == "Z"


@pytest.mark.parametrize("path", ["", "/export", "/errors"])
def test_a_foreign_job_is_byte_for_byte_like_one_that_never_was(api: Api, path: str) -> None:
    job = api.shop.processing(make_chunk(0, bad=1))
    foreign = api.get(f"/v1/jobs/{job.job_id}{path}", api.new_customer())
    unknown = api.get(f"/v1/jobs/{new_id('job')}{path}")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.content == unknown.content
    assert {k: v for k, v in foreign.headers.items() if k != "date"} == {
        k: v for k, v in unknown.headers.items() if k != "date"
    }
    assert unknown.json() == {"error": "There is no such job.", "code": "job_not_found"}


RUBBISH = ["x", "job_", "%00", "job_%00", "%F0%9F%A6%8A", "%ff", "a" * 3000, "'; --", "%2e%2e"]


def test_rubbish_for_an_id_is_not_found(api: Api) -> None:
    paths = [
        f"/v1/jobs/{job_id}{rest}" for job_id in RUBBISH for rest in ("", "/export", "/errors")
    ]
    statuses = {path: api.get(path).status_code for path in paths}
    assert {path: status for path, status in statuses.items() if status != 404} == {}


# Export


def export_lines(content: bytes) -> list[Any]:
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def test_an_export_has_the_settled_tasks_as_json_lines(api: Api) -> None:
    job = finish(api.shop, make_chunk(3, bad=1), make_chunk(2, start=1000))
    response = api.get(f"/v1/jobs/{job.job_id}/export")
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == "application/x-ndjson"
    lines = export_lines(response.content)
    assert [line["line"] for line in lines] == [1, 2, 3, 5, 6]
    assert [line["task_id"] for line in lines] == [
        job.task_id(number) for number in (0, 1, 2, task_no(1, 0), task_no(1, 1))
    ]
    assert {line["consensus_label"] for line in lines} == {"cat"}


def test_an_export_goes_on_after_a_line(api: Api) -> None:
    job = finish(api.shop, make_chunk(4))
    whole = api.get(f"/v1/jobs/{job.job_id}/export").content
    rest = api.get(f"/v1/jobs/{job.job_id}/export?after=2").content
    assert whole.endswith(rest)
    assert [line["line"] for line in export_lines(rest)] == [3, 4]
    assert api.get(f"/v1/jobs/{job.job_id}/export?after=4").content == b""


@pytest.mark.parametrize("after", ["-1", "x", "1.5", ""])
def test_after_has_to_be_the_number_of_a_line(api: Api, after: str) -> None:
    job = finish(api.shop, make_chunk(1))
    response = api.get(f"/v1/jobs/{job.job_id}/export?after={after}")
    assert response.status_code == 400
    assert [fault["field"] for fault in response.json()["details"]] == ["after"]


def test_a_large_export_is_streamed_whole(api: Api) -> None:
    tasks = [
        GoodLine(n * 9000, n + 1, f"https://x.example.com/{n}", '{"pad":"' + "x" * 8000 + '"}')
        for n in range(400)
    ]
    job = finish(api.shop, Chunk(400, tasks, []))
    lines = export_lines(api.get(f"/v1/jobs/{job.job_id}/export").content)
    assert [line["line"] for line in lines] == list(range(1, 401))


@pytest.mark.parametrize("tasks", [0, 1, 300])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_an_export_is_compressed_for_who_accepts_it(api: Api, tasks: int, encoding: str) -> None:
    job = finish(api.shop, make_chunk(tasks))
    path = f"/v1/jobs/{job.job_id}/export"
    plain = api.client.get(path, headers={**api.customer, "Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content.count(b"\n") == tasks
    headers = {**api.customer, "Accept-Encoding": encoding}
    with api.client.stream("GET", path, headers=headers) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == encoding
    assert "accept-encoding" in response.headers["vary"].lower()
    assert pa.CompressedInputStream(pa.BufferReader(raw), encoding).read() == plain.content


@pytest.mark.parametrize("begun", [False, True])
def test_there_is_no_export_before_the_job_is_completed(api: Api, begun: bool) -> None:
    job = api.shop.processing(make_chunk(1)) if begun else api.shop.submit()
    response = api.get(f"/v1/jobs/{job.job_id}/export")
    assert response.status_code == 409
    assert response.json()["error"] == "job is not completed yet"


def test_there_is_no_export_of_a_failed_job(api: Api) -> None:
    job = api.shop.submit()
    api.shop.do(jobs.fail, job.job_no, "object_not_found", "There is no such object.")
    response = api.get(f"/v1/jobs/{job.job_id}/export")
    assert response.status_code == 409
    assert "failed" in response.json()["error"]
    assert response.json()["error"] != "job is not completed yet"


def test_what_a_cancelled_job_has_settled_can_be_exported(api: Api) -> None:
    job = finish(api.shop, make_chunk(2))
    api.shop.run("update jobs set status = 'cancelled'")
    assert len(export_lines(api.get(f"/v1/jobs/{job.job_id}/export").content)) == 2


def test_a_job_whose_delivery_was_refused_can_be_exported(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), delivery=DELIVERY, consensus_threshold=2)
    for _ in range(2):
        api.shop.answer(api.shop.annotator(), "cat")
    api.shop.begin_delivery(job)
    api.shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "Denied.")
    assert api.get(f"/v1/jobs/{job.job_id}/export").status_code == 200


# Bad lines


def test_bad_lines_are_told_with_number_place_and_reason(api: Api) -> None:
    bad = [
        BadLine(120, 2, LineCode.INVALID_UTF8, "It is not UTF-8.", b'{"a":"\xff"}' + b"x" * 2000)
    ]
    job = api.shop.processing(Chunk(2, [], bad), ingested=False)
    response = api.get(f"/v1/jobs/{job.job_id}/errors")
    assert response.headers["content-type"].partition(";")[0] == "application/x-ndjson"
    (line,) = export_lines(response.content)
    assert line == {
        "line": 2,
        "byte_offset": 120,
        "code": "invalid_utf8",
        "message": "It is not UTF-8.",
        "raw": ('{"a":"\ufffd"}' + "x" * 2000)[:1024],
    }


def test_bad_lines_can_be_had_as_a_manifest_to_mend(api: Api) -> None:
    raws = [b'{"a":"\xff"}', b"x" * 300_000, b"\xef\xbb\xbf{}", b"a\rb", b"[1]"] * 20
    bad = [
        BadLine(n * 10, n + 1, LineCode.MALFORMED_JSON, "No.", raw) for n, raw in enumerate(raws)
    ]
    job = api.shop.processing(Chunk(len(bad), [], bad), ingested=False)
    response = api.get(f"/v1/jobs/{job.job_id}/errors?format=manifest")
    assert response.content == b"".join(raw + b"\n" for raw in raws)
    assert api.get(f"/v1/jobs/{job.job_id}/errors?format=jsonl").content.count(b"\n") == len(bad)
    refused = api.get(f"/v1/jobs/{job.job_id}/errors?format=csv")
    assert refused.status_code == 400
    assert [fault["field"] for fault in refused.json()["details"]] == ["format"]


def test_bad_lines_of_a_job_that_failed_for_them_stay_listed(api: Api) -> None:
    bad = [BadLine(n * 10, n + 1, LineCode.MISSING_DATA_URL, "No.", b"{}") for n in range(3)]
    job = api.shop.processing(Chunk(3, [], bad), ingested=False)
    api.shop.do(jobs.fail, job.job_no, "no_valid_lines", "None of the 3 lines is usable.")
    shown = api.get(f"/v1/jobs/{job.job_id}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "no_valid_lines")
    listed = export_lines(api.get(f"/v1/jobs/{job.job_id}/errors").content)
    assert [line["line"] for line in listed] == [1, 2, 3]


def test_a_job_without_bad_lines_has_an_empty_list(api: Api) -> None:
    job = finish(api.shop, make_chunk(1))
    response = api.get(f"/v1/jobs/{job.job_id}/errors")
    assert (response.status_code, response.content) == (200, b"")


def test_bad_lines_of_a_failed_job_can_be_looked_at(api: Api) -> None:
    job = api.shop.processing(make_chunk(0, bad=3), ingested=False)
    api.shop.do(jobs.fail, job.job_no, "failure_threshold_exceeded", "Too many.")
    assert len(export_lines(api.get(f"/v1/jobs/{job.job_id}/errors").content)) == 3


# Secrets


def test_no_credential_is_in_any_answer_or_row_or_log(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    body = JOB_BODY | {"credentials": CREDENTIALS, "delivery": {"type": "s3", "bucket": "results"}}
    answers = [api.submit(body, **{"Idempotency-Key": "one"}) for _ in range(2)]
    answers.append(api.submit(body | {"priority": 1}, **{"Idempotency-Key": "one"}))
    job_id = answers[0].json()["job_id"]
    answers += [api.get(f"/v1/jobs/{job_id}{path}") for path in ("", "/export", "/errors")]
    # At fault in every way: the answer names the field, and not what stood in it.
    wrong: list[Any] = [
        CREDENTIALS | {"region": 5},
        CREDENTIALS | {"endpoint_url": f"{CANARY}-endpoint"},
        CREDENTIALS | {"secret_access_key": [CANARY]},
        CREDENTIALS | {"service_account_json": f"{CANARY}"},
        CANARY,
        [CREDENTIALS],
    ]
    answers += [api.submit(JOB_BODY | {"credentials": each}) for each in wrong]
    malformed = json.dumps(body)[:-1].encode()
    headers = {**api.customer, "Content-Type": "application/json"}
    answers.append(api.client.post("/v1/jobs", content=malformed, headers=headers))
    assert [answer.status_code for answer in answers[6:]] == [400] * 7
    secrets = {name: value for name, value in CREDENTIALS.items() if name != "region"}
    shown = [(f"answer {n}", f"{each.headers}{each.text}") for n, each in enumerate(answers)]
    searched = [(place, text.encode()) for place, text in (*shown, ("the log", caplog.text))]
    assert places_of(secrets | {"all": CANARY}, [*searched, *in_database(api.shop.url)]) == []
    assert places_of({"the job": job_id}, in_database(api.shop.url))


def test_credentials_are_stored_and_open_with_the_key(api: Api, settings: Settings) -> None:
    job = api.shop.job(api.submit(JOB_BODY | {"credentials": CREDENTIALS}).json()["job_id"])
    opened = job_credentials.open_sealed(
        job.credentials, job.job_id, job.customer_id, settings.vault()
    )
    assert opened is not None
    assert CREDENTIALS.items() <= json.loads(opened).items()
