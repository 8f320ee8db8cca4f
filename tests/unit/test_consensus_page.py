"""docs/consensus.md: its examples are what the rules come to."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.domain.consensus import (
    ALL,
    agreement_skill,
    confidence,
    gold_skill,
    weight,
    weighted_outcome,
)
from blocks.domain.gold import gold_interval

PAGE = (Path(__file__).parents[2] / "docs/consensus.md").read_text()
OPTIONS = ["cat", "dog"]


def rows_after(heading: str) -> Iterator[list[str]]:
    """The rows of the first table after a line."""
    (table,) = re.findall(
        rf"^{re.escape(heading)}.*?\n\|[^\n]+\n\|[-:|]+\n((?:\|[^\n]+\n)+)", PAGE, re.M | re.S
    )
    for line in table.splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def shown(number: int, unit: int) -> str:
    return f"{number / unit:.{len(str(unit)) - 1}f}" if number else "0"


def test_the_example_is_what_the_rules_come_to() -> None:
    scores, rows = [0, 0], list(rows_after("### An example"))
    assert len(rows) == 3
    for number, (label, _, right, skill, says, weighs, *found, sure, then) in enumerate(rows, 1):
        known = gold_skill(int(right), 20)
        added = weight(known, 2)
        scores[OPTIONS.index(says)] += added
        outcome = weighted_outcome(scores, number, labels_min=1, labels_max=6, target=9500)
        assert label == str(number)
        assert skill == shown(known, ALL)
        assert weighs == shown(added, 1_000_000)
        assert found == [shown(score, 1_000_000) for score in scores]
        assert sure == shown(confidence(scores), ALL)
        assert then == (f"settles on {OPTIONS[outcome - 1]}" if outcome else "asks for one more")


def test_the_page_names_the_skills_to_begin_with() -> None:
    starts = [float(start) for *_, start in rows_after("**Skill** has one of two sources")]
    assert starts == [gold_skill(0, 0) / ALL, agreement_skill(0, 0) / ALL]


def test_the_interval_of_the_page_is_that_of_its_numbers() -> None:
    (found,) = re.findall(
        r"Of (\d+) that settle and (\d+) that are right, it is ([\d.]+) to ([\d.]+)", PAGE
    )
    seen, right, low, high = map(float, found)
    assert gold_interval(int(right), int(seen)) == pytest.approx((low, high), abs=5e-4)
