"""Webhooks over HTTPS: an endpoint that is told of everything, once and signed, however it behaves."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient
from standardwebhooks.webhooks import Webhook

from api.background import webhook_sender
from blocks.secrets.tls import load_ssl_context
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import customers, jobs, labelling, webhook_messages, webhook_secrets
from blocks.store.jobs import Job
from tests.support.api_world import Api, make_app
from tests.support.canaries import in_database, places_of
from tests.support.endpoint import OK, WAIT_S, Endpoint, Received, answer, hang_up
from tests.support.servers import KEY
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration

SPEC = {"question": "What is it?", "options": ["cat", "dog"]}


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    found = Endpoint(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(found.certificate))
    load_ssl_context.cache_clear()
    yield found
    found.stop()
    load_ssl_context.cache_clear()


@pytest.fixture
def told(endpoint: Endpoint, api_settings: Settings, shop: Shop) -> Iterator[Api]:
    """The API, started when the endpoint's certificate is known."""
    with TestClient(make_app(api_settings)) as client:
        yield Api(client, shop)


def register(api: Api, endpoint: Endpoint, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/webhooks", {"callback_url": endpoint.url, **body})
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def log(api: Api, webhook_id: str) -> list[dict[str, Any]]:
    response = api.get(f"/v1/webhooks/{webhook_id}/deliveries")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["deliveries"]
    return found


def wait_log(
    api: Api, webhook_id: str, is_there: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """The log, once it is like that: what was answered is written after the answer."""
    pause = threading.Event()
    deadline = time.monotonic() + WAIT_S
    while not is_there(found := log(api, webhook_id)):
        assert time.monotonic() < deadline, found
        pause.wait(0.02)
    return found


def attempted(times: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda found: bool(found) and len(found[0]["attempts"]) == times


def hurry(shop: Shop) -> None:
    """Let the next attempt be due now."""
    shop.run("update webhooks set resumes_at = now()")
    shop.run("update notifications set not_before = now()")
    shop.do(webhook_messages.wake)


def verified(secret: str, received: Received) -> dict[str, Any]:
    """The body, if the official verifier accepts it."""
    Webhook(secret).verify(received.body, received.headers)
    found: dict[str, Any] = json.loads(received.body)
    return found


def complete(shop: Shop, **changes: Any) -> Job:
    job = shop.processing(make_chunk(1), consensus_threshold=2, **changes)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    return job


def inline(api: Api, **more: Any) -> str:
    body = {"type": "sentiment", "data_url": "https://a.example/1.jpg", "label_spec": SPEC}
    response = api.post("/v1/tasks", body | {"consensus_threshold": 2} | more)
    assert response.status_code == 202, response.text
    found: str = response.json()["task_id"]
    return found


# What is sent


def test_a_job_is_followed_from_its_start_to_its_end(told: Api, endpoint: Endpoint) -> None:
    secret = register(told, endpoint, events=["job.processing", "job.completed"])["secret"]
    job = complete(told.shop, metadata='{"order":"17"}')
    by_type = {event["type"]: event for event in (verified(secret, endpoint.next()) for _ in "12")}
    assert set(by_type) == {"job.processing", "job.completed"}
    data = by_type["job.completed"]["data"]
    assert (data["job_id"], data["status"], data["total_tasks"], data["tasks_done"]) == (
        job.job_id, "completed", 1, 1,
    )  # fmt: skip
    assert (data["metadata"], data["error"], data["delivery"]) == ({"order": "17"}, None, None)
    assert by_type["job.completed"]["timestamp"].endswith("Z")


def test_a_settled_task_is_told_with_its_result(told: Api, endpoint: Endpoint) -> None:
    secret = register(told, endpoint, events=["task.settled"])["secret"]
    job = complete(told.shop)
    event = verified(secret, endpoint.next())
    (line,) = map(json.loads, told.get(f"/v1/jobs/{job.job_id}/export").text.splitlines())
    del line["line"]
    assert event["type"] == "task.settled"
    assert event["data"] == line | {"job_id": job.job_id, "batch_id": None}


def test_a_failed_and_a_cancelled_job_say_why(told: Api, endpoint: Endpoint) -> None:
    secret = register(told, endpoint, events=["job.failed", "job.cancelled"])["secret"]
    job = told.shop.submit()
    told.shop.do(jobs.fail, job.job_no, "object_not_found", 'There is no "m.jsonl".')
    failed = verified(secret, endpoint.next())
    assert failed["data"]["error"] == {
        "code": "object_not_found",
        "message": 'There is no "m.jsonl".',
    }
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    assert verified(secret, endpoint.next())["type"] == "job.cancelled"


def test_a_delivered_job_says_where_its_results_are(told: Api, endpoint: Endpoint) -> None:
    secret = register(told, endpoint, events=["job.completed"])["secret"]
    job = complete(told.shop, delivery=DELIVERY)
    assert endpoint.received.empty()
    told.shop.begin_delivery(job)
    told.shop.do(jobs.finish_delivery, job.job_no, 3)
    delivery = verified(secret, endpoint.next())["data"]["delivery"]
    assert (delivery["status"], delivery["bucket"], delivery["objects"]) == (
        "delivered",
        "results",
        3,
    )


def test_a_jobs_own_callback_url_gets_its_own_events_by_the_default_secret(
    told: Api, endpoint: Endpoint
) -> None:
    secret = told.post("/v1/webhooks/default-secret/rotate", {}).json()["secret"]
    job = complete(told.shop, callback_url=endpoint.url)
    complete(told.shop)  # another, of which it hears nothing
    events = [verified(secret, endpoint.next()) for _ in range(2)]
    assert {event["type"] for event in events} == {"job.processing", "job.completed"}
    assert {event["data"]["job_id"] for event in events} == {job.job_id}
    assert told.get("/v1/webhooks").json()["webhooks"] == []
    (named,) = told.get("/v1/webhooks?all=true").json()["webhooks"]
    assert (named["callback_url"], named["registered"]) == (endpoint.url, False)
    assert len(log(told, named["webhook_id"])) == 2


def test_a_task_and_a_batch_have_callback_urls_too(told: Api, endpoint: Endpoint) -> None:
    secret = told.post("/v1/webhooks/default-secret/rotate", {}).json()["secret"]
    one = inline(told, callback_url=endpoint.url, metadata={"n": 1})
    task = {"type": "sentiment", "data_url": "https://a.example/2.jpg", "label_spec": SPEC}
    batch = told.post(
        "/v1/tasks/batch",
        {"tasks": [task | {"consensus_threshold": 2}], "callback_url": endpoint.url},
    ).json()
    inline(told)  # of which nobody is told
    for _ in range(2):
        told.shop.answer(told.shop.annotator(), "dog")
    events = [verified(secret, endpoint.next())["data"] for _ in range(2)]
    found = {data["task_id"]: (data["batch_id"], data["job_id"]) for data in events}
    assert found == {one: (None, None), batch["task_ids"][0]: (batch["batch_id"], None)}
    assert {data["consensus_label"] for data in events} == {"dog"}
    assert endpoint.received.empty()


def test_a_callback_url_that_is_registered_as_well_is_told_once_by_its_own_secret(
    told: Api, endpoint: Endpoint
) -> None:
    secret = register(told, endpoint)["secret"]
    complete(told.shop, callback_url=endpoint.url)
    events = [verified(secret, endpoint.next())["type"] for _ in range(3)]
    assert sorted(events) == ["job.completed", "job.processing", "task.settled"]
    assert endpoint.received.empty()


def test_nobody_is_told_of_the_jobs_of_others(told: Api, endpoint: Endpoint) -> None:
    other = told.new_customer()
    body = {"callback_url": endpoint.url}
    webhook = told.post("/v1/webhooks", body, other).json()
    complete(told.shop)
    response = told.get(f"/v1/webhooks/{webhook['webhook_id']}/deliveries", other)
    assert response.json() == {"deliveries": [], "next_cursor": None}


def test_metadata_of_any_depth_is_told_as_it_was_written(told: Api, endpoint: Endpoint) -> None:
    secret = register(told, endpoint, events=["task.settled"])["secret"]
    deep = '{"a":' + "[" * 50_000 + "1e5" + "]" * 50_000 + "}"
    told.shop.processing(make_chunk(1, metadata=deep), consensus_threshold=2)
    for _ in range(2):
        told.shop.answer(told.shop.annotator(), "cat")
    received = endpoint.next()
    assert f'"metadata":{deep},' in received.body.decode()
    Webhook(secret)


# Signatures


def test_the_body_is_signed_in_both_ways(told: Api, endpoint: Endpoint) -> None:
    secret = register(told, endpoint, events=["job.cancelled"])["secret"]
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    received = endpoint.next()
    verified(secret, received)
    expected = hmac.new(secret.encode(), received.body, hashlib.sha256).hexdigest()
    assert received.headers["x-asg-signature"] == f"sha256={expected}"
    assert received.headers["content-type"] == "application/json"
    assert "x-asg-signature-previous" not in received.headers


def test_a_secret_may_be_the_customers_own(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, secret="a-secret-of-my-own", events=["job.cancelled"])
    assert made["secret"] is None
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    received = endpoint.next()
    expected = hmac.new(b"a-secret-of-my-own", received.body, hashlib.sha256).hexdigest()
    assert received.headers["x-asg-signature"] == f"sha256={expected}"


@pytest.mark.parametrize("which", ["own", "default"])
def test_after_a_rotation_both_secrets_verify_for_a_day(
    told: Api, endpoint: Endpoint, which: str
) -> None:
    if which == "own":
        made = register(told, endpoint, events=["job.cancelled"])
        old, path = made["secret"], f"/v1/webhooks/{made['webhook_id']}/rotate"
    else:
        path = "/v1/webhooks/default-secret/rotate"
        old = told.post(path, {}).json()["secret"]
    new = told.post(path, {}).json()["secret"]
    assert new != old

    def sent() -> Received:
        url = endpoint.url if which == "default" else None
        told.shop.do(jobs.cancel, told.shop.submit(callback_url=url).job_no)
        return endpoint.next()

    both = sent()
    verified(old, both)
    verified(new, both)
    for header, secret in (("x-asg-signature", new), ("x-asg-signature-previous", old)):
        expected = hmac.new(secret.encode(), both.body, hashlib.sha256).hexdigest()
        assert both.headers[header] == f"sha256={expected}"
    for table in ("webhooks", "webhook_defaults"):
        told.shop.run(f"update {table} set rotated_at = rotated_at - interval '25 hours'")
    alone = sent()
    verified(new, alone)
    assert len(alone.headers["webhook-signature"].split()) == 1


def test_secrets_are_stored_encrypted_and_shown_nowhere_again(
    told: Api, endpoint: Endpoint
) -> None:
    made = register(told, endpoint)
    shown = told.get("/v1/webhooks").text + told.get("/v1/webhooks?all=true").text
    searched = [("answers", shown.encode()), *in_database(told.shop.url)]
    encoded = made["secret"].removeprefix("whsec_")
    assert places_of({"secret": made["secret"], "encoded": encoded}, searched) == []
    assert [place for place, content in searched if base64.b64decode(encoded) in content] == []
    assert places_of({"id": made["webhook_id"]}, searched)


def test_secrets_go_over_to_a_new_encryption_key(api: Api) -> None:
    made = api.post("/v1/webhooks", {"callback_url": "https://a.invalid/"}).json()
    api.post(f"/v1/webhooks/{made['webhook_id']}/rotate", {})
    default = api.post("/v1/webhooks/default-secret/rotate", {}).json()["secret"]
    new_key = secrets.token_bytes(32)
    both = Vault([new_key, bytes.fromhex(KEY)])
    resealed, after = api.shop.do(webhook_secrets.reseal, both)
    assert resealed == 1
    assert api.shop.do(webhook_secrets.reseal, both, after=after) == (1, None)
    assert api.shop.do(webhook_secrets.reseal, both) == (0, after)
    alone = Vault([new_key])
    no = api.shop.value("select webhook_no from webhooks")
    current, previous = api.shop.do(webhook_secrets.open_secrets, no, "", alone)
    assert (current != previous, previous) == (True, made["secret"])
    api.shop.run("update webhooks set secret = null, previous_secret = null")
    assert api.shop.do(webhook_secrets.open_secrets, no, "", alone) == [default]


# Endpoints that misbehave


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        handler.wfile.write(b"X-Slow: 1\r\n")
        handler.wfile.flush()
        time.sleep(0.1)


def never(_: BaseHTTPRequestHandler) -> None:
    time.sleep(20)


def rubbish(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    handler.close_connection = True


@pytest.mark.parametrize(
    "behave, status, words",
    [
        (answer(500, b"oh no"), 500, "answered 500"),
        (answer(404), 404, "answered 404"),
        (answer(301, Location="https://elsewhere.example/"), 301, "answered 301"),
        (hang_up, None, "connection failed"),
        (rubbish, None, "connection failed"),
        (never, None, "no answer within"),
        (drip, None, "no answer within"),
    ],
    ids=["500", "404", "redirect", "hangs up", "rubbish", "never answers", "drips"],
)
def test_what_did_not_arrive_is_sent_again_with_the_same_id_and_signed_afresh(
    told: Api,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    behave: Callable[[BaseHTTPRequestHandler], None],
    status: int | None,
    words: str,
) -> None:
    monkeypatch.setattr(webhook_sender, "_TOTAL_S", 1.0)
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.behaviours.put(behave)
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    first = endpoint.next()
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    (attempt,) = entry["attempts"]
    assert (entry["status"], attempt["status_code"]) == ("pending", status)
    assert words in attempt["error"]
    assert entry["next_attempt_at"] is not None
    hurry(told.shop)
    second = endpoint.next()
    assert verified(made["secret"], first) == verified(made["secret"], second)
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == entry["delivery_id"]
    (entry,) = wait_log(told, made["webhook_id"], attempted(2))
    assert (entry["status"], entry["attempts"][1]["status_code"]) == ("delivered", 200)
    assert endpoint.received.empty()


def test_a_body_without_end_is_not_read_to_its_end(told: Api, endpoint: Endpoint) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 65536)

    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.behaviours.put(endless)
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert entry["status"] == "delivered"
    assert entry["attempts"][0]["response"] == "x" * 1000


def _short(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with a body that ends before its Content-Length."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"ok")
        hang_up(handler)

    return behave


def _chunk_left_open(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 204 \r\nTransfer-Encoding: chunked\r\n\r\n")
    never(handler)


def _chunked_badly(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 202 \r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")


def _body_left_open(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok")
    never(handler)


@pytest.mark.parametrize("behave", [_short(200), _chunk_left_open, _chunked_badly, _body_left_open])
def test_2xx_counts_whatever_becomes_of_the_body(
    told: Api,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    behave: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    monkeypatch.setattr(webhook_sender, "_TOTAL_S", 0.5)
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.behaviours.put(behave)
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert (entry["status"], entry["attempts"][0]["error"]) == ("delivered", None)


def test_a_refusal_counts_too_whatever_becomes_of_its_body(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.behaviours.put(_short(503, Retry_After="7200"))
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert entry["attempts"][0]["status_code"] == 503
    assert told.shop.value("select not_before > now() + interval '1 hour' from notifications")


# Each is sent to the endpoint on 127.0.0.1, whose port is filled in, and asks for what stands behind it.
_URLS = {
    "https://127.0.0.1:{}/höök": "/h%C3%B6%C3%B6k",
    "https://127.0.0.1:{}/h%C3%B6%C3%B6k": "/h%C3%B6%C3%B6k",
    "https://127.0.0.1:{}/hook?ü=ß": "/hook?%C3%BC=%C3%9F",
    "https://127.0.0.1:{}/日本/😀": "/%E6%97%A5%E6%9C%AC/%F0%9F%98%80",
    "https://127.0.0.1:{}/hook;v=1?x=2": "/hook;v=1?x=2",
    "https://127.0.0.1:{}/a;b;c": "/a;b;c",
    "https://127.0.0.1:{}": "/",
    "https://127.0.0.1:{}?x": "/?x",
    "https://127.0.0.1:{}/hook#frag;ment": "/hook",
    "https://127.0.0.1:{}/{{a}}|b^c`'": "/%7Ba%7D|b^c%60'",
    "https://127.0.0.1:{}/%zz%2F": "/%zz%2F",
    "https://127.0.0.1:{}/a/../b": "/b",
    "HTTPS://127.0.0.1:{}/HOOK": "/HOOK",
    "https://127.1:{}/hook": "/hook",
    "https://ｌｏｃａｌｈｏｓｔ:{}/hook": "/hook",  # noqa: RUF001 - full width, which IDNA maps
    "https://LOCALHOST:{}/hook": "/hook",
    "https://localho%73t:{}/hook": "/hook",
}


@pytest.mark.parametrize("url, path", _URLS.items())
def test_a_url_that_is_accepted_is_sent_to(
    told: Api, endpoint: Endpoint, url: str, path: str
) -> None:
    url = url.format(endpoint.port)
    made = told.post("/v1/webhooks", {"callback_url": url, "events": ["job.cancelled"]}).json()
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    received = endpoint.next()
    assert received.path == path
    assert received.headers["host"] in {f"{h}:{endpoint.port}" for h in ("127.0.0.1", "localhost")}
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert entry["status"] == "delivered", entry
    assert made["callback_url"].isascii()


def test_a_jobs_and_a_tasks_callback_url_is_sent_to_as_it_is_stored(
    told: Api, endpoint: Endpoint
) -> None:
    url = endpoint.url.replace("/hook", "/höök")
    body = {"manifest_url": "s3://a-bucket/m.jsonl", "label_spec": SPEC, "callback_url": url}
    job_id = told.post("/v1/jobs", body).json()["job_id"]
    told.post(f"/v1/jobs/{job_id}/cancel", None)
    assert endpoint.next().path == "/h%C3%B6%C3%B6k"
    task_id = inline(told, callback_url=url)
    stored = endpoint.url.replace("/hook", "/h%C3%B6%C3%B6k")
    assert told.get(f"/v1/jobs/{job_id}").json()["callback_url"] == stored
    assert told.get(f"/v1/tasks/{task_id}").json()["callback_url"] == stored
    (known,) = told.get("/v1/webhooks?all=true").json()["webhooks"]
    assert known["callback_url"] == stored


def test_two_spellings_of_a_url_are_one_endpoint(told: Api, endpoint: Endpoint) -> None:
    register(told, endpoint)
    spelled = endpoint.url.replace("https://", "HTTPS://").replace("/hook", "/./hook#here")
    assert told.post("/v1/webhooks", {"callback_url": spelled}).status_code == 409


@pytest.mark.parametrize("raised", [TypeError("no"), RuntimeError(), KeyError("x"), MemoryError()])
def test_whatever_sending_raises_is_an_attempt_in_the_log(
    told: Api, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    made = register(told, endpoint, events=["job.cancelled"])
    with monkeypatch.context() as patch:
        patch.setattr(webhook_sender, "_place", fail)
        told.shop.do(jobs.cancel, told.shop.submit().job_no)
        (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert entry["attempts"][0]["error"].startswith("The request could not be sent")
    assert entry["next_attempt_at"] is not None
    hurry(told.shop)
    endpoint.next()


def test_a_secret_that_no_key_opens_is_an_attempt_in_the_log(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    told.shop.run("update webhooks set secret = %s", b"\x00" * 60)
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert "could not be made" in entry["attempts"][0]["error"]
    assert endpoint.received.empty()


def test_retry_after_is_honoured(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.behaviours.put(answer(429, Retry_After="7200"))
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    wait_log(told, made["webhook_id"], attempted(1))
    wait_s = "select extract(epoch from {} - now())::float8 from {}"
    assert 7100 < told.shop.value(wait_s.format("not_before", "notifications")) <= 7200
    assert 7100 < told.shop.value(wait_s.format("resumes_at", "webhooks")) <= 7200


def test_410_switches_the_endpoint_off_until_it_is_registered_again(
    told: Api, endpoint: Endpoint
) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.behaviours.put(answer(410))
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    endpoint.next()
    (entry,) = wait_log(told, made["webhook_id"], lambda found: found[0]["status"] == "failed")
    assert entry["attempts"][0]["status_code"] == 410
    (shown,) = told.get("/v1/webhooks").json()["webhooks"]
    assert shown["disabled_at"] is not None
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    assert len(log(told, made["webhook_id"])) == 1
    again = register(told, endpoint, events=["job.cancelled"])
    assert again["webhook_id"] == made["webhook_id"]
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    verified(again["secret"], endpoint.next())


def test_it_is_given_up_after_three_days(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.otherwise = answer(503)
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    wait_log(told, made["webhook_id"], attempted(1))
    told.shop.run("update notifications set expires_at = now() + interval '10 seconds'")
    hurry(told.shop)
    (entry,) = wait_log(told, made["webhook_id"], attempted(2))
    assert (entry["status"], entry["next_attempt_at"]) == ("failed", None)


def test_an_address_that_is_not_public_is_not_connected_to(
    endpoint: Endpoint, api_settings: Settings, shop: Shop
) -> None:
    with TestClient(make_app(msgspec.structs.replace(api_settings, egress_allow=""))) as client:
        api = Api(client, shop)
        made = register(api, endpoint, events=["job.cancelled"])
        shop.do(jobs.cancel, shop.submit().job_no)
        (entry,) = wait_log(api, made["webhook_id"], attempted(1))
    assert "not a public address" in entry["attempts"][0]["error"]
    assert endpoint.received.empty()


def test_a_certificate_that_nobody_vouches_for_is_refused(
    api: Api, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    del monkeypatch  # `api` was made before the certificate was known
    made = register(api, endpoint, events=["job.cancelled"])
    api.shop.do(jobs.cancel, api.shop.submit().job_no)
    (entry,) = wait_log(api, made["webhook_id"], attempted(1))
    assert "certificate" in entry["attempts"][0]["error"].lower()


def test_a_slow_endpoint_holds_up_nobody_else(
    told: Api, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "_TOTAL_S", 2.0)
    register(told, endpoint, events=["job.cancelled"])
    endpoint.otherwise = never
    for _ in range(50):
        told.shop.do(jobs.cancel, told.shop.submit().job_no)
    endpoint.next()
    other = told.new_customer()
    url = endpoint.url.replace("/hook", "/other")
    webhook = told.post("/v1/webhooks", {"callback_url": url}, other).json()
    endpoint.otherwise = OK
    job_id = told.client.post(
        "/v1/jobs",
        json={"manifest_url": "s3://a-bucket/m.jsonl", "label_spec": SPEC},
        headers=other,
    ).json()["job_id"]
    told.post(f"/v1/jobs/{job_id}/cancel", None, other)
    while (received := endpoint.next()).path != "/other":
        pass
    assert verified(webhook["secret"], received)["data"]["job_id"] == job_id


# Replays, and processes that die


def test_a_delivery_is_replayed(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    first = endpoint.next()
    (entry,) = wait_log(told, made["webhook_id"], lambda found: found[0]["status"] == "delivered")
    response = told.post(f"/v1/webhooks/deliveries/{entry['delivery_id']}/replay", None)
    assert (response.status_code, response.json()) == (
        202, {"delivery_id": entry["delivery_id"], "status": "pending"},
    )  # fmt: skip
    second = endpoint.next()
    assert verified(made["secret"], second) == verified(made["secret"], first)
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    wait_log(told, made["webhook_id"], attempted(2))


def test_what_a_dispatcher_held_when_it_died_is_sent_by_another(
    told: Api, endpoint: Endpoint
) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    with told.shop.held() as tx:
        jobs.cancel(tx, told.shop.submit().job_no)
        (due,) = webhook_messages.find_due_endpoints(tx, after=0, looks_max=10)
        (held,) = webhook_messages.claim(tx, {due.webhook_no: 5}, hold_s=600)
    assert endpoint.received.empty()
    hurry(told.shop)  # the time that it was held for is over
    received = endpoint.next()
    assert received.headers["webhook-id"] == held.message_id
    (entry,) = wait_log(told, made["webhook_id"], attempted(1))
    assert entry["attempts"][0]["attempt"] == 2


def test_two_dispatchers_send_each_notification_once(
    told: Api, endpoint: Endpoint, api_settings: Settings
) -> None:
    register(told, endpoint, events=["task.settled"])
    with TestClient(make_app(api_settings)):
        told.shop.processing(make_chunk(60), consensus_threshold=2)
        for _ in range(2):
            told.shop.answer(told.shop.annotator(), "cat")
        found = [endpoint.next().headers["webhook-id"] for _ in range(60)]
    assert len(set(found)) == 60
    assert endpoint.received.empty()


def test_a_label_that_is_taken_back_tells_nobody(told: Api, endpoint: Endpoint) -> None:
    register(told, endpoint, events=["task.settled"])
    told.shop.processing(make_chunk(1), consensus_threshold=2)
    told.shop.answer(told.shop.annotator(), "cat")
    last = told.shop.annotator()
    (task,) = told.shop.claim(last)
    with told.shop.given_up() as tx:
        labelling.submit(tx, last, [labelling.Label(task.task_id, "cat")])
    assert told.shop.value("select count(*) from notifications") == 0


# The routes


def test_an_endpoint_is_registered_listed_and_deleted(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint)
    assert made["secret"].startswith("whsec_")
    assert len(made["events"]) == 5
    (listed,) = told.get("/v1/webhooks").json()["webhooks"]
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    path = f"/v1/webhooks/{made['webhook_id']}"
    assert told.client.delete(path, headers=told.customer).status_code == 204
    assert told.get("/v1/webhooks").json() == {"webhooks": [], "next_cursor": None}
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    assert log(told, made["webhook_id"]) == []


def test_deleting_gives_up_what_waits(told: Api, endpoint: Endpoint) -> None:
    made = register(told, endpoint, events=["job.cancelled"])
    endpoint.otherwise = answer(500)
    told.shop.do(jobs.cancel, told.shop.submit().job_no)
    wait_log(told, made["webhook_id"], attempted(1))
    told.client.delete(f"/v1/webhooks/{made['webhook_id']}", headers=told.customer)
    (entry,) = log(told, made["webhook_id"])
    assert entry["status"] == "failed"


@pytest.mark.parametrize("has_log", [False, True])
def test_a_deleted_endpoint_is_listed_as_long_as_its_log_has_messages(
    api: Api, *, has_log: bool
) -> None:
    other = api.post(
        "/v1/webhooks", {"callback_url": "https://b.invalid/", "events": ["job.failed"]}
    )
    made = api.post("/v1/webhooks", {"callback_url": "https://a.invalid/"}).json()
    if has_log:
        api.shop.do(jobs.cancel, api.shop.submit().job_no)
    assert api.client.delete(f"/v1/webhooks/{made['webhook_id']}", headers=api.customer).is_success
    operator = api.bearer(api.shop.do(customers.add_admin_key, "Olga"))

    def listed() -> list[list[tuple[str, bool]]]:
        pages = [api.get("/v1/webhooks?all=true", headers) for headers in (api.customer, operator)]
        return [
            [(each["webhook_id"], each["registered"]) for each in page.json()["webhooks"]]
            for page in pages
        ]

    registered = [(other.json()["webhook_id"], True)]
    assert listed() == [registered + [(made["webhook_id"], False)] * has_log] * 2
    api.shop.run("delete from notifications")
    assert listed() == [registered] * 2
    # What jobs name later is told, and listed again.
    api.shop.do(jobs.cancel, api.shop.submit(callback_url="https://a.invalid/").job_no)
    assert listed() == [[*registered, (made["webhook_id"], False)]] * 2


def test_an_endpoint_that_wants_no_more_is_listed_without_messages_too(api: Api) -> None:
    api.shop.do(jobs.cancel, api.shop.submit(callback_url="https://a.invalid/").job_no)
    api.shop.run("update webhooks set disabled_at = now()")
    api.shop.run("delete from notifications")
    (listed,) = api.get("/v1/webhooks?all=true").json()["webhooks"]
    assert (listed["registered"], listed["disabled_at"] is None) == (False, False)


def test_a_url_cannot_be_registered_twice(told: Api, endpoint: Endpoint) -> None:
    register(told, endpoint)
    response = told.post("/v1/webhooks", {"callback_url": endpoint.url})
    assert (response.status_code, response.json()["code"]) == (409, "webhook_exists")


@pytest.mark.parametrize(
    "body, field",
    [
        ({"callback_url": "http://a.example/"}, "callback_url"),
        ({"callback_url": "https://scott:tiger@a.example/"}, "callback_url"),
        ({"callback_url": "https://scott@a.example/"}, "callback_url"),
        ({"callback_url": "https://:tiger@a.example/"}, "callback_url"),
        ({"callback_url": f"https://a.example/{'ö' * 500}"}, "callback_url"),
        ({"callback_url": "https://a.example/", "secret": "short"}, "secret"),
        ({"callback_url": "https://a.example/", "secret": "whsec_not base 64!!"}, "secret"),
        ({"callback_url": "https://a.example/", "secret": "sixteen characters"}, "secret"),
        ({"callback_url": "https://a.example/", "events": []}, "events"),
        ({"callback_url": "https://a.example/", "events": ["job.done"]}, "events"),
        ({"callback_url": "https://a.example/", "events": ["job.failed"] * 2}, "events"),
        ({}, "callback_url"),
    ],
)
def test_what_cannot_be_registered_is_refused_by_its_field(
    api: Api, body: dict[str, Any], field: str
) -> None:
    response = api.post("/v1/webhooks", body)
    assert response.status_code == 400
    assert [fault["field"].partition("[")[0] for fault in response.json()["details"]] == [field]


def test_endpoints_and_logs_have_pages(api: Api) -> None:
    for n in range(3):
        api.post(
            "/v1/webhooks", {"callback_url": f"https://a.invalid/{n}", "events": ["job.failed"]}
        )
    first = api.get("/v1/webhooks?limit=2").json()
    second = api.get(f"/v1/webhooks?limit=2&cursor={first['next_cursor']}").json()
    urls = [each["callback_url"][-1] for each in first["webhooks"] + second["webhooks"]]
    assert (urls, second["next_cursor"]) == (["0", "1", "2"], None)
    for _ in range(3):
        api.shop.do(jobs.fail, api.shop.submit().job_no, "x", "X.")
    path = f"/v1/webhooks/{first['webhooks'][0]['webhook_id']}/deliveries"
    newest = api.get(f"{path}?limit=2").json()
    oldest = api.get(f"{path}?limit=2&cursor={newest['next_cursor']}").json()
    ids = [each["delivery_id"] for each in newest["deliveries"] + oldest["deliveries"]]
    assert (len(set(ids)), oldest["next_cursor"]) == (3, None)
    assert api.get(f"{path}?cursor=msg_0").status_code == 400
    assert api.get("/v1/webhooks?cursor=whk_0").status_code == 400


def test_what_belongs_to_others_is_not_there(api: Api) -> None:
    made = api.post("/v1/webhooks", {"callback_url": "https://a.invalid/"}).json()
    api.shop.do(jobs.cancel, api.shop.submit().job_no)
    path = f"/v1/webhooks/{made['webhook_id']}"
    (entry,) = api.get(f"{path}/deliveries").json()["deliveries"]
    other = api.new_customer()
    answers = [
        api.get(f"{path}/deliveries", other),
        api.post(f"{path}/rotate", {}, other),
        api.client.delete(path, headers=other),
        api.post(f"/v1/webhooks/deliveries/{entry['delivery_id']}/replay", None, other),
    ]
    assert [response.status_code for response in answers] == [404] * 4
    assert api.get("/v1/webhooks", other).json()["webhooks"] == []


def test_what_is_signed_by_the_default_secret_has_none_to_rotate(
    told: Api, endpoint: Endpoint
) -> None:
    told.shop.do(jobs.cancel, told.shop.submit(callback_url=endpoint.url).job_no)
    endpoint.next()
    (named,) = told.get("/v1/webhooks?all=true").json()["webhooks"]
    response = told.post(f"/v1/webhooks/{named['webhook_id']}/rotate", {})
    assert (response.status_code, response.json()["code"]) == (409, "webhook_not_registered")


# What operators see


def test_attempts_are_counted_and_what_a_dead_endpoint_holds_up_is_no_lag(
    told: Api, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.probes._KEPT_S", -1.0)
    endpoint.behaviours.put(answer(500))
    webhook_id = register(told, endpoint, events=["job.completed"])["webhook_id"]
    complete(told.shop)
    wait_log(told, webhook_id, attempted(1))
    told.shop.run("update notifications set not_before = now() - interval '1 hour'")
    told.shop.run("update webhooks set resumes_at = 'infinity'")
    waiting = told.client.get("/metrics").text
    assert 'refinery_queue_depth{queue="webhooks"} 1.0' in waiting
    assert 'refinery_queue_oldest_seconds{queue="webhooks"} 0.0' in waiting
    hurry(told.shop)
    wait_log(told, webhook_id, attempted(2))
    sent = told.client.get("/metrics").text
    assert 'refinery_queue_depth{queue="webhooks"} 0.0' in sent
    assert 'refinery_webhook_attempts_total{outcome="refused"} 1.0' in sent
    assert 'refinery_webhook_attempts_total{outcome="delivered"} 1.0' in sent
    assert "refinery_webhook_lag_seconds_count 1.0" in sent
