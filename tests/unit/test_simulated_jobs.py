"""The simulation of benchmarks/quality.py: its figures are those that can be computed where they can be."""

import math

import pytest

from benchmarks.simulated_jobs import Crowd, Plan, simulate
from blocks.domain.gold import Majority, Rule, Weighted, replay

MAJORITY, EARLY = Majority(threshold=3), Majority(threshold=3, stop_early=True)
WEIGHTED = Weighted(target=9500)
SKILLED = Crowd((0.6, 0.7, 0.8, 0.9, 0.98) * 2)


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.9, 1.0])
def test_a_crowd_by_majority_is_right_as_often_as_the_binomial_says(accuracy: float) -> None:
    tasks = 4_000
    wrong = 1 - accuracy
    right = accuracy**3 + 3 * accuracy**2 * wrong
    labels = 2 * (accuracy**2 + wrong**2) + 3 * (2 * accuracy * wrong)
    whole, early = (
        simulate(Plan(rule=rule, options=2, tasks=tasks), Crowd((accuracy,) * 5), seed=7)
        for rule in (MAJORITY, EARLY)
    )
    spread = 4 / math.sqrt(tasks)
    for found in (whole, early):
        assert found.settled == found.tasks == tasks
        assert found.accuracy == pytest.approx(right, abs=spread / 2)
    assert whole.labels == 3 * tasks
    assert early.labels / tasks == pytest.approx(labels, abs=spread / 2)


@pytest.mark.parametrize("rule", [MAJORITY, EARLY, WEIGHTED], ids=["majority", "early", "weighted"])
@pytest.mark.parametrize(
    "gold", [{"gold_before": 20}, {"gold": 30}, {}], ids=["before", "in", "none"]
)
def test_every_task_ends_and_is_counted_once(rule: Rule, gold: dict[str, int]) -> None:
    found = simulate(Plan(rule=rule, options=3, tasks=300, **gold), SKILLED, seed=1)
    assert found.tasks == 300 >= found.settled >= found.settled_right > 200
    assert found.best_right >= found.settled_right
    assert 300 <= found.labels <= 6 * 300
    assert found == simulate(Plan(rule=rule, options=3, tasks=300, **gold), SKILLED, seed=1)
    assert found != simulate(Plan(rule=rule, options=3, tasks=300, **gold), SKILLED, seed=2)


def test_gold_is_a_tenth_and_comes_early() -> None:
    found = simulate(Plan(rule=MAJORITY, options=3, tasks=2_000, gold=100), SKILLED, seed=1)
    labels = [label for _, labels in found.gold for label in labels]
    assert len(labels) / (len(labels) + found.labels) == pytest.approx(0.1, abs=0.02)
    few = simulate(Plan(rule=MAJORITY, options=3, tasks=30, gold=100), SKILLED, seed=1)
    assert 30 <= sum(len(labels) for _, labels in few.gold) <= 60  # some five of each annotator
    assert {label.skill for label in labels} > {5000, 7500, 2500}
    assert all(
        replay(MAJORITY, 3, labels) is not None for _, labels in found.gold if len(labels) > 5
    )


def test_constant_annotators_always_give_the_first_option() -> None:
    constant = Crowd((1.0,) * 3, constant=3)
    found = simulate(Plan(rule=MAJORITY, options=4, tasks=4_000), constant, seed=3)
    assert found.accuracy == pytest.approx(0.25, abs=0.03)
    skilled = simulate(
        Plan(rule=WEIGHTED, options=4, tasks=4_000, gold_before=20), Crowd((1.0,) * 6, 3), seed=3
    )
    assert skilled.accuracy > 0.9  # gold finds them out
