"""Who may ask what: every route, with every kind of key, and operators over all customers."""

import re
from typing import Any

import pytest

from api.http.errors import ADMINS_KEY, ANNOTATORS_KEY, CUSTOMERS_KEY
from blocks.domain.model import JobStatus
from blocks.store import customers
from tests.support.access import TAKES, A, C, O
from tests.support.api_world import JOB_BODY, Api

pytestmark = pytest.mark.integration

WORDS = {C: CUSTOMERS_KEY, A: ANNOTATORS_KEY, O: ADMINS_KEY}


@pytest.fixture
def admin(api: Api) -> dict[str, str]:
    return api.bearer(api.shop.do(customers.add_admin_key, "Ona"))


def test_every_route_takes_the_keys_that_the_table_says(api: Api, admin: dict[str, str]) -> None:
    keys = {C: api.customer, A: api.annotator, O: admin}
    paths = api.client.get("/schema/openapi.json").json()["paths"]
    asked: set[str] = set()
    for path, item in paths.items():
        for method, operation in item.items():
            name = operation["operationId"]
            if not path.startswith("/v1/") or name == "sign_in":
                continue
            asked.add(name)
            assert name in TAKES, "say above whose key it takes"
            # Keys are looked at first, so a parameter that is not known keeps routes from doing anything.
            url = re.sub(r"\{\w+\}", "x", path) + "?unknown=1"
            nobody = api.client.request(method, url)
            assert (nobody.status_code, nobody.json()["code"]) == (401, "invalid_api_key"), name
            for kind, key in keys.items():
                answer = api.client.request(method, url, headers=key)
                refused = answer.status_code == 403 and answer.json()["code"] == "forbidden"
                assert answer.status_code in {400, 403}, (name, kind, answer.text)
                assert refused is (kind not in TAKES[name]), (name, kind, answer.text)
                if refused:
                    assert WORDS[kind] in answer.json()["error"]
                    assert any(WORDS[taken] in answer.json()["error"] for taken in TAKES[name])
    assert asked == set(TAKES)


def read_by(api: Api, headers: dict[str, str], path: str) -> dict[str, Any]:
    answer = api.get(path, headers)
    assert answer.status_code == 200, (path, answer.text)
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def other(api: Api) -> dict[str, str]:
    """Another customer, who has posted a job as well."""
    headers = api.new_customer()
    assert api.post("/v1/jobs", JOB_BODY, headers).status_code == 202
    return headers


def test_an_operator_sees_the_jobs_of_all_customers_and_whose_they_are(
    api: Api, admin: dict[str, str], other: dict[str, str]
) -> None:
    api.submit()
    all_jobs = read_by(api, admin, "/v1/jobs")["jobs"]
    listed = read_by(api, admin, "/v1/customers")["customers"]
    assert {job["customer_id"] for job in all_jobs} == {each["customer_id"] for each in listed}
    assert len(all_jobs) == 2
    first = read_by(api, admin, "/v1/jobs?limit=1")
    second = read_by(api, admin, f"/v1/jobs?limit=1&cursor={first['next_cursor']}")
    pages = [job["job_id"] for job in [*first["jobs"], *second["jobs"]]]
    assert pages == [job["job_id"] for job in all_jobs]
    ids = [job["job_id"] for job in all_jobs]
    accepted = read_by(api, admin, f"/v1/jobs?status={JobStatus.ACCEPTED}")["jobs"]
    assert [job["job_id"] for job in accepted] == ids
    (theirs,) = read_by(api, other, "/v1/jobs")["jobs"]
    chosen = read_by(api, admin, f"/v1/jobs?customer={theirs['customer_id']}")["jobs"]
    assert [job["job_id"] for job in chosen] == [theirs["job_id"]]
    for path in ("", "/instructions", "/history", "/quality", "/disagreements"):
        read_by(api, admin, f"/v1/jobs/{theirs['job_id']}{path}")


def test_an_operator_sees_the_endpoints_of_all_customers_and_whose_they_are(
    api: Api, admin: dict[str, str], other: dict[str, str]
) -> None:
    hook = {"callback_url": "https://hooks.example/1"}
    made = [api.post("/v1/webhooks", hook, headers).json() for headers in (api.customer, other)]
    listed = read_by(api, admin, "/v1/webhooks")["webhooks"]
    assert [each["webhook_id"] for each in listed] == [each["webhook_id"] for each in made]
    names = {
        each["customer_id"]: each["name"]
        for each in read_by(api, admin, "/v1/customers")["customers"]
    }
    assert len(names) == 2
    assert {each["customer_id"] for each in listed} == names.keys()


def test_a_customer_sees_no_other_customers_things_whatever_they_ask(
    api: Api, other: dict[str, str]
) -> None:
    (theirs,) = read_by(api, other, "/v1/jobs")["jobs"]
    hook = {"callback_url": "https://hooks.example/1"}
    webhook_id = api.post("/v1/webhooks", hook, other).json()["webhook_id"]
    assert read_by(api, api.customer, "/v1/jobs")["jobs"] == []
    asked = f"/v1/jobs?customer={theirs['customer_id']}"
    assert read_by(api, api.customer, asked)["jobs"] == []
    assert api.get(f"/v1/jobs?cursor={theirs['job_id']}").status_code == 400
    assert api.get(f"/v1/jobs/{theirs['job_id']}").status_code == 404
    assert read_by(api, api.customer, "/v1/webhooks")["webhooks"] == []
    assert api.get(f"/v1/webhooks/{webhook_id}/deliveries").status_code == 404


def test_an_operator_stops_a_job_and_submits_none(
    api: Api, admin: dict[str, str], other: dict[str, str]
) -> None:
    (theirs,) = read_by(api, other, "/v1/jobs")["jobs"]
    cancelled = api.post(f"/v1/jobs/{theirs['job_id']}/cancel", None, admin)
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert api.post("/v1/jobs", JOB_BODY, admin).json()["code"] == "forbidden"


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/v1/jobs/{job_id}/deliver"),
        ("POST", "/v1/jobs/{job_id}/annotators/ann_0000000000000000000000/exclude"),
        ("DELETE", "/v1/jobs/{job_id}/credentials"),
        ("DELETE", "/v1/jobs/{job_id}"),
        ("GET", "/v1/jobs/{job_id}/export"),
        ("GET", "/v1/jobs/{job_id}/errors"),
        ("GET", "/v1/jobs/{job_id}/quality/changes?method=one_coin"),
        ("POST", "/v1/webhooks/deliveries/dlv_unknown/replay"),
    ],
)
def test_an_operator_is_answered_as_the_customer_is(
    api: Api, admin: dict[str, str], other: dict[str, str], method: str, path: str
) -> None:
    (theirs,) = read_by(api, other, "/v1/jobs")["jobs"]
    url = path.format(job_id=theirs["job_id"])
    body: dict[str, Any] | None = {} if path.endswith("/deliver") else None
    by_both = [
        api.client.request(method, url, headers=headers, json=body) for headers in (other, admin)
    ]
    by_customer, by_operator = [(each.status_code, each.content) for each in by_both]
    assert by_operator == by_customer
    if "/jobs/" in path:
        assert api.client.request(method, url, headers=api.customer, json=body).status_code == 404


def test_an_operator_sees_endpoints_and_tasks_of_all_customers(
    api: Api, admin: dict[str, str], other: dict[str, str]
) -> None:
    hooks = [
        api.post("/v1/webhooks", {"callback_url": f"https://hooks.example/{n}"}, headers).json()
        for n, headers in enumerate((api.customer, other))
    ]
    shown = read_by(api, admin, "/v1/webhooks")["webhooks"]
    assert [each["webhook_id"] for each in shown] == [each["webhook_id"] for each in hooks]
    assert len({each["customer_id"] for each in shown}) == 2
    log = read_by(api, admin, f"/v1/webhooks/{hooks[1]['webhook_id']}/deliveries")
    assert log == {"deliveries": [], "next_cursor": None}
    task = {
        "type": "image_classification",
        "data_url": "https://images.example/1.jpg",
        "label_spec": JOB_BODY["label_spec"],
    }
    task_id = api.post("/v1/tasks", task, other).json()["task_id"]
    assert read_by(api, admin, f"/v1/tasks/{task_id}")["task_id"] == task_id
    assert api.get(f"/v1/tasks/{task_id}").status_code == 404


def test_an_operators_session_says_so(api: Api, admin: dict[str, str]) -> None:
    key = admin["Authorization"].removeprefix("Bearer ")
    for shown in (
        api.client.post("/v1/session", json={"key": key}).json(),
        read_by(api, admin, "/v1/session"),
    ):
        found = (shown["role"], shown["name"], shown["owner_id"])
        assert found == ("admin", "Ona", customers.key_id(key))
