"""The OpenAPI document: everything in it is described, and every example in it is right."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from api.app import create_app
from api.auth import ADMINS_ONLY, ANNOTATORS_ONLY, CUSTOMERS_ONLY
from api.examples import REQUESTS
from api.http.bodies import parse
from api.http.schemas import field_docs, schemas_of
from blocks.domain.errors import RefineryError
from blocks.settings import Settings
from blocks.store.quotas import Quota
from deployments.registered import REPOSITORY


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = create_app(Settings(database_url="postgresql://x/y", encryption_key="ab" * 32))
    found: dict[str, Any] = json.loads(msgspec.json.encode(app.openapi_schema.to_schema()))
    return found


WANTED = {"annotation": ANNOTATORS_ONLY, "customers": ADMINS_ONLY, "operations": ADMINS_ONLY}


def test_every_route_of_a_version_but_of_sessions_takes_one_kind_of_key() -> None:
    app = create_app(Settings(database_url="postgresql://x/y", encryption_key="ab" * 32))
    guarded = 0
    for route in app.routes:
        for handler in getattr(route, "route_handlers", []):
            if route.path == "/v1/session":
                assert not {*ANNOTATORS_ONLY} & {*handler.opt}
            elif route.path.startswith("/v1/") and "OPTIONS" not in handler.http_methods:
                wanted = WANTED.get(route.path.split("/")[2], CUSTOMERS_ONLY)
                assert wanted.items() <= handler.opt.items(), route.path
                guarded += 1
    assert guarded > 20


def test_no_request_starts_a_task_for_what_its_handler_is_given() -> None:
    app = create_app(Settings(database_url="postgresql://x/y", encryption_key="ab" * 32))
    models = [
        model
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for _, model in route.route_handler_map.values()
    ]
    assert max(len(model.dependency_batches) for model in models) > 2
    assert {len(batch) for model in models for batch in model.dependency_batches} == {1}


def test_options_of_a_path_name_all_its_methods(document: dict[str, Any]) -> None:
    client = TestClient(
        create_app(Settings(database_url="postgresql://x/y", encryption_key="ab" * 32))
    )
    for path, item in document["paths"].items():
        answer = client.options(re.sub(r"\{\w+\}", "x", path))
        allowed = {method.lower() for method in answer.headers["Allow"].split(", ")}
        assert (answer.status_code, allowed) == (204, {*item, "options"}), path


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def values(content: dict[str, Any]) -> list[Any]:
    return [example["value"] for example in content.get("examples", {}).values()]


def answers(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each operation's id, a status that it answers with, and the content of that answer."""
    for operation in operations(document):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                yield operation["operationId"], status, content


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    return [fault.message for fault in Draft202012Validator(whole).iter_errors(value)]


def known_codes() -> set[str]:
    """Every code that stands in the source as one, or is made from a word that does."""
    texts = [
        path.read_text()
        for part in ("api", "blocks")
        for path in Path(REPOSITORY, part).rglob("*.py")
    ]
    stated = {code for text in texts for code in re.findall(r'"([a-z]+(?:_[a-z]+)+)"', text)}
    missing = {
        f"{what}_not_found" for text in texts for what in re.findall(r'not_found\("(\w+)"\)', text)
    }
    states = {f"job_{status}" for status in ("completed", "failed", "cancelled")}
    quotas = {f"{quota}_quota_exceeded" for quota in Quota}
    kinds = {kind.code for kind in RefineryError.__subclasses__()}
    return (
        stated
        | missing
        | states
        | quotas
        | kinds
        | {"forbidden", "unavailable", "locked", "overloaded"}
    )


def test_every_schema_has_a_plain_name_and_a_description(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert re.fullmatch(r"([A-Z][a-z]+)+", name)
        assert schema.get("description"), name


def test_every_property_has_a_description(document: dict[str, Any]) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, found in schema.get("properties", {}).items()
        if not found.get("description")
    ]
    assert bare == []


def test_every_operation_has_a_summary_and_a_description(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert operation["summary"], operation
        assert operation["description"], operation


def test_every_parameter_has_a_description_and_no_enum_a_default(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            where = operation["operationId"], parameter["name"]
            assert parameter.get("description"), where
            schema = parameter["schema"]
            assert isinstance(schema["type"], str), where
            assert not {"oneOf", "anyOf", "allOf", "$ref"} & set(schema), where
            assert not ("enum" in schema and "default" in schema), where


@pytest.mark.parametrize(
    "operation_id,name,choices",
    [
        ("list_jobs", "status", ["accepted", "processing", "completed", "failed", "cancelled"]),
        ("list_bad_lines", "format", ["jsonl", "manifest"]),
        ("get_job_quality", "method", ["one_coin", "dawid_skene"]),
        ("list_label_changes", "method", ["one_coin", "dawid_skene"]),
    ],
)
def test_a_parameter_of_few_values_lists_them(
    document: dict[str, Any], operation_id: str, name: str, choices: list[str]
) -> None:
    (operation,) = [o for o in operations(document) if o["operationId"] == operation_id]
    (found,) = [p for p in operation["parameters"] if p["name"] == name]
    assert found["schema"] == {"type": "string", "enum": choices}


def test_every_body_has_an_example_that_its_route_reads(document: dict[str, Any]) -> None:
    taken = 0
    for operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = operation["operationId"]
            assert values(content), name
            for value in values(content):
                taken += 1
                parse(json.dumps(value).encode(), REQUESTS[name].model)
                assert faults(document, content["schema"], value) == [], name
    assert taken == len(REQUESTS)


def test_every_answer_has_an_example_that_is_as_its_schema_says(document: dict[str, Any]) -> None:
    for name, status, content in answers(document):
        assert values(content), (name, status)
        for value in values(content):
            assert faults(document, content["schema"], value) == [], (name, status)


def test_every_line_of_an_example_is_json(document: dict[str, Any]) -> None:
    for operation in operations(document):
        lines = (
            operation["responses"].get("200", {}).get("content", {}).get("application/x-ndjson", {})
        )
        assert all(json.loads(line) for text in values(lines) for line in text.splitlines())


def test_every_error_has_a_code_that_the_api_knows(document: dict[str, Any]) -> None:
    known = known_codes()
    for name, status, content in answers(document):
        if status >= "4" and name != "health_ready":
            for key, example in content["examples"].items():
                code, _, _ = key.partition(
                    " "
                )  # a number follows, where there is more than one of it
                assert example["value"]["code"] == code, (name, status)
                assert code in known, (name, status)


def test_no_text_has_words_of_the_implementation(document: dict[str, Any]) -> None:
    texts = json.dumps(document)
    assert not re.findall(
        r"(?<!-)\bNone\b(?!-)|msgspec|[Ll]itestar|\bstruct\b|[A-Z]+_[A-Z]+|off-line", texts
    )


def test_examples_have_no_fields_that_the_specification_does_not(document: dict[str, Any]) -> None:
    for name, status, content in answers(document):
        for example in content["examples"].values():
            assert set(example) == {"value"}, (name, status)


BODY: dict[str, Any] = {
    "manifest_url": "s3://manifests/a.jsonl",
    "label_spec": {"question": "?", "options": ["a", "b"]},
}
S3 = {"type": "s3", "bucket": "results"}


@pytest.mark.parametrize(
    "change",
    [
        {"priorty": 1},
        {"priority": 10},
        {"consensus_threshold": 0},
        {"manifest_url": "ftp://manifests/a.jsonl"},
        {"callback_url": "http://hooks.example/"},
        {"label_spec": {"question": " ", "options": ["a", "b"]}},
        {"label_spec": {"question": "?", "options": ["a", "a"]}},
        {"label_spec": {"question": "?", "options": ["a", " "]}},
        {"label_spec": {"question": "?", "options": ["a"]}},
        {"label_spec": BODY["label_spec"] | {"option_details": [{"option": "a", "hotkey": "ab"}]}},
        {"label_spec": BODY["label_spec"] | {"option_details": [{"option": "a", "hotkey": " "}]}},
        {"label_spec": BODY["label_spec"] | {"option_details": [{"description": "?"}]}},
        {
            "label_spec": BODY["label_spec"]
            | {"option_details": [{"option": "a", "description": ""}]}
        },
        {"credentials": {}},
        {"sign_urls": True},
        {"delivery": S3 | {"bucket": "a"}},
        {"delivery": S3 | {"compression": "xz"}},
        {"delivery": S3 | {"type": "gcs", "acl": "private"}},
        {"metadata": {"a": 1}},
        {"instructions": "\n"},
        {"instructions": "x" * 65_537},
    ],
    ids=str,
)
def test_what_a_job_is_refused_for_is_in_the_schema(
    document: dict[str, Any], change: dict[str, Any]
) -> None:
    schema = document["components"]["schemas"]["JobBody"]
    assert faults(document, schema, BODY) == []
    assert faults(document, schema, BODY | change) != []
    with pytest.raises(RefineryError):
        parse(json.dumps(BODY | change).encode(), REQUESTS["create_job"].model)


class Base(msgspec.Struct):
    """A base."""

    first: int
    """The first."""
    bare: int


class Derived(Base):
    """More."""

    second: str | None = None
    """The second, in a text
    of two lines."""


def test_fields_are_described_by_the_docstrings_behind_them() -> None:
    assert field_docs(Derived) == {
        "first": "The first.",
        "second": "The second, in a text of two lines.",
    }
    properties = schemas_of([Derived])["Derived"]["properties"]
    assert properties["bare"] == {"type": "integer"}
    assert properties["first"] == {"type": "integer", "description": "The first."}
