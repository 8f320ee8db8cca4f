"""Examples of the OpenAPI document: bodies work when they are sent, errors are answered as it says."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from httpx import Response

from blocks.store import customers
from tests.support.api_world import Api

pytestmark = pytest.mark.integration


class Operation:
    """A route, called as its document says; ids are of nothing that there is."""

    def __init__(self, api: Api, method: str, path: str, described: dict[str, Any]) -> None:
        self._api = api
        self._method, self._path = method, re.sub(r"\{\w+\}", "x", path)
        self.name: str = described["operationId"]
        self.has_id = "{" in path
        self.takes_any_key = path == "/v1/session"
        self._described = described
        self._headers = api.annotator if "/annotation/" in path else api.customer
        if path == "/v1/customers" or path.startswith("/v1/operations"):
            self._headers = api.bearer(api.shop.do(customers.add_admin_key, "Ona"))
        self.wrong_key = api.customer if "/annotation/" in path else api.annotator

    @property
    def body(self) -> Any:
        """The example of its body, if it has one."""
        content = self._described.get("requestBody", {}).get("content", {}).get("application/json")
        return content["examples"]["example"]["value"] if content else None

    def send(self, query: str = "", headers: dict[str, str] | None = None, **more: Any) -> Response:
        headers = self._headers if headers is None else headers
        if not more and self.body is not None:
            more = {"json": self.body}
        return self._api.client.request(self._method, self._path + query, headers=headers, **more)

    def errors(self, status: int) -> list[Any]:
        """The examples of a status."""
        content = self._described["responses"][str(status)]["content"]["application/json"]
        return [example["value"] for example in content["examples"].values()]


@pytest.fixture
def operations(api: Api) -> list[Operation]:
    paths = api.client.get("/schema/openapi.json").json()["paths"]
    return [
        Operation(api, method.upper(), path, described)
        for path, item in paths.items()
        for method, described in item.items()
        if path.startswith("/v1/")
    ]


def refused(operations: list[Operation]) -> Iterator[tuple[str, int, Operation, Response]]:
    """Yield answers to requests that have one thing wrong with them."""
    for each in operations:
        yield "no key", 401, each, each.send(headers={})
        if not each.takes_any_key:
            yield "wrong key", 403, each, each.send(headers=each.wrong_key)
        if each.has_id:
            yield "no such thing", 404, each, each.send()
        if each.body is None:
            yield "unknown parameter", 400, each, each.send("?page=9")
        else:
            yield "text", 415, each, each.send(content=b"x")


def test_errors_are_answered_as_the_examples_say(operations: list[Operation]) -> None:
    tried = 0
    for what, status, operation, answer in refused(operations):
        assert answer.status_code == status, (what, operation.name)
        assert answer.json() in operation.errors(status), (what, operation.name)
        tried += 1
    assert tried > 60


def test_a_misspelt_field_is_answered_as_the_example_says(operations: list[Operation]) -> None:
    for operation in operations:
        if operation.body is not None:
            (example,) = operation.errors(400)
            field = example["details"][0]["field"]
            answer = operation.send(json={field: None})
            assert (answer.status_code, answer.json()) == (400, example), operation.name


def test_examples_of_bodies_work_when_they_are_sent(api: Api, operations: list[Operation]) -> None:
    asks_a_store = {"preview_job"}
    sent = [
        each
        for each in operations
        if each.body is not None and not each.has_id and each.name not in asks_a_store
    ]
    assert {each.name for each in sent} == {
        "sign_in",
        "create_job",
        "create_task",
        "create_tasks",
        "claim_tasks",
        "submit_labels",
        "submit_reviews",
        "renew_leases",
        "release_tasks",
        "create_webhook",
        "create_key",
        "rotate_default_secret",
    }
    _, key = api.shop.do(customers.add_annotator_key, "Rita", is_reviewer=True)
    for operation in sent:
        if operation.name == "sign_in":
            api.shop.run(
                "insert into api_keys (key_hash, customer_id) values (sha256(%s), %s)",
                operation.body["key"].encode(),
                api.shop.customer_id,
            )
        headers = api.bearer(key) if operation.name == "submit_reviews" else None
        answer = operation.send(headers=headers)
        assert answer.status_code in {200, 201, 202}, operation.name
