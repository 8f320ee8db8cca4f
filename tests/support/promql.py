"""What expressions of PromQL name, as far as ours are written: metrics, labels and their values."""

import re
from collections.abc import Iterator

import msgspec

_METRIC = re.compile(r"\b((?:refinery|process|python)_[a-z_]+|up)\b(?!\s*\()(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'\s*([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


class Matcher(msgspec.Struct, frozen=True):
    """A condition on a label: `operator` is =, !=, =~ or !~."""

    label: str
    operator: str
    value: str


class Selector(msgspec.Struct, frozen=True):
    """A metric, and the conditions on its labels."""

    metric: str
    matchers: list[Matcher]


def selectors(expression: str) -> Iterator[Selector]:
    """Yield each metric of the expression with its conditions; refuse conditions of another form."""
    for metric, inside in _METRIC.findall(expression):
        matchers = [Matcher(*each) for each in _MATCHER.findall(inside)]
        assert _MATCHER.sub("", inside).strip() == "", inside
        yield Selector(metric, matchers)


def grouping_labels(expression: str) -> set[str]:
    """Return the labels that the expression groups or joins by."""
    lists = _GROUPING.findall(expression)
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}
