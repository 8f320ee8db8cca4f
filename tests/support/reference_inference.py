"""Expectation maximization as its formulas read, a label at a time: slow, and held against ours."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from blocks.domain.model import InferenceMethod
from blocks.inference.patterns import LABEL_COLUMNS

Said = tuple[int, int, int]
"""A label: task, annotator, option."""


def frame(labels: Sequence[Said]) -> pl.DataFrame:
    """The labels as the inference takes them."""
    return pl.DataFrame(labels, schema=LABEL_COLUMNS, orient="row")


@dataclass
class Reference:
    """What so many iterations come to, by task, annotator and option."""

    labels: Sequence[Said]
    method: InferenceMethod
    smoothing: float
    posteriors: dict[int, dict[int, float]] = field(default_factory=dict)
    priors: dict[int, float] = field(default_factory=dict)
    accuracy: dict[int, float] = field(default_factory=dict)
    confusion: dict[tuple[int, int, int], float] = field(default_factory=dict)
    """By annotator, true option, and option that they choose."""
    log_likelihoods: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tasks, self.annotators, self.options = (
            sorted({label[n] for label in self.labels}) for n in range(3)
        )
        votes = {task: Counter(o for t, _, o in self.labels if t == task) for task in self.tasks}
        self.compared = [task for task in self.tasks if votes[task].total() > 1]
        self.posteriors = {
            task: {option: votes[task][option] / votes[task].total() for option in self.options}
            for task in self.tasks
        }

    def iterate(self, times: int) -> "Reference":
        for _ in range(times):
            self._maximize()
            self._expect()
        return self

    def _maximize(self) -> None:
        size, more = len(self.options), self.smoothing
        for true in self.options:
            mass = sum(self.posteriors[task][true] for task in self.compared)
            self.priors[true] = (mass + more / size) / (len(self.compared) + more)
        for annotator in self.annotators:
            theirs = [(t, o) for t, a, o in self.labels if a == annotator and t in self.compared]
            right = sum(self.posteriors[task][option] for task, option in theirs)
            self.accuracy[annotator] = (right + more + more / size) / (len(theirs) + 2 * more)
            for true in self.options:
                of_true = sum(self.posteriors[task][true] for task, _ in theirs)
                for option in self.options:
                    count = sum(self.posteriors[t][true] for t, said in theirs if said == option)
                    added = more / size + (more if option == true else 0)
                    chance = (count + added) / (of_true + 2 * more)
                    if self.method is InferenceMethod.ONE_COIN:
                        accuracy = self.accuracy[annotator]
                        chance = accuracy if option == true else (1 - accuracy) / (size - 1)
                    self.confusion[annotator, true, option] = chance

    def _expect(self) -> None:
        likelihood = 0.0
        for task in self.tasks:
            logs = {
                true: math.log(self.priors[true])
                + sum(math.log(self.confusion[a, true, o]) for t, a, o in self.labels if t == task)
                for true in self.options
            }
            top = max(logs.values())
            total = sum(math.exp(log - top) for log in logs.values())
            likelihood += (top + math.log(total)) * (task in self.compared)
            self.posteriors[task] = {
                true: math.exp(log - top) / total for true, log in logs.items()
            }
        self.log_likelihoods.append(likelihood)
