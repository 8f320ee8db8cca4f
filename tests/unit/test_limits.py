"""The schema's checks are the limits that the bodies have."""

import re
from importlib import resources

import pytest

from blocks.domain import limits

SCHEMA = (resources.files("blocks.store") / "schema.sql").read_text()


@pytest.mark.parametrize(
    "column, bounds",
    [
        (
            "consensus_threshold",
            (limits.CONSENSUS_THRESHOLD_MIN, limits.CONSENSUS_THRESHOLD_MAX),
        ),
        (r"cardinality\(options\)", (limits.OPTIONS_MIN, limits.OPTIONS_MAX)),
        ("priority", (limits.PRIORITY_MIN, limits.PRIORITY_MAX)),
        ("skips_max", (limits.SKIPS_MAX_MIN, limits.SKIPS_MAX_MAX)),
    ],
)
def test_a_check_has_the_bounds_of_the_bodies(column: str, bounds: tuple[int, int]) -> None:
    found = re.findall(rf"check \({column} between (\d+) and (\d+)\)", SCHEMA)

    assert [tuple(map(int, each)) for each in found] == [bounds]


@pytest.mark.parametrize(
    "name", ["CONSENSUS_THRESHOLD", "PRIORITY", "SKIPS_MAX", "FAILURE_THRESHOLD_PERCENT"]
)
def test_a_default_lies_within_its_bounds(name: str) -> None:
    least, default, most = (getattr(limits, f"{name}_{end}") for end in ("MIN", "DEFAULT", "MAX"))

    assert least <= default <= most
