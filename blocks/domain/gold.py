"""Estimate how often a job's results are right, by its gold tasks. Pure; see docs/consensus.md.

No label settles a gold task. All the same its labels say what its result would have been: `replay`
applies the job's rule to them in the order in which they came, each with the skill that its annotator
had then. As with any other task, such a skill knows nothing of this task, nor of later ones.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blocks.domain.consensus import majority_outcome, weight, weighted_outcome

_EARLY = 5  # gold tasks, of an annotator's first ones
_BISECTIONS = 50  # of 0 to 1: more would not change a double
_NEGLIGIBLE = 1e-17


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Settle tasks by `consensus.majority_outcome`: scores are votes."""

    threshold: int
    stop_early: bool = False

    def weigh(self, skill: int, options: int) -> int:  # noqa: ARG002 - all labels count alike
        """Return what a label adds to the score of its option."""
        return 1

    def outcome(self, scores: Sequence[int], labels: int) -> int | None:  # noqa: ARG002 - their sum
        """Return the option, 1-based, that a task settles on; 0 for none, None while open."""
        return majority_outcome(scores, self.threshold, stop_early=self.stop_early)


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Settle tasks by `consensus.weighted_outcome`; `target` is in ten-thousandths."""

    target: int
    labels_min: int = 1
    labels_max: int = 6

    def weigh(self, skill: int, options: int) -> int:
        """Return what a label adds to the score of its option, in millionths of a nat."""
        return weight(skill, options)

    def outcome(self, scores: Sequence[int], labels: int) -> int | None:
        """Return the option, 1-based, that a task settles on; 0 for none, None while open."""
        return weighted_outcome(
            scores,
            labels,
            labels_min=self.labels_min,
            labels_max=self.labels_max,
            target=self.target,
        )


Rule = Majority | Weighted


class SkilledLabel(NamedTuple):
    """A label of a task."""

    option: int
    """1-based."""
    skill: int
    """The annotator's when they gave it, in ten-thousandths; a majority does not look at it."""


class GoldEstimate(NamedTuple):
    """What gold tasks say of a job's results."""

    right: int
    seen: int
    """The gold tasks that would have settled by their labels."""
    low: float
    high: float
    """The ends of the interval of the share of settled tasks that are right."""


def expected_gold(tasks: int, share: float) -> float:
    """Return how much gold an annotator is to have among their first `tasks` of a job, on average.

    The first few come early, every other time, and the others at the job's `share`, 0 to 1.
    """
    return min(tasks / 2, _EARLY) + max(tasks - 2 * _EARLY, 0) * share


def replay(rule: Rule, options: int, labels: Iterable[SkilledLabel]) -> int | None:
    """Return the outcome of a task by its labels, in their order; None if they are too few.

    Labels after the one that decides are not looked at.
    """
    scores = [0] * options
    for number, (option, skill) in enumerate(labels, start=1):
        scores[option - 1] += rule.weigh(skill, options)
        outcome = rule.outcome(scores, number)
        if outcome is not None:
            return outcome
    return None


def estimate(
    rule: Rule,
    options: int,
    gold: Iterable[tuple[int, Iterable[SkilledLabel]]],
    level: float = 0.95,
) -> GoldEstimate:
    """Return how many gold tasks come to their true option, of those that settle, and the interval.

    `gold` has the true option, 1-based, and the labels of each gold task, in their order.
    """
    outcomes = [(truth, replay(rule, options, labels)) for truth, labels in gold]
    seen = sum(bool(outcome) for _, outcome in outcomes)
    right = sum(outcome == truth for truth, outcome in outcomes)
    return GoldEstimate(right, seen, *gold_interval(right, seen, level))


def gold_interval(right: int, seen: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval, low to high, of the share of which `right` of `seen` were drawn.

    It is the exact one of Clopper and Pearson (1934): it holds the share with a probability of at least
    `level`, whatever the share is. Of nothing seen it is 0 to 1.
    """
    tail = (1 - level) / 2
    return _lowest(right, seen, tail), 1 - _lowest(seen - right, seen, tail)


def _lowest(count: int, trials: int, tail: float) -> float:
    """Return the share at which `count` or more of `trials` succeed with a probability of `tail`."""
    if count == 0:
        return 0.0
    low, high = 0.0, count / trials  # at the latter the probability is a half or more
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _at_least(count, trials, middle) < tail:
            low = middle
        else:
            high = middle
    return low


def _at_least(count: int, trials: int, share: float) -> float:
    """Return the probability that `count` or more succeed, for a share of less than count / trials."""
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    term = math.exp(ways + count * math.log(share) + (trials - count) * math.log1p(-share))
    total = term
    for n in range(count, trials):  # each term is less than the one before
        term *= (trials - n) / (n + 1) * share / (1 - share)
        total += term
        if term <= total * _NEGLIGIBLE:
            break
    return total
