"""The rules of consensus: how votes become the result of a task. Pure; see docs/consensus.md.

The schema has them once more, as functions of PostgreSQL for the statement that takes labels, and tests
hold the two together. What is compared is whole numbers, so that sums do not depend on their order:
skills and confidence are ten-thousandths, weights and scores millionths of a nat.
"""

import math
from collections.abc import Sequence

SKILL_MAX = 9900
"""The greatest skill, in ten-thousandths: nobody is taken to be always right."""
ALL = 10_000

NAT = 1_000_000
"""A nat, in the unit of weights and scores."""
# With no gold in a job, annotators are taken to be right in 8 of 10, as if 4 labels had shown it.
_START_COMPARED, _START_AGREED_TENTHS = 4, 32


def gold_skill(right: int, seen: int) -> int:
    """Return the skill of who was right so often on the gold tasks seen: (0.5 + right) / (1 + seen)."""
    return min(_divide(ALL * (2 * right + 1), 2 * (1 + seen)), SKILL_MAX)


def agreement_skill(agreed: int, compared: int) -> int:
    """Return the skill where there is no gold: (3.2 + agreed) / (4 + compared).

    `compared` counts the annotator's labels on settled tasks, `agreed` those that the tasks settled on.
    """
    tenths = _START_AGREED_TENTHS + 10 * agreed
    return min(_divide(ALL * tenths, 10 * (_START_COMPARED + compared)), SKILL_MAX)


def weight(skill: int, options: int) -> int:
    """Return what a label of an annotator of such a `skill` adds to the score of its option.

    It is ln(p (K - 1) / (1 - p)), the log-likelihood ratio of the one-coin model, and 0 where that is
    less: who is no better than chance tells nothing.
    """
    if skill * options <= ALL:
        return 0
    return math.floor(NAT * math.log(skill * (options - 1) / (ALL - skill)) + 0.5)


def confidence(scores: Sequence[int]) -> int:
    """Return the posterior of the option with the highest score, every option being as likely before."""
    return confidence_of(scores, scores.index(max(scores)) + 1)


def confidence_of(scores: Sequence[int], option: int) -> int:
    """Return the posterior of an option, 1-based: a reviewer may decide on an unlikely one."""
    best = max(scores)
    total = math.fsum(math.exp((score - best) / NAT) for score in scores)
    return math.floor(ALL * math.exp((scores[option - 1] - best) / NAT) / total + 0.5)


def weighted_outcome(
    scores: Sequence[int], labels: int, *, labels_min: int, labels_max: int, target: int
) -> int | None:
    """Return the option, 1-based, that a task settles on by its scores; 0 for none, None while open.

    It settles once it has `labels_min` labels and its best option a confidence of `target`
    ten-thousandths, which are more than 5,000; without that, it ends at `labels_max`.
    """
    if labels >= labels_min and confidence(scores) >= target:
        return scores.index(max(scores)) + 1
    return 0 if labels >= labels_max else None


def majority_outcome(
    votes: Sequence[int], threshold: int, *, stop_early: bool = False
) -> int | None:
    """Return the option, 1-based, that a task settles on by its votes; 0 for none, None while open.

    It takes `threshold` labels, and one option with more than half of so many and more than any other.
    With `stop_early` a task does not wait for the rest, once an option cannot be overtaken. Without a
    winner it ends at twice the threshold.
    """
    top, labels = max(votes), sum(votes)
    enough = stop_early or labels >= threshold
    if enough and top >= threshold // 2 + 1 and list(votes).count(top) == 1:
        return votes.index(top) + 1
    return 0 if labels >= 2 * threshold else None


def _divide(number: int, by: int) -> int:
    """Return the quotient of whole numbers that are not negative, rounded, a half upwards."""
    return (2 * number + by) // (2 * by)
