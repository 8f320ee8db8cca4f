"""Which objects are manifests, and which of them a slot has to submit."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blocks.buckets.protocol import Entry
from blocks.domain.model import Pin
from flows.finding.sources import InvalidSource, Slot, Source, Verdict

NOW = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
BEGAN = NOW - timedelta(days=2)
SUFFIXES = [".jsonl", ".jsonl.gz"]


def source(template: str, timezone: str = "UTC") -> Source:
    return Source(template, timezone=timezone, suffixes=SUFFIXES)


def judge(
    template: str, key: str, *, age: timedelta, timezone: str = "UTC", **slot: Any
) -> Verdict:
    values: dict[str, object] = {
        "at": NOW,
        "now": NOW,
        "stream_began_at": BEGAN,
        "min_age": timedelta(minutes=1),
        "catch_up": False,
    }
    entry = Entry(key, Pin(1, "v"), NOW - age)
    return source(template, timezone).judge(entry, Slot(**(values | slot)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "template, key, expected",
    [
        ("in/", "in/a.jsonl", True),
        ("in/", "in/deep/b.jsonl.gz", True),
        ("in/", "in/_SUCCESS", False),
        ("in/", "in/a.jsonl.tmp", False),
        ("in/", "in/A.JSONL", True),
        ("in/", "in/a.Jsonl.GZ", True),
        ("in/", "inside.jsonl", False),
        ("", "a.jsonl", True),
        ("in/{date}/", "in/2026-03-09/a.jsonl", True),
        ("in/{date}/", "in/today/a.jsonl", False),
        ("in/{date:%Y/%m/%d}/part-", "in/2026/03/09/part-1.jsonl", True),
        ("in/{date:%Y/%m/%d}/part-", "in/2026/03/09/other.jsonl", False),
        ("in/{date:%Y.%m}/", "in/2026x03/a.jsonl", False),
        ("in/{date:%Y/%m/%Y-%m-%d}/", "in/2026/03/2026-03-09/a.jsonl", True),
        ("in/{date:%Y/%m/%Y-%m-%d}/", "in/2026/03/2026-04-09/a.jsonl", False),
    ],
)
def test_manifests_are_told_by_prefix_date_and_suffix(
    template: str, key: str, *, expected: bool
) -> None:
    assert source(template).is_manifest(key) is expected
    if expected:
        assert key.startswith(source(template).prefix)


@pytest.mark.parametrize(
    "template", ["in/{day}/", "in/{date}/{date}/", "in/{date:%B}/", "in/{date:now}/", "in/{date"]
)
def test_a_template_that_means_nothing_is_refused(template: str) -> None:
    with pytest.raises(InvalidSource):
        source(template)


@pytest.mark.parametrize(
    "format_",
    ["%m-%d", "%d", "%H", "%M", "%m/%d", "%H%M", "%Y-%d", "%Y/%H", "%Y%m%d%M", "%Y%m%j", "%Y%m%H", "%y"],
)  # fmt: skip
def test_a_date_that_comes_again_is_refused(format_: str) -> None:
    with pytest.raises(InvalidSource, match="has to name a year"):
        source(f"in/{{date:{format_}}}/")


@pytest.mark.parametrize("format_", ["%Y", "%Y/%m", "%d.%m.%Y", "%Y%j", "%Y-%m-%dT%H", "%Y%j%H%M"])
@pytest.mark.parametrize("at", ["2028-02-29T12:30", "2026-12-31T23:59", "2027-01-01T00:00"])
def test_every_date_that_names_its_year_is_judged_on_every_day(format_: str, at: str) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    slot: dict[str, Any] = {
        "at": now,
        "now": now,
        "stream_began_at": datetime.min.replace(tzinfo=UTC),
    }
    for days, verdict in ((0, Verdict.DUE), (-366, Verdict.DUE), (366, Verdict.OF_A_LATER_DATE)):
        key = f"in/{(now + timedelta(days=days)).strftime(format_)}/a.jsonl"
        assert judge(f"in/{{date:{format_}}}/", key, age=timedelta(hours=1), **slot) is verdict


def test_a_time_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidSource, match="Mars/Olympus"):
        source("in/", "Mars/Olympus")


@pytest.mark.parametrize(
    "age, catch_up, expected",
    [
        (timedelta(hours=1), False, Verdict.DUE),
        (timedelta(seconds=30), False, Verdict.STILL_YOUNG),
        (timedelta(seconds=30), True, Verdict.STILL_YOUNG),
        (timedelta(days=3), False, Verdict.BEFORE_THE_STREAM),
        (timedelta(days=3), True, Verdict.DUE),
    ],
)
def test_below_a_prefix_what_is_new_is_due_once_it_is_old_enough(
    age: timedelta, *, catch_up: bool, expected: Verdict
) -> None:
    assert judge("in/", "in/a.jsonl", age=age, catch_up=catch_up) is expected


@pytest.mark.parametrize(
    "date, age, expected",
    [
        ("2026-03-10", timedelta(hours=1), Verdict.DUE),
        ("2026-03-10", timedelta(days=5), Verdict.DUE),  # written ahead of time
        ("2026-03-09", timedelta(hours=1), Verdict.DUE),  # late
        ("2026-03-09", timedelta(days=5), Verdict.BEFORE_THE_STREAM),
        ("2026-03-11", timedelta(hours=1), Verdict.OF_A_LATER_DATE),
        ("2026-02-30", timedelta(hours=1), Verdict.NO_SUCH_DATE),
    ],
)
def test_with_a_date_the_slots_own_day_and_late_files_are_due(
    date: str, age: timedelta, expected: Verdict
) -> None:
    assert judge("in/{date}/", f"in/{date}/a.jsonl", age=age) is expected


def test_a_slots_day_is_that_of_its_time_zone() -> None:
    key, age = "in/2026-03-09/a.jsonl", timedelta(days=5)
    assert judge("in/{date}/", key, age=age) is Verdict.BEFORE_THE_STREAM
    assert judge("in/{date}/", key, age=age, timezone="America/New_York") is Verdict.DUE


def test_a_backfill_takes_the_day_that_it_is_for() -> None:
    key, age = "in/2026-01-05/a.jsonl", timedelta(days=60)
    at = datetime(2026, 1, 5, 2, tzinfo=UTC)
    assert judge("in/{date}/", key, age=age, at=at) is Verdict.DUE
