"""Simulate how a crowd labels a job, one label after the other, and what the rules make of it.

The rules are the product's own, `blocks.domain`; only the crowd and the order of events are made up.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from blocks.domain.consensus import agreement_skill, gold_skill
from blocks.domain.gold import Rule, SkilledLabel, expected_gold

_IN_FLIGHT = 20  # tasks that are open at the same time
_GOLD_SHARE = 0.1


@dataclass(frozen=True)
class Crowd:
    """Annotators by how often they are right; the first `constant` of them always give option 1."""

    accuracies: Sequence[float]
    constant: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Say what is simulated: so many tasks of a job, by which rule, and where skills come from."""

    rule: Rule
    options: int
    tasks: int
    gold_before: int = 0
    """Gold tasks that each annotator has labelled in an earlier job."""
    gold: int = 0
    """Gold tasks in this one. Without either kind, skills come from agreement."""


@dataclass
class Outcomes:
    """Count a job's tasks, without gold."""

    tasks: int = 0
    labels: int = 0
    settled: int = 0
    settled_right: int = 0
    best_right: int = 0
    """Tasks whose option with the highest score is the true one, settled or not."""
    gold: list[tuple[int, list[SkilledLabel]]] = field(default_factory=list)
    """Of each gold task the true option, 1-based, and its labels in the order in which they came."""

    @property
    def accuracy(self) -> float:
        """Return the share of settled tasks that are right; 0 where none has settled."""
        return self.settled_right / max(self.settled, 1)


def simulate(plan: Plan, crowd: Crowd, seed: int) -> Outcomes:
    """Label a job until every task has ended, by annotators who come at random."""
    return _Job(plan, crowd, seed).run()


@dataclass(eq=False)
class _Annotator:
    """Hold how one annotator errs, and what the service has counted of them."""

    number: int
    accuracy: float
    is_constant: bool
    skill: int = 0
    gold_right: int = 0
    gold_seen: int = 0
    agreed: int = 0
    compared: int = 0
    given: int = 0
    gold_left: list[int] = field(default_factory=list)
    """The gold tasks that they have not labelled, by number."""

    def answer(self, truth: int, options: int, dice: random.Random) -> int:
        """Return an option; half of the wrong answers are the option after the true one."""
        if self.is_constant:
            return 1
        if dice.random() < self.accuracy:
            return truth
        is_near = dice.random() < 0.5
        return (truth - 1 + (1 if is_near else 1 + _below(options - 1, dice))) % options + 1

    def count_gold(self, *, is_right: bool) -> None:
        self.gold_seen += 1
        self.gold_right += is_right
        self.skill = gold_skill(self.gold_right, self.gold_seen)

    def compare(self, *, has_agreed: bool) -> None:
        self.compared += 1
        self.agreed += has_agreed
        self.skill = agreement_skill(self.agreed, self.compared)


@dataclass(eq=False)
class _Task:
    truth: int
    scores: list[int]
    options: dict[int, int] = field(default_factory=dict)
    """The option that each annotator gave, by their number."""


class _Job:
    def __init__(self, plan: Plan, crowd: Crowd, seed: int) -> None:
        self._plan = plan
        self._dice = random.Random(seed)
        self._has_gold = plan.gold > 0 or plan.gold_before > 0
        self._annotators = [
            _Annotator(n, accuracy, n < crowd.constant)
            for n, accuracy in enumerate(crowd.accuracies)
        ]
        self._open: list[_Task] = []
        self._weights: dict[int, int] = {}
        self._found = Outcomes(gold=[(self._draw_truth(), []) for _ in range(plan.gold)])

    def run(self) -> Outcomes:
        self._prepare()
        left = self._plan.tasks
        while left or self._open:
            while left and len(self._open) < _IN_FLIGHT:
                self._open.append(_Task(self._draw_truth(), [0] * self._plan.options))
                left -= 1
            annotator = self._annotators[_below(len(self._annotators), self._dice)]
            place = _below(len(self._open), self._dice)
            if annotator.number in self._open[place].options:
                continue
            annotator.given += 1
            if annotator.gold_left and self._is_gold_due(annotator):
                self._label_gold(annotator)
            elif self._label(annotator, self._open[place]):
                self._open[place] = self._open[-1]
                self._open.pop()
        return self._found

    def _prepare(self) -> None:
        """Give each annotator the skill that they begin with, and their own order of gold tasks."""
        for annotator in self._annotators:
            annotator.skill = gold_skill(0, 0) if self._has_gold else agreement_skill(0, 0)
            for _ in range(self._plan.gold_before):
                truth = self._draw_truth()
                option = annotator.answer(truth, self._plan.options, self._dice)
                annotator.count_gold(is_right=option == truth)
            annotator.gold_left = list(range(self._plan.gold))
            self._dice.shuffle(annotator.gold_left)

    def _is_gold_due(self, annotator: _Annotator) -> bool:
        """Return whether the annotator's next task is gold: every other one at first, then a share."""
        due = expected_gold(annotator.given, _GOLD_SHARE)
        had = self._plan.gold - len(annotator.gold_left)
        return int(due + self._dice.random()) > had

    def _label_gold(self, annotator: _Annotator) -> None:
        number = annotator.gold_left.pop()
        truth, labels = self._found.gold[number]
        option = annotator.answer(truth, self._plan.options, self._dice)
        labels.append(SkilledLabel(option, annotator.skill))
        annotator.count_gold(is_right=option == truth)

    def _label(self, annotator: _Annotator, task: _Task) -> bool:
        """Add a label to a task, and return whether that ends it."""
        rule = self._plan.rule
        option = annotator.answer(task.truth, self._plan.options, self._dice)
        task.options[annotator.number] = option
        task.scores[option - 1] += self._weigh(annotator.skill)
        outcome = rule.outcome(task.scores, len(task.options))
        if outcome is not None:
            self._end(task, outcome)
        return outcome is not None

    def _weigh(self, skill: int) -> int:
        if skill not in self._weights:
            self._weights[skill] = self._plan.rule.weigh(skill, self._plan.options)
        return self._weights[skill]

    def _end(self, task: _Task, outcome: int) -> None:
        found = self._found
        found.tasks += 1
        found.labels += len(task.options)
        found.best_right += task.scores.index(max(task.scores)) + 1 == task.truth
        found.settled += outcome > 0
        found.settled_right += outcome == task.truth
        if outcome and not self._has_gold:
            for number, option in task.options.items():
                self._annotators[number].compare(has_agreed=option == outcome)

    def _draw_truth(self) -> int:
        return 1 + _below(self._plan.options, self._dice)


def _below(count: int, dice: random.Random) -> int:
    return int(dice.random() * count)
