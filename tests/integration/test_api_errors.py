"""What every route has in common: keys, errors, health, the published reference."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgspec
import psycopg
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from litestar.testing import TestClient
from psycopg import sql

from api.auth import KeyRing
from blocks.domain.ids import new_id
from blocks.domain.wrong_values import HINTS_MAX
from blocks.settings import Settings
from blocks.store import customers
from blocks.store.audit import Action
from blocks.store.database import Database
from deployments.registered import REPOSITORY
from tests.support.api_world import JOB_BODY, Api, make_app
from tests.support.servers import DatabaseServer
from tests.support.side import wait_until
from tests.support.store_shop import Shop, make_chunk

pytestmark = [
    pytest.mark.integration,
    # The first test is about them.
]

ROUTES = [
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/job_x"),
    ("GET", "/v1/jobs/job_x/export"),
    ("GET", "/v1/jobs/job_x/errors"),
    ("GET", "/v1/jobs/job_x/quality"),
    ("GET", "/v1/jobs/job_x/quality/changes"),
    ("POST", "/v1/tasks"),
    ("POST", "/v1/tasks/batch"),
    ("GET", "/v1/tasks/tsk_x"),
    ("GET", "/v1/tasks/tsk_x/result"),
    ("GET", "/v1/jobs/job_x/instructions"),
    ("GET", "/v1/annotation/jobs/job_x"),
    ("GET", "/v1/annotation/me"),
    ("GET", "/v1/annotation/me/jobs"),
    ("GET", "/v1/annotation/me/labels"),
    ("GET", "/v1/annotation/me/labels/tsk_x"),
    ("POST", "/v1/annotation/renew"),
    ("GET", "/v1/annotation/reviews"),
    ("POST", "/v1/annotation/reviews"),
    ("POST", "/v1/annotation/claim"),
    ("GET", "/v1/annotation/leases"),
    ("POST", "/v1/annotation/labels"),
    ("POST", "/v1/annotation/release"),
]
ROUTES_WITH_BODY = [path for method, path in ROUTES if method == "POST"]


def test_the_application_is_made_without_a_warning() -> None:
    code = (
        "from api.app import create_app; from blocks.settings import Settings; "
        "create_app(Settings(database_url='', encryption_key='ab' * 32))"
    )
    arguments = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Keys


def test_without_a_good_key_every_route_answers_the_same(api: Api) -> None:
    revoked = api.shop.do(customers.add_customer_key, api.shop.customer_id)
    assert api.shop.do(customers.revoke_key, revoked)
    good = api.customer["Authorization"].removeprefix("Bearer ")
    headers: list[dict[str, Any]] = [
        {},
        {"Authorization": b"Bearer \xff\xfe"},
        *(
            {"Authorization": value}
            for value in (
                "", "Bearer", "Bearer ", good, f"Basic {good}", f"Bearer {good}x",
                f"Bearer {good[:-1]}", f"Bearer {revoked}",
                f"Bearer {'x' * 10_000}", f"Bearer {good} {good}",
            )
        ),
    ]  # fmt: skip
    answers = [
        api.client.request(method, path, headers=each)
        for each in headers
        for method, path in ROUTES
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.content for answer in answers} == {
        b'{"error":"invalid API key","code":"invalid_api_key"}'
    }
    assert all(
        answer.headers.get("www-authenticate", "").startswith("Bearer") for answer in answers
    )


def test_the_scheme_is_not_case_sensitive(api: Api) -> None:
    headers = {"Authorization": api.customer["Authorization"].replace("Bearer", "bearer")}
    assert api.client.get("/v1/jobs/job_x", headers=headers).status_code == 404


def test_a_revoked_key_is_refused_a_moment_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("api.auth.monotonic", lambda: now)
    key = api.shop.do(customers.add_customer_key, api.shop.customer_id)
    assert api.get("/v1/jobs/job_x", api.bearer(key)).status_code == 404
    api.shop.do(customers.revoke_key, key)
    monkeypatch.setattr("api.auth.monotonic", lambda: now + 1.01)
    assert api.get("/v1/jobs/job_x", api.bearer(key)).status_code == 401


def test_a_new_key_is_taken_at_once(api: Api) -> None:
    key = "ak_" + "x" * 43
    assert api.get("/v1/jobs/job_x", api.bearer(key)).status_code == 401
    api.shop.run(
        "insert into api_keys (key_hash, customer_id) values (sha256(%s), %s)",
        key.encode(),
        api.shop.customer_id,
    )
    assert api.get("/v1/jobs/job_x", api.bearer(key)).status_code == 404


def test_no_more_keys_are_remembered_than_is_good(
    database: Database, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth._FOUND_KEYS_MAX", 3)
    keys = [shop.do(customers.add_customer_key, shop.customer_id) for _ in range(5)]
    ring = KeyRing(database)
    for key in keys[:3]:
        assert ring.find(key)
    assert ring.recall(keys[0])  # so it is not the one that came longest ago
    for key in keys[3:]:
        assert ring.find(key)
    assert [ring.is_familiar(key) for key in keys] == [True, False, False, True, True]
    assert [bool(ring.recall(key)) for key in keys] == [True, False, False, True, True]


def test_a_key_that_was_good_stays_familiar_until_it_is_looked_up_in_vain(
    database: Database, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("api.auth.monotonic", lambda: now)
    key = shop.do(customers.add_customer_key, shop.customer_id)
    ring = KeyRing(database)
    assert not ring.is_familiar(key)
    assert ring.find(key)
    monkeypatch.setattr("api.auth.monotonic", lambda: now + 1.01)
    assert (ring.recall(key), ring.is_familiar(key)) == (None, True)
    shop.do(customers.revoke_key, key)
    assert ring.find(key) is None
    assert not ring.is_familiar(key)


def test_keys_are_stored_as_hashes_only(api: Api) -> None:
    key = api.customer["Authorization"].removeprefix("Bearer ")
    for row in api.shop.run("select * from api_keys"):
        assert key.encode() not in row["key_hash"]
        assert len(row["key_hash"]) == 32
    assert key not in str(api.shop.run("select * from customers"))


# Requests that are not as they should be


def test_a_body_of_another_type_is_refused(api: Api) -> None:
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/xml",
        "",
    ):
        for path in ROUTES_WITH_BODY:
            headers = {
                **(api.annotator if "annotation" in path else api.customer),
                "Content-Type": content_type,
            }
            response = api.client.post(path, content=b"{}", headers=headers)
            assert response.status_code == 415, (path, content_type)
            assert response.json()["code"] == "unsupported_media_type"


def test_json_with_a_charset_is_json(api: Api) -> None:
    headers = {**api.customer, "Content-Type": "Application/JSON; charset=utf-8"}
    assert (
        api.client.post("/v1/jobs", content=json.dumps(JOB_BODY), headers=headers).status_code
        == 202
    )


NOT_JSON = [
    b"{", b"{'a':1}", b"{} {}", b"\xff", b'{"a":NaN}', b"[" * 100_000, b'{"a":"\xed\xa0\x80"}', b" ",
    b'{"a":\x00}',
]  # fmt: skip


def test_what_is_not_json_is_refused(api: Api) -> None:
    for path in ROUTES_WITH_BODY:
        for body in NOT_JSON:
            headers = {
                **(api.annotator if "annotation" in path else api.customer),
                "Content-Type": "application/json",
            }
            response = api.client.post(path, content=body, headers=headers)
            assert response.status_code == 400, body[:20]
            assert response.json()["code"] == "invalid_json", body[:20]


def test_a_request_without_a_body_is_told_so(api: Api) -> None:
    for path in ROUTES_WITH_BODY:
        headers = {
            **(api.annotator if "annotation" in path else api.customer),
            "Content-Type": "application/json",
        }
        response = api.client.post(path, headers=headers)
        assert response.status_code == 400
        assert set(response.json()) <= {"error", "code", "details"}
        assert "body" in response.text


@pytest.fixture
def small_bodies(api_settings: Settings, shop: Shop) -> Iterator[Api]:
    settings = msgspec.structs.replace(api_settings, request_bytes_max=1000)
    with TestClient(make_app(settings)) as client:
        yield Api(client, shop)


def test_a_body_may_be_as_large_as_the_settings_say_and_no_larger(small_bodies: Api) -> None:
    body = json.dumps(JOB_BODY).encode()
    headers = {**small_bodies.customer, "Content-Type": "application/json"}

    def post(content: Any) -> tuple[int, str]:
        response = small_bodies.client.post("/v1/jobs", content=content, headers=headers)
        return response.status_code, response.json().get("code", "")

    def pieces(size: int) -> Iterator[bytes]:
        yield body
        for _ in range(size - len(body)):
            yield b" "

    assert post(body.ljust(1000)) == (202, "")
    assert post(body.ljust(1001)) == (413, "body_too_large")
    assert post(pieces(1000)) == (202, "")
    assert post(pieces(1001)) == (413, "body_too_large")


def test_a_parameter_that_is_not_known_is_refused_by_its_name(api: Api) -> None:
    job = api.shop.processing(make_chunk(0, bad=1))
    # Also those that are names of what a handler is given, and not of what may be asked for.
    for name in (
        "limt",
        "database",
        "job_id",
        "request",
        "state",
        "idempotency_key",
        "data",
        "vault",
    ):
        for path in ("", "/export", "/errors"):
            response = api.get(f"/v1/jobs/{job.job_id}{path}?{name}=1")
            assert response.status_code == 400, (path, name)
            assert response.json()["details"][0]["field"] == name
        for path in ROUTES_WITH_BODY:
            headers = api.annotator if "annotation" in path else api.customer
            response = api.post(f"{path}?{name}=1", JOB_BODY, headers)
            assert response.status_code == 400, (path, name)
            assert [fault["field"] for fault in response.json()["details"]] == [name], (path, name)


def test_every_parameter_that_is_not_known_is_told(api: Api) -> None:
    response = api.get("/v1/jobs/job_x?b=1&a=2&a=3")
    assert [fault["field"] for fault in response.json()["details"]] == ["a", "b"]


@pytest.mark.parametrize(
    "path, fields",
    [
        ("/v1/jobs?status=failed&status=failed", ["status"]),
        ("/v1/jobs/job_x/quality?method=one_coin&method=dawid_skene", ["method"]),
        ("/v1/jobs?limit=1&cursor=a&limit=2&cursor=b", ["cursor", "limit"]),
    ],
)
def test_a_repeated_parameter_is_told(api: Api, path: str, fields: list[str]) -> None:
    response = api.get(path)
    assert response.status_code == 400
    assert [fault["field"] for fault in response.json()["details"]] == fields
    assert response.json()["details"][0]["message"] == "This parameter is there more than once."


@pytest.mark.parametrize(
    "body, fault",
    [
        ('{"limit": 2, "limit": 1}', None),
        ('{"limit": 0, "limit": 1}', "limit"),
        ('{"limit": "a", "limit": 1}', "limit"),
        ('{"limit": 1, "limit": 0}', "limit"),
        ('{"limit": 1, "task_types": 5, "task_types": null}', "task_types"),
    ],
)
def test_of_a_repeated_key_in_a_body_the_last_value_counts_and_all_are_looked_at(
    api: Api, body: str, fault: str | None
) -> None:
    headers = {"Content-Type": "application/json"} | api.annotator
    answer = api.client.post("/v1/annotation/claim", content=body.encode(), headers=headers)
    assert answer.status_code == (400 if fault else 200)
    assert [each["field"] for each in answer.json().get("details", [])] == (
        [fault] if fault else []
    )


def test_a_parameter_that_is_mistyped_is_told_with_the_one_that_was_meant(api: Api) -> None:
    (fault,) = api.get("/v1/jobs?statsu=failed").json()["details"]
    assert fault["message"] == "This parameter is not known. Did you mean status?"
    many = api.get("/v1/jobs?" + "&".join(f"statsu{n}=1" for n in range(50))).json()["details"]
    assert sum("Did you mean" in fault["message"] for fault in many) == HINTS_MAX


def test_a_page_that_is_not_there_has_an_error_of_ours(api: Api) -> None:
    for path in ("/v1", "/v1/jobs/x/y", "/v2/jobs", "/nothing"):
        response = api.get(path)
        assert response.status_code == 404
        assert response.json() == {"error": "There is no such page.", "code": "not_found"}


def test_a_method_that_is_not_there_is_told_with_those_that_are(api: Api) -> None:
    for path, method, allowed in (
        ("/v1/jobs", "DELETE", "POST"),
        ("/v1/jobs", "TRACE", "POST"),
        ("/v1/jobs/job_x", "PUT", "GET"),
        ("/v1/annotation/claim", "GET", "POST"),
        ("/health/live", "POST", "GET"),
    ):
        response = api.client.request(method, path, headers=api.customer)
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
        assert allowed in response.headers["allow"]


def test_an_unexpected_error_shows_nothing_of_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("canary-inside")

    monkeypatch.setattr("blocks.store.jobs.get", fail)
    response = api.get(f"/v1/jobs/{new_id('job')}")
    assert response.status_code == 500
    assert set(response.json()) == {"error", "code"}
    assert response.json()["code"] == "internal"
    assert "canary" not in response.text
    assert "canary-inside" in caplog.text


# Health


def test_a_service_that_answers_is_live_without_a_key(api: Api) -> None:
    response = api.client.get("/health/live")
    found = {"status": "live", "version": version("refinery-jobs")}
    assert (response.status_code, response.json()) == (200, found)


def test_without_prefect_the_service_says_so_and_is_ready(api: Api) -> None:
    response = api.client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "database": "ok", "prefect": "unreachable"}
    assert api.submit().status_code == 202


class Outage:
    """Takes one database away, and brings it back."""

    def __init__(self, server: DatabaseServer, url: str) -> None:
        self._admin = server.postgres.url("postgres")
        self._name = url.rpartition("/")[2]

    def begin(self) -> None:
        self._allow("false")
        self._run(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = {}", sql.Literal
        )

    def end(self) -> None:
        self._allow("true")

    def _allow(self, value: str) -> None:
        self._run(f"alter database {{}} allow_connections {value}", sql.Identifier)

    def _run(self, statement: str, quote: type[Any]) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(quote(self._name)))


@pytest.fixture
def outage(database_server: DatabaseServer, database_url: str) -> Iterator[Outage]:
    found = Outage(database_server, database_url)
    yield found
    found.end()


@pytest.fixture
def impatient(api_settings: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An application that waits for a connection for a fifth of the usual time."""
    monkeypatch.setattr("blocks.store.database._WAIT_FOR_CONNECTION_S", 1.0)
    with TestClient(make_app(api_settings)) as client:
        api = Api(client, shop)
        # A connection may take longer to make than that.
        wait_until(lambda: api.get("/v1/jobs").status_code == 200)
        yield api


def test_without_its_database_the_service_says_when_to_come_again(
    impatient: Api, outage: Outage
) -> None:
    job_id = impatient.submit().json()["job_id"]
    outage.begin()
    for response in (
        impatient.get(f"/v1/jobs/{job_id}"),
        impatient.submit(),
        impatient.post("/v1/annotation/claim", {"limit": 1}, impatient.annotator),
    ):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert set(response.json()) == {"error", "code"}
        assert response.json()["code"] == "unavailable"
        assert "127.0.0.1" not in response.text
    assert impatient.client.get("/health/live").status_code == 200
    ready = impatient.client.get("/health/ready")
    assert (ready.status_code, ready.json()["database"]) == (503, "unreachable")


def wait_for_answer(api: Api, path: str, within_s: float) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + within_s
    while api.get(path).status_code != 200:
        assert time.monotonic() < deadline, f"it does not answer within {within_s} s"
        pause.wait(0.1)


def test_when_its_database_is_back_the_service_is_too(impatient: Api, outage: Outage) -> None:
    path = impatient.submit().headers["location"]
    outage.begin()
    assert [impatient.get(path).status_code for _ in range(3)] == [503] * 3
    outage.end()
    wait_for_answer(impatient, path, 5)


def test_after_a_long_outage_the_service_is_back_as_soon_as_after_a_short_one(
    impatient: Api, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What psycopg's pool waits after six failures: twice as long each time, up to five minutes.
    monkeypatch.setattr("psycopg_pool.base.AttemptWithBackoff.INITIAL_DELAY", 60.0)
    path = impatient.submit().headers["location"]
    outage.begin()
    assert [impatient.get(path).status_code for _ in range(3)] == [503] * 3
    outage.end()
    wait_for_answer(impatient, path, 8)


# The published reference


@pytest.fixture
def schema(api: Api) -> dict[str, Any]:
    response = api.client.get("/schema/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def operations(schema: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }


def resolve(schema: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in found:
        name = found["$ref"].removeprefix("#/components/schemas/")
        found = schema["components"]["schemas"][name]
    return found


def test_every_route_is_in_the_reference_by_a_name_of_its_own(schema: dict[str, Any]) -> None:
    found = operations(schema)
    assert set(found) == {
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/events"),
        ("POST", "/v1/jobs/preview"),
        ("GET", "/v1/jobs/{job_id}/timeline"),
        ("GET", "/v1/jobs/{job_id}/delivery/objects"),
        ("GET", "/v1/jobs/{job_id}"),
        ("POST", "/v1/jobs/{job_id}/cancel"),
        ("POST", "/v1/jobs/{job_id}/annotators/{annotator_id}/exclude"),
        ("GET", "/v1/jobs/{job_id}/history"),
        ("POST", "/v1/jobs/{job_id}/deliver"),
        ("DELETE", "/v1/jobs/{job_id}/credentials"),
        ("DELETE", "/v1/jobs/{job_id}"),
        ("GET", "/v1/jobs/{job_id}/export"),
        ("GET", "/v1/jobs/{job_id}/errors"),
        ("GET", "/v1/jobs/{job_id}/quality"),
        ("GET", "/v1/jobs/{job_id}/quality/changes"),
        ("GET", "/v1/jobs/{job_id}/disagreements"),
        ("POST", "/v1/tasks"),
        ("POST", "/v1/tasks/batch"),
        ("GET", "/v1/tasks/{task_id}"),
        ("GET", "/v1/tasks/{task_id}/result"),
        ("GET", "/v1/jobs/{job_id}/instructions"),
        ("GET", "/v1/annotation/jobs/{job_id}"),
        ("GET", "/v1/annotation/me"),
        ("GET", "/v1/annotation/me/jobs"),
        ("GET", "/v1/annotation/me/labels"),
        ("GET", "/v1/annotation/me/labels/{task_id}"),
        ("POST", "/v1/annotation/renew"),
        ("GET", "/v1/annotation/reviews"),
        ("POST", "/v1/annotation/reviews"),
        ("POST", "/v1/annotation/claim"),
        ("GET", "/v1/annotation/leases"),
        ("POST", "/v1/annotation/labels"),
        ("POST", "/v1/annotation/release"),
        ("POST", "/v1/webhooks"),
        ("GET", "/v1/webhooks"),
        ("DELETE", "/v1/webhooks/{webhook_id}"),
        ("POST", "/v1/webhooks/{webhook_id}/rotate"),
        ("POST", "/v1/webhooks/default-secret/rotate"),
        ("GET", "/v1/webhooks/{webhook_id}/deliveries"),
        ("POST", "/v1/webhooks/deliveries/{delivery_id}/replay"),
        ("GET", "/v1/audit"),
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("DELETE", "/v1/keys/{key_id}"),
        ("POST", "/v1/keys/{key_id}/sign-in-link"),
        ("GET", "/v1/customers"),
        ("GET", "/v1/operations"),
        ("POST", "/v1/operations/jobs/{job_id}/retry"),
        ("PATCH", "/v1/operations/jobs/{job_id}"),
        ("POST", "/v1/operations/jobs/{job_id}/pause"),
        ("POST", "/v1/operations/jobs/{job_id}/resume"),
        ("GET", "/v1/operations/customers/{customer_id}"),
        ("PATCH", "/v1/operations/customers/{customer_id}"),
        ("POST", "/v1/operations/customers/{customer_id}/pause"),
        ("POST", "/v1/operations/customers/{customer_id}/resume"),
        ("GET", "/v1/operations/customers"),
        ("GET", "/v1/operations/streams"),
        ("GET", "/v1/operations/runs"),
        ("POST", "/v1/session"),
        ("GET", "/v1/session"),
        ("DELETE", "/v1/session"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
    }
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
    assert all(
        operation.get("description") or operation.get("summary") for operation in found.values()
    )


def test_the_schemas_of_the_reference_are_json_schemas_without_loose_ends(
    schema: dict[str, Any],
) -> None:
    assert schema["openapi"].startswith("3.1")
    for found in schema["components"]["schemas"].values():
        Draft202012Validator.check_schema(found)
    references = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema)))
    known = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert references <= known


def test_keys_are_asked_for_by_every_route_but_those_of_operations(schema: dict[str, Any]) -> None:
    assert schema["components"]["securitySchemes"]["apiKey"] == {"type": "http", "scheme": "bearer"}
    for (_, path), operation in operations(schema).items():
        wanted = operation.get("security", schema.get("security"))
        is_closed = path.startswith("/v1") and operation["operationId"] != "sign_in"
        assert wanted in ([[{"apiKey": []}, {"session": []}]] if is_closed else [[], [{}]]), path


STATUSES = {
    "create_job": {"202", "400", "401", "403", "409", "413", "415", "422"},
    "list_jobs": {"200", "400", "401", "403"},
    "preview_job": {"200", "400", "401", "403", "413", "415", "422"},
    "get_job_timeline": {"200", "401", "403", "404"},
    "list_delivered_objects": {"200", "400", "401", "403", "404"},
    "follow_jobs": {"200", "400", "401", "403"},
    "get_job": {"200", "304", "401", "403", "404"},
    "get_job_instructions": {"200", "401", "403", "404"},
    "deliver_job": {"202", "400", "401", "403", "404", "409", "413", "415"},
    "wipe_job_credentials": {"204", "401", "403", "404"},
    "delete_job": {"204", "401", "403", "404", "409"},
    "cancel_job": {"202", "401", "403", "404", "409"},
    "exclude_annotator": {"202", "401", "403", "404", "409"},
    "get_job_history": {"200", "401", "403", "404"},
    "export_job": {"200", "400", "401", "403", "404", "409"},
    "list_bad_lines": {"200", "401", "403", "404"},
    "get_job_quality": {"200", "400", "401", "403", "404", "422"},
    "list_disagreements": {"200", "400", "401", "403", "404"},
    "list_label_changes": {"200", "400", "401", "403", "404", "422"},
    "create_task": {"200", "202", "400", "401", "403", "409", "413", "415"},
    "create_tasks": {"202", "400", "401", "403", "409", "413", "415"},
    "get_task": {"200", "401", "403", "404"},
    "get_task_result": {"200", "202", "401", "403", "404"},
    "release_tasks": {"200", "400", "401", "403", "413", "415"},
    "claim_tasks": {"200", "400", "401", "403", "404", "409", "413", "415"},
    "list_leases": {"200", "400", "401", "403"},
    "list_review_queues": {"200", "400", "401", "403"},
    "submit_reviews": {"200", "400", "401", "403", "413", "415"},
    "renew_leases": {"200", "400", "401", "403", "413", "415"},
    "get_me": {"200", "401", "403"},
    "list_own_labels": {"200", "400", "401", "403"},
    "get_own_label": {"200", "401", "403", "404"},
    "list_open_jobs": {"200", "400", "401", "403"},
    "get_job_to_label": {"200", "401", "403", "404"},
    "submit_labels": {"200", "400", "401", "403", "413", "415"},
    "create_webhook": {"201", "400", "401", "403", "409", "413", "415"},
    "list_webhooks": {"200", "400", "401", "403"},
    "delete_webhook": {"204", "401", "403", "404"},
    "rotate_webhook_secret": {"200", "400", "401", "403", "404", "409", "413", "415"},
    "rotate_default_secret": {"200", "400", "401", "403", "413", "415"},
    "list_webhook_deliveries": {"200", "400", "401", "403", "404"},
    "replay_webhook_delivery": {"202", "401", "403", "404"},
    "list_audit_log": {"200", "400", "401", "403"},
    "list_keys": {"200", "400", "401", "403"},
    "create_key": {"201", "400", "401", "403", "404", "409", "413", "415", "429"},
    "revoke_key": {"200", "400", "401", "403", "404", "409"},
    "create_sign_in_link": {"201", "401", "403", "404", "409"},
    "get_operations": {"200", "401", "403"},
    "list_customer_loads": {"200", "400", "401", "403"},
    "list_stream_loads": {"200", "400", "401", "403"},
    "list_runs": {"200", "400", "401", "403"},
    "retry_job": {"202", "401", "403", "404", "409"},
    "change_job": {"200", "400", "401", "403", "404", "409", "413", "415"},
    "pause_job": {"200", "401", "403", "404", "409"},
    "resume_job": {"200", "401", "403", "404"},
    "get_customer": {"200", "401", "403", "404"},
    "change_customer": {"200", "400", "401", "403", "404", "413", "415"},
    "pause_customer": {"200", "401", "403", "404"},
    "resume_customer": {"200", "401", "403", "404"},
    "list_customers": {"200", "401", "403"},
    "sign_in": {"200", "400", "401", "403", "413", "415", "429"},
    "get_session": {"200", "400", "401", "403"},
    "sign_out": {"204", "401", "403"},
    "health_live": {"200"},
    "health_ready": {"200", "503"},
    "metrics": {"200"},
}


def test_every_status_that_a_route_answers_with_is_in_the_reference(schema: dict[str, Any]) -> None:
    missing = {
        operation["operationId"]: STATUSES[operation["operationId"]] - set(operation["responses"])
        for operation in operations(schema).values()
    }
    assert {name: statuses for name, statuses in missing.items() if statuses} == {}


def test_errors_are_in_the_reference_as_they_are(schema: dict[str, Any]) -> None:
    for operation in operations(schema).values():
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                (content,) = response["content"].values()
                fields = set(resolve(schema, content["schema"])["properties"])
                assert fields == {"error", "code", "details"}, operation["operationId"]


def test_what_a_route_takes_is_in_the_reference_as_it_is(schema: dict[str, Any]) -> None:
    create = operations(schema)["POST", "/v1/jobs"]
    body = resolve(schema, create["requestBody"]["content"]["application/json"]["schema"])
    assert set(body["required"]) == {"manifest_url", "label_spec"}
    threshold = body["properties"]["consensus_threshold"]
    assert (threshold["minimum"], threshold["maximum"], threshold["default"]) == (1, 10, 3)
    (header,) = [each for each in create["parameters"] if each["in"] == "header"]
    assert (header["name"], header["in"], header.get("required", False)) == (
        "Idempotency-Key", "header", False,
    )  # fmt: skip
    export = operations(schema)["GET", "/v1/jobs/{job_id}/export"]
    assert {(p["name"], p["in"]) for p in export["parameters"]} == {
        ("job_id", "path"),
        ("after", "query"),
    }
    assert list(export["responses"]["200"]["content"]) == ["application/x-ndjson"]


def test_answers_are_as_the_reference_says(api: Api, schema: dict[str, Any]) -> None:
    api.shop.processing(make_chunk(2))
    created = api.submit(JOB_BODY | {"metadata": {"a": "b"}})
    answers = [
        ("POST", "/v1/jobs", created),
        ("GET", "/v1/jobs/{job_id}", api.get(created.headers["location"])),
        (
            "POST",
            "/v1/annotation/claim",
            api.post("/v1/annotation/claim", {"limit": 2}, api.annotator),
        ),
        (
            "POST",
            "/v1/annotation/labels",
            api.post(
                "/v1/annotation/labels", {"labels": [{"task_id": "x", "label": "y"}]}, api.annotator
            ),
        ),
        ("GET", "/health/live", api.client.get("/health/live")),
    ]
    for method, path, answer in answers:
        response = operations(schema)[method, path]["responses"][str(answer.status_code)]
        expected = response["content"]["application/json"]["schema"]
        whole = {**expected, "components": schema["components"]}
        errors = [error.message for error in Draft202012Validator(whole).iter_errors(answer.json())]
        assert errors == [], path


def test_the_page_of_the_reference_loads_nothing_from_elsewhere(api: Api) -> None:
    response = api.client.get("/schema")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', response.text.partition("SwaggerUIBundle(")[0])
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("/")
        assert not address.startswith("//")
        asset = api.client.get(address)
        assert asset.status_code == 200
        assert asset.content
    style = next(address for address in loaded if address.endswith(".css"))
    assert not re.search(r"url\(['\"]?https?:|@import", api.client.get(style).text)


def test_assets_are_those_of_the_page_and_nothing_else(api: Api) -> None:
    for path in ("../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "nothing.js"):
        assert api.client.get(f"/schema/assets/{path}").status_code == 404


def test_the_page_of_the_reference_runs_no_script_but_its_own_and_keeps_no_key(api: Api) -> None:
    response = api.client.get("/schema")
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = response.headers["content-security-policy"].split("; ")
    assert f"script-src 'self' 'sha256-{digest}'" in policy
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "persistAuthorization" not in script
    assert not re.search(r"\son\w+=|javascript:", response.text)


def test_every_answer_tells_a_browser_to_do_nothing_with_it(api: Api) -> None:
    answers = [
        api.client.get(path, headers=headers)
        for path in ("/schema", "/schema/openapi.json", "/health/live", "/metrics", "/v1/jobs", "/no",
                     "/schema/assets/swagger-ui.css", "/schema/assets/no", "/v1/jobs/x/export")
        for headers in ({}, api.customer, api.annotator)
    ]  # fmt: skip
    answers += [api.post("/v1/jobs", {}), api.client.request("PUT", "/v1/jobs")]
    for answer in answers:
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


# Characters that PostgreSQL cannot keep, and numbers that it cannot count with


def with_nul(path: str) -> list[str]:
    """The path with U+0000 as, at the start of, in and at the end of each of its ids."""
    ids = ("%00", "%00x", "job_x%00x", "x%00")
    return [re.sub(r"\{\w+\}", each, path) for each in ids]


def key_for(api: Api, path: str) -> dict[str, str]:
    """The headers of somebody whose key a route takes."""
    if path.startswith("/v1/operations"):
        return api.bearer(api.shop.do(customers.add_admin_key, "Ona"))
    return api.annotator if "annotation" in path else api.customer


def test_an_id_with_u0000_is_none_that_there_is(api: Api, schema: dict[str, Any]) -> None:
    found = [(m, p) for m, p in operations(schema) if "{" in p]
    assert len(found) >= 10
    for method, path in found:
        for url in with_nul(path):
            headers = {**key_for(api, path), "Content-Type": "application/json"}
            answer = api.client.request(method, url, headers=headers, content=b"{}")
            assert answer.status_code == 404, (method, url)
            assert answer.json()["code"].endswith("_not_found"), (method, url)


def test_a_parameter_with_u0000_or_a_number_out_of_range_is_refused(
    api: Api, schema: dict[str, Any]
) -> None:
    job_id = api.shop.processing(make_chunk(1)).job_id
    api.shop.run("update jobs set status = 'completed' where job_id = %s", job_id)
    tried = 0
    for (method, path), operation in operations(schema).items():
        headers = {**key_for(api, path), "Content-Type": "application/json"}
        url = re.sub(r"\{job_id\}", job_id, path)
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query" or "{" in url:
                continue
            is_any_text = parameter["name"] in {"search", "stream", "actor", "target"}
            numbers = () if is_any_text else (str(2**63), str(2**70), str(-(2**63)))
            for value in ("%00", "x%00y", *numbers):
                asked = f"{url}?{parameter['name']}={value}"
                answer = api.client.request(method, asked, headers=headers, content=b"{}")
                tried += 1
                assert answer.status_code == 400, (method, asked)
    assert tried > 10


def test_no_parameter_of_the_reference_filters_unless_it_is_set(schema: dict[str, Any]) -> None:
    status = resolve(schema, schema["components"]["schemas"]["JobStatus"])
    assert "default" not in status
    assert "JOB_ARROWS" not in json.dumps(schema)


WRONG_PARAMETERS = [
    ("/v1/jobs?search=", "search", "This must be a string of 1 to 200 characters, not ''."),
    ("/v1/jobs?stream=", "stream", "This must be a string of 1 to 200 characters, not ''."),
    ("/v1/jobs?status=done", "status",
     "This must be one of accepted, processing, completed, failed, cancelled, not 'done'."),
    ("/v1/jobs?status=null", "status",
     "This must be one of accepted, processing, completed, failed, cancelled, not 'null'."),
    ("/v1/audit?since=NULL", "since", "This must be a date and a time, such as 2026-10-15T09:30:00Z, not 'NULL'."),
    ("/v1/audit?until=0.5", "until", "This must be a date and a time, such as 2026-10-15T09:30:00Z, not '0.5'."),
    ("/v1/jobs?limit=0", "limit", "This must be a whole number from 1 to 100, not '0'."),
    ("/v1/jobs?limit=many", "limit", "This must be a whole number from 1 to 100, not 'many'."),
    ("/v1/webhooks?all=maybe", "all", "This must be true or false, not 'maybe'."),
    ("/v1/webhooks?limit=1e9", "limit", "This must be a whole number from 1 to 100, not '1e9'."),
    ("/v1/jobs/job_x?wait=61", "wait", "This must be a whole number from 0 to 60, not '61'."),
    ("/v1/jobs/job_x/errors?format=csv", "format", "This must be one of jsonl, manifest, not 'csv'."),
    ("/v1/jobs/job_x/quality?method=glad", "method", "This must be one of one_coin, dawid_skene, not 'glad'."),
    ("/v1/jobs/job_x/quality/changes?method=", "method", "This must be one of one_coin, dawid_skene, not ''."),
    ("/v1/jobs/job_x/export?after=-1", "after",
     "This must be a whole number from 0 to 9,007,199,254,740,991, not '-1'."),
    ("/v1/audit?actor=", "actor", "This must be a string of 1 to 200 characters, not ''."),
    ("/v1/audit?target=", "target", "This must be a string of 1 to 200 characters, not ''."),
    ("/v1/audit?action=done", "action", f"This must be one of {', '.join(Action)}, not 'done'."),
    ("/v1/annotation/leases?limit=501", "limit", "This must be a whole number from 1 to 500, not '501'."),
]  # fmt: skip


def test_a_wrong_parameter_is_answered_with_what_it_may_be(
    api: Api, schema: dict[str, Any]
) -> None:
    for url, name, message in WRONG_PARAMETERS:
        answer = api.get(url, api.annotator if "annotation" in url else api.customer)
        assert answer.status_code == 400, url
        assert answer.json() == {
            "error": f"{name}: {message}",
            "code": "invalid_request",
            "details": [{"field": name, "message": message}],
        }
    tried = {url.rpartition("?")[2].partition("=")[0] for url, *_ in WRONG_PARAMETERS}
    bounded = {
        parameter["name"]
        for operation in operations(schema).values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
        and parameter["schema"] != {"type": "string"}
        and "pattern" not in parameter["schema"]
    }
    assert bounded - tried == {"preflight", "queue", "last"}


def test_a_wrong_header_is_answered_by_its_own_name(api: Api) -> None:
    for path, body in (("/v1/jobs", JOB_BODY), ("/v1/annotation/claim", {"limit": 1})):
        headers = api.annotator if "annotation" in path else api.customer
        answer = api.post(path, body, {**headers, "Idempotency-Key": "x" * 256})
        assert (answer.status_code, answer.json()["details"]) == (
            400,
            [
                {
                    "field": "Idempotency-Key",
                    "message": "This must be a string of 1 to 255 characters.",
                }
            ],
        )
