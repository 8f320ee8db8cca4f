"""Alerts and dashboard ask for what the API tells: names of metrics, their labels, and values of those."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import msgspec
import pytest
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families as parse_text

from blocks.settings import Settings
from blocks.store import streams
from blocks.store.streams import Stream
from tests.support.api_world import make_app
from tests.support.fake_prefect import FakePrefect
from tests.support.monitoring import list_panels, list_rule_tests, list_rules
from tests.support.promql import Matcher, grouping_labels, selectors
from tests.support.side import wait_until
from tests.support.store_shop import Shop

pytestmark = pytest.mark.integration

# Prometheus adds these to each sample.
TARGET = {"job": {"refinery"}, "instance": {"127.0.0.1:8000"}}
# Values that have no series before somebody has asked so.
MORE_VALUES = {"status": {str(int(each)) for each in HTTPStatus}}

Told = Mapping[str, Mapping[str, set[str]]]
"""Values of labels, by metric and label."""


def list_expressions() -> Iterator[str]:
    for rule in list_rules():
        yield rule["expr"]
    for panel in list_panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def list_tested_series() -> Iterator[str]:
    for test in list_rule_tests():
        yield from (each["series"] for each in test["input_series"])


@pytest.fixture
def told(settings: Settings, shop: Shop, prefect: FakePrefect) -> Told:
    """What a scrape has, of an API with everything that it may tell of."""
    stream = Stream(shop.customer_id, "daily")
    shop.do(streams.begin, stream, datetime(2026, 1, 1, tzinfo=UTC))
    prefect.workers = {"refinery": 1}
    there = msgspec.structs.replace(settings, prefect_api_url=prefect.url)
    with TestClient(make_app(there)) as client:
        assert client.get("/health/ready").status_code == 200
        assert client.get("/v1/jobs").status_code == 401
        wait_until(lambda: "refinery_workers_online{" in client.get("/metrics").text)
        text = client.get("/metrics").text
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    found["up"].update(TARGET)
    for family in parse_text(text):
        for sample in family.samples:
            labels = found[sample.name]
            labels.update(TARGET)
            for label, value in sample.labels.items():
                labels[label].add(value)
    return found


def has_value(matcher: Matcher, known: set[str]) -> bool:
    """Whether each value that the matcher names, or each alternative of its expression, is one of a series."""
    known = known | MORE_VALUES.get(matcher.label, set())
    if "~" not in matcher.operator:
        return matcher.value in known
    return all(
        any(re.fullmatch(each, value) for value in known) for each in matcher.value.split("|")
    )


def test_expressions_ask_for_what_is_told(told: Told) -> None:
    expressions = list(list_expressions())
    assert len(expressions) > 50
    wrong = []
    for expression in expressions:
        found = list(selectors(expression))
        assert found, expression
        wrong += [f"{each.metric}: {expression}" for each in found if each.metric not in told]
        labels = {label for each in found for label in told.get(each.metric, ())}
        wrong += [f"{label}: {expression}" for label in grouping_labels(expression) - labels]
        wrong += [
            f"{matcher}: {expression}"
            for each in found
            for matcher in each.matchers
            if not has_value(matcher, told.get(each.metric, {}).get(matcher.label, set()))
        ]
    assert wrong == []


def test_the_rules_are_tested_with_series_that_are_told(told: Told) -> None:
    """Else a test could go on passing when a metric has got another name or other labels."""
    made_up = ("instance", "job", "pool", "customer_id", "stream", "le")
    for series in list_tested_series():
        (found,) = selectors(series)
        labels = told[found.metric]
        assert {each.label for each in found.matchers} <= labels.keys(), series
        for each in found.matchers:
            assert each.label in made_up or has_value(each, labels[each.label]), series


def test_all_of_our_metrics_are_on_the_dashboard_or_in_an_alert(told: Told) -> None:
    asked = {each.metric for expression in list_expressions() for each in selectors(expression)}
    base = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    ours = {name for name in told if name.startswith("refinery_")}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in ours} - base == set()
