"""The OpenAPI document: Litestar's list of routes, msgspec's schemas, and examples of all bodies."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import cleandoc
from itertools import groupby
from typing import Any

import msgspec
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import OpenAPI

from api.http.errors import ErrorBody
from api.http.schemas import schemas_of
from blocks.bodies.fields import Body

_JSON = "application/json"
_REFERENCE = "#/components/schemas/"


class Taken(msgspec.Struct, frozen=True):
    """An example of a request's body, with the type that it is read as."""

    model: type[Body]
    content: Mapping[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """An example of an answer: a struct, or the text of one that has several lines."""

    status: int
    content: msgspec.Struct | str
    description: str = ""
    name: str = "example"
    """What the example is of, where there are several of one status."""

    @property
    def model(self) -> type[msgspec.Struct] | None:
        """The type of the struct; None where it is a text."""
        return None if isinstance(self.content, str) else type(self.content)


Requests = Mapping[str, Taken]
"""An example of a body for each operation that takes one, by the operation's id."""
Answers = Mapping[str, tuple[Answer, ...]]
"""Examples of what operations answer with success, by the operation's id."""


@dataclass
class Document(OpenAPI):
    """An OpenAPI document that is completed when it is read."""

    requests: Requests | None = None
    answers: Answers | None = None

    @property
    def _exclude_fields(self) -> set[str]:
        return super()._exclude_fields | {"requests", "answers"}

    def to_schema(self) -> dict[str, Any]:
        document = super().to_schema()
        requests, answers = self.requests or {}, self.answers or {}
        known = document["components"]["schemas"]
        roots: set[type[msgspec.Struct]] = {ErrorBody}
        roots |= {taken.model for taken in requests.values()}
        roots |= {answer.model for found in answers.values() for answer in found if answer.model}
        for path in document["paths"].values():
            for operation in path.values():
                _complete_parameters(operation, known)
                _complete_refusals(operation)
                operation["responses"].get("204", {}).pop(
                    "content", None
                )  # no null: nothing at all
                if taken := requests.get(operation["operationId"]):
                    operation["requestBody"]["content"] = {_JSON: _content(taken)}
                found = answers.get(operation["operationId"], ())
                for status, some in groupby(found, key=lambda answer: answer.status):
                    _complete_answer(operation["responses"][str(status)], *some)
        document["components"]["schemas"] = schemas_of(roots)
        return document


@dataclass
class DocumentConfig(OpenAPIConfig):
    """Litestar's configuration, for a `Document`."""

    requests: Requests | None = None
    answers: Answers | None = None

    def to_openapi_schema(self) -> OpenAPI:
        plain = super().to_openapi_schema()
        values = {field.name: getattr(plain, field.name) for field in fields(plain)}
        return Document(**values, requests=self.requests, answers=self.answers)


def _complete_parameters(operation: dict[str, Any], known: Mapping[str, Any]) -> None:
    """Write into each parameter what it may be: no reference, no null, and no default of an enum."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        for option in (*schema.pop("oneOf", ()), *schema.pop("allOf", ())):
            name = option.get("$ref", "").removeprefix(_REFERENCE)
            found = known[name] if name else option
            if found != {"type": "null"}:
                schema |= {key: found[key] for key in ("type", "enum", "format") if key in found}
        if schema["type"] == "integer":  # Litestar writes its bounds as floats
            schema |= {key: int(schema[key]) for key in ("minimum", "maximum") if key in schema}
        if "enum" in schema:
            schema.pop("default", None)
        schema.pop("description", None)  # the parameter itself has one


def _complete_refusals(operation: dict[str, Any]) -> None:
    """Take the names out of the examples: the specification has them as keys only."""
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            for example in content.get("examples", {}).values():
                del example["id"]


def _complete_answer(response: dict[str, Any], answer: Answer, *others: Answer) -> None:
    response["description"] = (
        answer.description or cleandoc(str(answer.model.__doc__)).splitlines()[0]
    )
    (media_type,) = response["content"]
    response["content"] = {media_type: _content(answer, *others)}


def _content(example: Taken | Answer, *others: Answer) -> dict[str, Any]:
    """Return a media type of the examples' type, with the examples."""
    name = example.model.__name__ if example.model else None
    return {
        "schema": {"$ref": f"{_REFERENCE}{name}"} if name else {"type": "string"},
        "examples": {
            getattr(each, "name", "example"): {
                "value": msgspec.json.decode(msgspec.json.encode(each.content))
            }
            for each in (example, *others)
        },
    }
