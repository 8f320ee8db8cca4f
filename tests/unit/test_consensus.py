"""The rules of consensus: the majority by the contract, the weighted one by exact fractions."""

import decimal
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.domain.consensus import (
    ALL,
    SKILL_MAX,
    agreement_skill,
    confidence,
    gold_skill,
    majority_outcome,
    weight,
    weighted_outcome,
)

skills = st.integers(0, SKILL_MAX)
# The number of options, and labels of it: the annotator's skill and the option, 0-based.
ballots = st.integers(2, 12).flatmap(
    lambda options: st.tuples(
        st.just(options), st.lists(st.tuples(skills, st.integers(0, options - 1)), max_size=8)
    )
)
Labels = Sequence[tuple[int, int]]


def scores_of(options: int, labels: Labels) -> list[int]:
    scores = [0] * options
    for skill, option in labels:
        scores[option] += weight(skill, options)
    return scores


def posteriors(options: int, labels: Labels) -> list[Fraction]:
    """Bayes' rule in fractions: right with p, else each wrong option alike; below chance tells nothing."""
    odds = [Fraction(1)] * options
    for skill, option in labels:
        if skill * options > ALL:
            odds[option] *= Fraction(skill * (options - 1), ALL - skill)
    return [each / sum(odds) for each in odds]


@pytest.mark.parametrize(
    "right, seen, skill",
    [
        (0, 0, 5000),
        (1, 1, 7500),
        (0, 1, 2500),
        (16, 20, 7857),
        (20, 20, 9762),
        (0, 15, 313),  # 312.5: a half is rounded upwards
        (49, 49, 9900),
        (100, 100, 9900),  # 9950
    ],
)
def test_skill_by_gold(right: int, seen: int, skill: int) -> None:
    assert gold_skill(right, seen) == skill


@pytest.mark.parametrize(
    "agreed, compared, skill",
    [
        (0, 0, 8000),
        (4, 4, 9000),
        (0, 4, 4000),
        (1, 28, 1313),  # 1312.5
        (96, 96, 9900),  # 9920
    ],
)
def test_skill_by_agreement(agreed: int, compared: int, skill: int) -> None:
    assert agreement_skill(agreed, compared) == skill


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_skill_is_the_rounded_fraction(right: int, wrong: int) -> None:
    seen = right + wrong
    by_gold = Fraction(ALL * (2 * right + 1), 2 * (seen + 1))
    by_agreement = Fraction(ALL * (16 + 5 * right), 5 * (seen + 4))
    assert gold_skill(right, seen) == min(math.floor(by_gold + Fraction(1, 2)), SKILL_MAX)
    assert agreement_skill(right, seen) == min(math.floor(by_agreement + Fraction(1, 2)), SKILL_MAX)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_right_answer_raises_a_skill_and_a_wrong_one_lowers_it(right: int, wrong: int) -> None:
    for skill in (gold_skill, agreement_skill):
        now = skill(right, right + wrong)
        assert skill(right, right + wrong + 1) <= now <= skill(right + 1, right + wrong + 1)


@pytest.mark.parametrize("options", [2, 3, 10, 100])
def test_a_weight_is_the_rounded_logarithm(options: int) -> None:
    with decimal.localcontext(prec=25):
        for skill in range(ALL // options + 1, SKILL_MAX + 1, 37):
            odds = decimal.Decimal(skill * (options - 1)) / (ALL - skill)
            exact = (odds.ln() * 1_000_000).to_integral_value(decimal.ROUND_HALF_UP)
            assert weight(skill, options) == exact


@pytest.mark.parametrize("options", [2, 3, 7, 10, 100])
def test_a_weight_grows_with_skill_from_0_at_chance(options: int) -> None:
    weights = [weight(skill, options) for skill in range(SKILL_MAX + 1)]
    chance = ALL // options
    assert set(weights[: chance + 1]) == {0}
    assert all(less < more for less, more in itertools.pairwise(weights[chance:]))


@pytest.mark.parametrize(
    "options, labels, best",
    [
        (2, [], Fraction(1, 2)),
        (4, [], Fraction(1, 4)),
        (2, [(5000, 0)], Fraction(1, 2)),
        (4, [(1000, 0)], Fraction(1, 4)),
        (2, [(9900, 0)], Fraction(99, 100)),
        (2, [(8000, 0)], Fraction(4, 5)),
        (2, [(8000, 0), (8000, 0)], Fraction(16, 17)),
        (2, [(8000, 0), (8000, 1)], Fraction(1, 2)),
        (2, [(9000, 0), (6000, 1)], Fraction(6, 7)),  # 9 to 3/2
        (3, [(8000, 0)], Fraction(8, 10)),
        (3, [(8000, 0), (8000, 0)], Fraction(64, 66)),
        (3, [(8000, 0), (8000, 1)], Fraction(8, 17)),
        (3, [(8000, 2), (8000, 2), (8000, 1)], Fraction(64, 73)),
        (10, [(9000, 0)], Fraction(81, 90)),
        (10, [(9000, 3), (9000, 3), (1000, 4)], Fraction(6561, 6570)),
    ],
)
def test_confidence_by_hand(options: int, labels: Labels, best: Fraction) -> None:
    assert max(posteriors(options, labels)) == best
    assert confidence(scores_of(options, labels)) == math.floor(ALL * best + Fraction(1, 2))


@given(ballots)
def test_confidence_is_the_highest_of_posteriors_that_sum_to_1(ballot: tuple[int, Labels]) -> None:
    exact = posteriors(*ballot)
    assert sum(exact) == 1
    # Half a ten-thousandth of rounding, and half a millionth of a nat for each label.
    assert abs(confidence(scores_of(*ballot)) - ALL * max(exact)) <= 0.5 + len(ballot[1]) * 0.005


@given(st.integers(2, 100), skills)
def test_one_label_has_the_confidence_of_its_skill(options: int, skill: int) -> None:
    chance = math.floor(Fraction(ALL, options) + Fraction(1, 2))
    assert confidence(scores_of(options, [(skill, 0)])) == max(skill, chance)


@given(ballots, st.randoms(), st.integers(0, 10**7))
def test_neither_the_order_of_labels_nor_that_of_options_matters(
    ballot: tuple[int, Labels], dice: object, more: int
) -> None:
    options, labels = ballot
    scores = scores_of(options, labels)
    for turned in (labels[::-1], sorted(labels)):
        assert scores_of(options, turned) == scores
    for turned_scores in (scores[::-1], sorted(scores), [score + more for score in scores]):
        assert confidence(turned_scores) == confidence(scores)


@given(ballots, st.data())
def test_a_label_for_the_best_option_never_lowers_its_confidence(
    ballot: tuple[int, Labels], data: st.DataObject
) -> None:
    options, labels = ballot
    scores = scores_of(options, labels)
    best = scores.index(max(scores))
    before = confidence(scores)
    assert confidence(scores_of(options, [*labels, (data.draw(skills), best)])) >= before


@pytest.mark.parametrize(
    "scores, labels, labels_min, labels_max, target, outcome",
    [
        ([0, 0], 0, 1, 6, 9500, None),
        ([0, 3_000_000], 1, 1, 6, 9500, 2),  # 0.9526
        ([0, 3_000_000], 1, 2, 6, 9500, None),  # one label too few
        ([0, 2_900_000], 1, 1, 6, 9500, None),  # 0.9478
        ([0, 2_900_000], 5, 1, 6, 9500, None),
        ([0, 2_900_000], 6, 1, 6, 9500, 0),
        ([3_000_000, 0], 6, 1, 6, 9500, 1),  # the last label may still decide
        ([3_000_000, 0, 0], 6, 1, 6, 9500, 0),  # 0.9094
        ([4_000_000, 4_000_000], 6, 1, 6, 5001, 0),
        ([2_944_439, 0], 1, 1, 6, 9500, 1),  # 0.95 itself
        ([0, 0], 1, 1, 1, 9500, 0),
    ],
)
def test_a_task_settles_goes_on_or_ends(
    scores: list[int],
    labels: int,
    labels_min: int,
    labels_max: int,
    target: int,
    outcome: int | None,
) -> None:
    found = weighted_outcome(
        scores, labels, labels_min=labels_min, labels_max=labels_max, target=target
    )
    assert found == outcome


@given(ballots, st.integers(1, 8), st.integers(0, 4), st.integers(5001, SKILL_MAX))
def test_a_task_settles_on_the_one_best_option_within_its_bounds(
    ballot: tuple[int, Labels], labels_min: int, more: int, target: int
) -> None:
    options, labels = ballot
    scores, labels_max = scores_of(options, labels), labels_min + more
    outcome = weighted_outcome(
        scores, len(labels), labels_min=labels_min, labels_max=labels_max, target=target
    )
    if outcome:
        assert len(labels) >= labels_min
        assert confidence(scores) >= target
        assert [n for n, score in enumerate(scores, 1) if score == max(scores)] == [outcome]
    else:
        assert len(labels) < labels_min or confidence(scores) < target
        assert (outcome == 0) == (len(labels) >= labels_max)


@pytest.mark.parametrize(
    "threshold, votes, outcome",
    [
        (1, [0, 1], 2),
        (2, [1, 0], None),
        (2, [2, 0], 1),
        (2, [1, 1], None),
        (2, [1, 2], 2),
        (2, [2, 2], 0),
        (3, [2, 0], None),  # two agree, but the third has not been asked
        (3, [2, 1], 1),
        (3, [1, 2], 2),
        (3, [3, 0], 1),
        (3, [1, 1, 1], None),
        (3, [1, 2, 1], 2),
        (3, [2, 2, 1], None),
        (4, [2, 2], None),
        (4, [2, 1, 1], None),  # 4 needs 3
        (4, [3, 1], 1),
        (5, [2, 2, 1], None),
        (5, [0, 2, 3], 3),
        (5, [4, 0], None),
        (5, [3, 3, 0], None),
        (5, [3, 3, 4], 3),
        (7, [4, 2], None),
        (7, [4, 3], 1),
        (7, [3, 2, 2], None),
        (7, [1, 3, 4], 3),
        (10, [5, 5], None),
        (10, [6, 4], 1),
        (10, [5, 3, 2], None),
    ],
)
def test_a_task_settles_by_the_rule_of_the_contract(
    threshold: int, votes: list[int], outcome: int | None
) -> None:
    assert majority_outcome(votes, threshold) == outcome


@pytest.mark.parametrize(
    "threshold, needed",
    [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5), (9, 5), (10, 6)],
)
def test_as_many_have_to_agree_as_the_contract_says(threshold: int, needed: int) -> None:
    others = [1] * (threshold - needed)
    assert majority_outcome([needed, *others], threshold) == 1
    assert majority_outcome([needed - 1, 1, *others], threshold) != 1


@pytest.mark.parametrize(
    "threshold, votes, outcome",
    [
        (1, [0, 1], 2),
        (2, [1, 0], None),
        (2, [2, 0], 1),
        (3, [2, 0], 1),
        (3, [1, 1], None),
        (5, [3, 1], 1),
        (5, [2, 1], None),
        (7, [0, 4], 2),
        (3, [2, 2], None),
    ],
)
def test_stop_early_does_not_wait_for_labels_that_cannot_matter(
    threshold: int, votes: list[int], outcome: int | None
) -> None:
    assert majority_outcome(votes, threshold, stop_early=True) == outcome


@settings(max_examples=500)
@given(st.integers(1, 10), st.data())
def test_stop_early_never_changes_the_winner_at_the_threshold(
    threshold: int, data: st.DataObject
) -> None:
    options = data.draw(st.integers(2, 4))
    # Few different options, weighted to the first, so that most draws have an early winner.
    ballot = st.sampled_from([0] * 4 + list(range(options)))
    labels = data.draw(st.lists(ballot, min_size=threshold, max_size=threshold))
    full = majority_outcome([labels.count(option) for option in range(options)], threshold)
    for asked in range(threshold + 1):
        early = majority_outcome(
            [labels[:asked].count(option) for option in range(options)], threshold, stop_early=True
        )
        assert early is None or early == full


def contract(votes: Sequence[int], threshold: int) -> int | None:
    """The rule of the contract, sentence by sentence."""
    labels = sum(votes)
    if labels >= threshold:
        for option, count in enumerate(votes, start=1):
            others = [*votes[: option - 1], *votes[option:]]
            if count >= math.floor(threshold / 2) + 1 and all(count > other for other in others):
                return option
    return 0 if labels >= 2 * threshold else None


@pytest.mark.parametrize("threshold", range(1, 11))
def test_the_majority_is_that_of_the_contract(threshold: int) -> None:
    for options in (2, 3):
        for votes in itertools.product(range(threshold + 3), repeat=options):
            assert majority_outcome(votes, threshold) == contract(votes, threshold), votes
