"""JSON Schemas of all bodies, described by the docstrings behind their fields."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import inspect as types

Schema = dict[str, Any]
_REFERENCE = "#/components/schemas/{name}"
_INNER = ("type", "types", "item_type", "item_types", "key_type", "value_type", "fields")


def schemas_of(roots: Iterable[type]) -> dict[str, Schema]:
    """Return the schemas of `roots`, and of all types within them, by their names."""
    named: dict[str, type[Any]] = {}
    for info in types.multi_type_info(roots):
        named.update((found.__name__, found) for found in _named_types(info))
    _, schemas = msgspec.json.schema_components(named.values(), ref_template=_REFERENCE)
    return {name: _described(schemas[name], named[name]) for name in sorted(named)}


def _named_types(info: Any) -> Iterator[type[Any]]:
    """Yield the structs and enums in a type, however deep."""
    if isinstance(info, types.StructType | types.EnumType):
        yield info.cls
    for name in _INNER:
        inner = getattr(info, name, ())
        for each in inner if isinstance(inner, tuple) else (inner,):
            yield from _named_types(each)


def _described(schema: Schema, of: type[Any]) -> Schema:
    schema["description"] = inspect.cleandoc(of.__doc__ or "")
    if issubclass(of, Enum):
        schema["enum"] = [
            member.value for member in of
        ]  # in their order, not in that of the letters
        return schema
    schema |= getattr(of, "json_schema", {})
    docs = field_docs(of)
    for field in msgspec.structs.fields(of):
        found = schema["properties"][field.encode_name]
        if field.name in docs:
            found["description"] = docs[field.name]
    return schema


def field_docs(of: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstrings that stand behind the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(of.__mro__):
        if not issubclass(base, msgspec.Struct) or base is msgspec.Struct:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ):
                    found[name] = " ".join(doc.split())
    return found
