"""Where results may be delivered to, beside the manifests that they come from."""

import pytest

from blocks.prefect.blocks import ManifestSource, ResultsDelivery
from flows.finding.own_results import DeliveredIntoSource, check_delivery
from flows.finding.sources import Source


def check(source: str, delivery: str) -> None:
    template = Source(source, timezone="UTC", suffixes=[".jsonl"])
    place = ManifestSource(bucket_url="s3://bucket").place
    check_delivery(ResultsDelivery(url=delivery).target(), place, template)


@pytest.mark.parametrize(
    "source, delivery",
    [
        ("in/", "in/labels"),
        ("in/", "in/labels///"),
        ("in/", "in"),
        ("in/", "in/"),
        ("", ""),
        ("", "/"),
        ("", "labels"),
        ("in", "in"),
        ("in", "input"),
        ("in/{date:%Y/%m/%d}/", "in/2026/01/02"),
        ("{date}/", "2026-01-02/labels/"),
    ],
)
def test_a_delivery_below_the_source_is_refused(source: str, delivery: str) -> None:
    with pytest.raises(DeliveredIntoSource, match="of the same bucket"):
        check(source, f"s3://bucket/{delivery}")


@pytest.mark.parametrize(
    "source, delivery",
    [
        ("in/", "s3://bucket/labels"),
        ("in/", "s3://bucket/inner"),
        ("in/", "s3://bucket"),
        ("in/", "s3://other/in"),
        ("in/", "gs://bucket/in"),
        ("in/{date}/", "s3://bucket/in/labels"),
        ("in/monday.jsonl", "s3://bucket/in"),
    ],
)
def test_a_delivery_beside_the_source_is_not(source: str, delivery: str) -> None:
    check(source, delivery)
