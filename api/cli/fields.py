"""Options that are fields of the API: their ranges, choices and defaults are the API's own."""

import msgspec
from cyclopts import Parameter, validators
from msgspec import inspect


def field_option(
    body: type[msgspec.Struct],
    field: str,
    help: str,  # noqa: A002 - Parameter's name for it
    *,
    name: str | None = None,
) -> Parameter:
    """Return how a field of a request is given: with its range or choices, which its help says."""
    (found,) = [each for each in msgspec.structs.fields(body) if each.name == field]
    kind = inspect.type_info(found.type)
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    default = "" if found.default in (msgspec.NODEFAULT, None) else f" Default: {found.default}."
    for each in kinds:
        if isinstance(each, inspect.IntType | inspect.FloatType):
            return ranged(f"{help} From {each.ge:g} to {each.le:g}.{default}", each.ge, each.le)
        if isinstance(each, inspect.EnumType | inspect.LiteralType):
            values = each.cls if isinstance(each, inspect.EnumType) else each.values
            return Parameter(name=name, help=help + default, choices=[str(each) for each in values])
    return Parameter(name=name, help=help + default)


def ranged(help: str, least: float | None, most: float | None = None) -> Parameter:  # noqa: A002
    """Return an option that is a number from `least` to `most`."""
    return Parameter(help=help, validator=validators.Number(gte=least, lte=most))
