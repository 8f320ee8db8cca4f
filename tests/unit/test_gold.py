"""Gold tasks: what they would have come to, and the interval of a share, by exact fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.consensus import SKILL_MAX, majority_outcome, weight, weighted_outcome
from blocks.domain.gold import (
    GoldEstimate,
    Majority,
    SkilledLabel,
    Weighted,
    estimate,
    gold_interval,
    replay,
)

WEIGHTED = Weighted(target=9500)
labels_of_three = st.lists(
    st.builds(SkilledLabel, st.integers(1, 3), st.integers(0, SKILL_MAX)), max_size=10
)


def labels(*said: tuple[int, int]) -> list[SkilledLabel]:
    return [SkilledLabel(*each) for each in said]


def probability(counts: range, trials: int, share: Fraction) -> float:
    """That as many of the trials succeed as one of the counts."""
    return float(sum(math.comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in counts))


@pytest.mark.parametrize(
    "rule, said, outcome",
    [
        (Majority(threshold=3), [(1, 0), (1, 0)], None),
        (Majority(threshold=3), [(1, 0), (2, 0), (1, 0), (2, 0), (2, 0)], 1),
        (Majority(threshold=3, stop_early=True), [(2, 0), (2, 0), (1, 0)], 2),
        (Majority(threshold=1), [], None),
        (Majority(threshold=2), [(1, 0), (2, 0), (1, 0), (2, 0)], 1),
        (Majority(threshold=2), [(1, 0), (2, 0), (3, 0), (4, 0)], 0),
        (WEIGHTED, [(2, 9600), (1, 9900), (1, 9900)], 2),  # the first label has decided
        (WEIGHTED, [(2, 8000), (2, 8000)], 2),  # 144 of 147, of four options
        (WEIGHTED, [(2, 8000)], None),
        (WEIGHTED, [(2, 2500)] * 6 + [(1, 9900)], 0),  # at chance
        (Weighted(target=9500, labels_min=2), [(2, 9600)], None),
    ],
)
def test_a_task_is_replayed_up_to_the_label_that_decides(
    rule: Majority | Weighted, said: list[tuple[int, int]], outcome: int | None
) -> None:
    assert replay(rule, 4, labels(*said)) == outcome


@given(labels_of_three, st.integers(1, 5), st.booleans())
def test_a_replay_is_the_first_outcome_of_the_majority(
    said: list[SkilledLabel], threshold: int, stop_early: bool
) -> None:
    options = [label.option for label in said]
    outcomes = [
        majority_outcome(
            [options[:n].count(option) for option in (1, 2, 3)], threshold, stop_early=stop_early
        )
        for n in range(1, len(said) + 1)
    ]
    expected = next((outcome for outcome in outcomes if outcome is not None), None)
    assert replay(Majority(threshold=threshold, stop_early=stop_early), 3, said) == expected


@given(labels_of_three, st.integers(1, 3), st.integers(0, 5), st.integers(5001, 9999))
def test_a_replay_is_the_first_outcome_by_scores(
    said: list[SkilledLabel], labels_min: int, more: int, target: int
) -> None:
    bounds = {"labels_min": labels_min, "labels_max": labels_min + more, "target": target}
    outcomes = [
        weighted_outcome(
            [sum(weight(skill, 3) for o, skill in said[:n] if o == option) for option in (1, 2, 3)],
            n,
            **bounds,
        )
        for n in range(1, len(said) + 1)
    ]
    expected = next((outcome for outcome in outcomes if outcome is not None), None)
    assert replay(Weighted(**bounds), 3, said) == expected


def test_gold_that_does_not_settle_is_not_counted() -> None:
    gold = [
        (1, labels((1, 9600))),
        (2, labels((1, 9600), (2, 9900), (2, 9900))),  # wrong, by the first label
        (3, labels(*[(3, 3000)] * 6)),  # no consensus
        (1, labels((1, 8000))),  # too few labels
        (1, labels((1, 8000), (1, 8000))),
    ]
    assert estimate(WEIGHTED, 3, gold) == GoldEstimate(2, 3, *gold_interval(2, 3))
    assert estimate(WEIGHTED, 3, []) == GoldEstimate(0, 0, 0, 1)
    narrow, wide = (estimate(WEIGHTED, 3, gold, level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < 2 / 3 < narrow.high < wide.high


@pytest.mark.parametrize(
    "right, seen, low, high",
    [
        (0, 0, 0, 1),
        (0, 1, 0, 0.975),
        (1, 1, 0.025, 1),
        (0, 10, 0, 0.3085),
        (9, 10, 0.5550, 0.9975),
        (95, 100, 0.8872, 0.9836),
        (100, 100, 0.9638, 1),
        (5, 10, 0.1871, 0.8129),
    ],
)
def test_the_interval_is_that_of_the_tables(right: int, seen: int, low: float, high: float) -> None:
    assert gold_interval(right, seen) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 150), st.data())
def test_the_ends_leave_the_same_tail_on_either_side(seen: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, seen))
    level = data.draw(st.sampled_from([0.8, 0.95, 0.99]))
    low, high = gold_interval(right, seen, level)
    tail = pytest.approx((1 - level) / 2, rel=1e-6)
    assert low <= right / seen <= high
    assert (
        low == 0 if right == 0 else probability(range(right, seen + 1), seen, Fraction(low)) == tail
    )
    assert (
        high == 1 if right == seen else probability(range(right + 1), seen, Fraction(high)) == tail
    )


@given(st.integers(0, 150), st.data())
def test_right_and_wrong_are_mirrored(seen: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, seen))
    low, high = gold_interval(right, seen)
    assert gold_interval(seen - right, seen) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("seen", [5, 20, 60])
@pytest.mark.parametrize("percent", [50, 80, 91, 95, 99])
def test_it_holds_the_share_in_95_of_100_samples(seen: int, percent: int) -> None:
    share = Fraction(percent, 100)
    held = 0.0
    for right in range(seen + 1):
        low, high = gold_interval(right, seen)
        if low <= share <= high:
            held += probability(range(right, right + 1), seen, share)
    assert held >= 0.95


def test_a_hundred_thousand_gold_tasks_give_a_narrow_interval() -> None:
    low, high = gold_interval(95_000, 100_000)
    assert 0.9486 < low < 0.95 < high < 0.9514
