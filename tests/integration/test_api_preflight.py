"""Preflight: what would fail later is told before a job is made, and leaves nothing behind."""

import gzip
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import s3fs
from httpx import Response
from litestar.testing import TestClient

from api.preflight import Preflights
from blocks.settings import Settings
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.api_world import JOB_BODY, Api, make_app
from tests.support.s3_files import open_s3
from tests.support.side import wait_until
from tests.support.store_shop import Shop
from tests.support.stores import GcsStore

pytestmark = pytest.mark.integration


@pytest.fixture
def s3(object_store: ObjectStoreAddress) -> s3fs.S3FileSystem:
    return open_s3(object_store)


@pytest.fixture
def body(object_store: ObjectStoreAddress, s3: s3fs.S3FileSystem) -> dict[str, Any]:
    """A job whose manifest is there, and whose results can be written."""
    bucket = f"preflight-{secrets.token_hex(4)}"
    s3.mkdir(bucket)
    s3.pipe_file(f"{bucket}/m.jsonl", b'{"data_url":"https://a.example/1.jpg"}\n')
    return JOB_BODY | {
        "manifest_url": f"s3://{bucket}/m.jsonl",
        "delivery": {"type": "s3", "bucket": bucket, "prefix": "out"},
        "credentials": {
            "access_key_id": object_store.access_key_id,
            "secret_access_key": object_store.secret_access_key,
            "region": "us-east-1",
            "endpoint_url": object_store.endpoint_url,
        },
    }


def post(api: Api, body: dict[str, Any], *, preflight: str = "true") -> tuple[int, dict[str, Any]]:
    response = api.post(f"/v1/jobs?preflight={preflight}", body)
    return response.status_code, response.json()


def codes(answer: dict[str, Any]) -> dict[str, str]:
    return {fault["field"]: fault["code"] for fault in answer["details"]}


def test_what_works_is_accepted_and_nothing_is_left_in_the_bucket(
    api: Api, body: dict[str, Any], s3: s3fs.S3FileSystem
) -> None:
    body |= {"callback_url": "https://127.0.0.1/hook"}  # which the tests allow
    status, answer = post(api, body)
    assert (status, answer["status"]) == (202, "accepted")
    bucket = body["delivery"]["bucket"]
    assert s3.find(bucket) == [f"{bucket}/m.jsonl"]
    assert s3.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", []) == []


def test_an_empty_manifest_can_be_read(
    api: Api, body: dict[str, Any], s3: s3fs.S3FileSystem
) -> None:
    s3.pipe_file(body["manifest_url"], b"")
    assert post(api, body)[0] == 202


def test_everything_that_fails_is_told_at_once_and_no_job_is_made(
    api: Api, body: dict[str, Any]
) -> None:
    body["manifest_url"] += ".missing"
    body["callback_url"] = "https://10.1.2.3/hook"
    status, answer = post(api, body)
    assert (status, answer["code"]) == (422, "preflight_failed")
    assert codes(answer) == {"manifest_url": "object_not_found", "callback_url": "address_refused"}
    assert api.get("/v1/jobs").json()["jobs"] == []


def test_wrong_credentials_fail_reading_and_writing(api: Api, body: dict[str, Any]) -> None:
    body["credentials"] = body["credentials"] | {"secret_access_key": "canary-secret"}
    status, answer = post(api, body)
    assert status == 422
    assert codes(answer) == dict.fromkeys(["manifest_url", "delivery"], "invalid_credentials")
    assert "canary-secret" not in str(answer)


def test_a_store_that_is_not_there_is_told(api: Api, body: dict[str, Any]) -> None:
    body["credentials"] = body["credentials"] | {"endpoint_url": "http://127.0.0.1:1"}
    status, answer = post(api, body)
    assert (status, set(codes(answer))) == (422, {"manifest_url", "delivery"})


def test_gcs_is_tried_too(api_settings: Settings, shop: Shop, gcs_url: str) -> None:
    store = GcsStore(gcs_url)
    store.put("m.jsonl", b'{"data_url": "https://a.example/1.jpg"}')
    settings = msgspec.structs.replace(api_settings, gcs_endpoint_url=gcs_url)
    with TestClient(make_app(settings)) as client:
        api = Api(client, shop)
        body = JOB_BODY | {
            "manifest_url": f"gs://{store.name}/m.jsonl",
            "delivery": {"type": "gcs", "bucket": store.name},
        }
        assert post(api, body)[0] == 202
        assert [entry.key for entry in store.open().entries("")] == ["m.jsonl"]
        body["manifest_url"] = "gs://there-is-none/m.jsonl"
        status, answer = post(api, body)
        assert (status, codes(answer)) == (422, {"manifest_url": "bucket_not_found"})


def test_without_it_nothing_is_tried(api: Api, body: dict[str, Any]) -> None:
    body["manifest_url"] += ".missing"
    assert post(api, body, preflight="false")[0] == 202


@pytest.mark.parametrize(
    "text, said",
    [
        (
            b'\n{"source-ref": "s3://a-bucket/1.jpg"}\n' * 20,
            "Line 2: data_url is missing; the line has source-ref. Did you mean that?",
        ),
        (b"name,url\n1,https://a.example/1.jpg", "Line 1: The line is not valid JSON"),
        (
            gzip.compress(bytes(range(256)) * 999),
            "Line 1: It begins like gzip; name the object .gz.",
        ),
    ],
    ids=["another field", "CSV", "gzip"],
)
def test_first_lines_of_which_none_is_usable_are_told(
    api: Api, body: dict[str, Any], s3: s3fs.S3FileSystem, text: bytes, said: str
) -> None:
    s3.pipe_file(body["manifest_url"], text)
    status, answer = post(api, body)
    (fault,) = answer["details"]
    assert (status, fault["field"], fault["code"]) == (422, "manifest_url", "no_valid_lines")
    assert said in fault["message"]


@pytest.mark.parametrize(
    "text",
    [
        b'x^2 + y^2\n{"data_url": "https://a.example/1.jpg"}',
        b"\n" * 100,
        b'{"data_url": "https://a.example/' + b"x" * 100_000,
    ],
    ids=["one is usable", "blank", "a long line"],
)
def test_first_lines_that_decide_nothing_are_let_through(
    api: Api, body: dict[str, Any], s3: s3fs.S3FileSystem, text: bytes
) -> None:
    s3.pipe_file(body["manifest_url"], text)
    assert post(api, body)[0] == 202


def test_a_replay_comes_before_it(api: Api, body: dict[str, Any], s3: s3fs.S3FileSystem) -> None:
    def submit(**changes: Any) -> Response:
        headers = {**api.customer, "Idempotency-Key": "once"}
        return api.client.post("/v1/jobs?preflight=true", json=body | changes, headers=headers)

    first = submit()
    assert first.status_code == 202
    s3.rm_file(body["manifest_url"])
    again = submit()
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert again.json() == first.json()
    assert submit(priority=9).status_code == 409


@pytest.fixture
def tarpit() -> Iterator[tuple[str, Callable[[], None]]]:
    """The URL of a store that accepts connections and never answers, and what ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])

        def end() -> None:
            listener.shutdown(socket.SHUT_RDWR)
            for each in accepted:
                each.close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", end
        with suppress(OSError):
            end()


def test_a_store_that_never_answers_holds_up_nobody(
    api_settings: Settings,
    shop: Shop,
    body: dict[str, Any],
    tarpit: tuple[str, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.app.Preflights", partial(Preflights, seconds=0.3))
    url, end = tarpit
    stuck = body | {"credentials": body["credentials"] | {"endpoint_url": url}}
    with TestClient(make_app(api_settings)) as client:
        api = Api(client, shop)
        for _ in range(2):
            status, answer = post(api, stuck)
            assert (status, codes(answer)) == (
                422,
                dict.fromkeys(["manifest_url", "delivery"], "preflight_timeout"),
            )
        refused = api.post("/v1/jobs?preflight=true", body)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_preflights")
        assert int(refused.headers["Retry-After"]) > 0
        assert post(api, body, preflight="false")[0] == 202
        assert api.post("/v1/jobs?preflight=true", body, api.new_customer()).status_code != 429
        assert api.get("/v1/jobs").status_code == 200
        assert client.get("/health/ready").json()["database"] == "ok"
        end()
        wait_until(lambda: post(api, body)[0] != 429)


def test_keys_health_and_metrics_are_answered_while_every_handler_is_stuck(
    api_settings: Settings, shop: Shop
) -> None:
    app = make_app(api_settings)
    going_on = threading.Event()
    with TestClient(app) as client:
        api = Api(client, shop)
        try:
            for _ in range(100):
                app.state.threads.handlers.submit(going_on.wait)
            assert client.get("/health/live").status_code == 200
            assert client.get("/health/ready").json()["database"] == "ok"
            assert client.get("/metrics").status_code == 200
            assert api.get("/v1/jobs", api.bearer("sk_wrong")).status_code == 401
        finally:
            going_on.set()
