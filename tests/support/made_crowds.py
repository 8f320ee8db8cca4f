"""Crowds that are made up: annotators with known errors, who label tasks of known options."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.reference_inference import Said


@dataclass(frozen=True)
class MadeCrowd:
    """The labels, the true option of each task, and the accuracy of each annotator; all from 1 on."""

    labels: list[Said]
    truth: list[int]
    skills: Sequence[float]

    def accuracy_of(self, options: Sequence[int]) -> float:
        """The share of tasks whose option is right."""
        return sum(map(int.__eq__, options, self.truth)) / len(self.truth)


def make_crowd(
    seed: str, skills: Sequence[float], *, tasks: int, options: int, each: int
) -> MadeCrowd:
    """A crowd whose tasks have `each` labels; who errs prefers the option that follows the true one."""
    rng = random.Random(seed)
    truth = [rng.randint(1, options) for _ in range(tasks)]
    labels = []
    for task, true in enumerate(truth, start=1):
        for annotator in rng.sample(range(1, len(skills) + 1), each):
            others = [n for n in range(1, options + 1) if n != true]
            near = true % options + 1
            wrong = near if rng.random() < 0.5 else rng.choice(others)
            right = rng.random() < skills[annotator - 1]
            labels.append((task, annotator, true if right else wrong))
    return MadeCrowd(labels, truth, skills)
