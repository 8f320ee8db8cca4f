"""Infer true options and the annotators' errors from each other, by expectation maximization.

Dawid and Skene (1979), "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm".
A task has a true option, which nobody sees: each is true with a *prior* probability. An annotator gives
each option with a probability that depends on the true one alone: a row of their *confusion matrix*.
The *posterior* of a task is the probability of each option, given its labels. `one_coin` is the same
with one number for each annotator, their *accuracy*, and all wrong options alike.

EM begins with each option's share of a task's votes as its posterior. An iteration counts labels by
posteriors, which gives priors and confusion matrices (M), and by those come the next posteriors (E). A
task with one label has a posterior, but is not counted: it does not say whether its annotator is right.
"""

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from blocks.domain.errors import Terminal
from blocks.domain.model import InferenceMethod
from blocks.inference.patterns import Patterns, find_patterns

SMOOTHING = 1.0
"""So many right labels, and as many spread evenly over the options, are added to each annotator's for
each true option. So nobody is taken to be sure after a few labels, and all to be rather right before."""
TOLERANCE = 1e-6
"""An iteration that changes the log-likelihood by less than this for each label is the last one."""
ITERATIONS_MAX = 100
"""So many iterations are made at most."""
_CELLS_MAX = 32_000_000


class TooLarge(Terminal):
    """The labels have too many different answers, or too many options, to be worked on at once."""

    code = "too_large_to_infer"


@dataclass(frozen=True)
class Model:
    """Say how likely true options and labels are."""

    priors: Sequence[float]
    """The probability of each option, in the order of `Patterns.options`."""
    accuracy: pl.Series
    """The probability that a label is right, of each of `Patterns.annotators`."""
    confusion: Sequence[pl.Series]
    """For each true option, the probability of each answer, given its annotator."""


@dataclass(frozen=True)
class Inference:
    """The posteriors of all tasks, and the model that gives them."""

    patterns: Patterns
    model: Model
    posteriors: Sequence[pl.Series]
    """For each option its posterior, of each pattern; together they are 1."""
    iterations: int
    log_likelihood: float
    """The log-likelihood of the labels that were counted, divided by their number."""
    has_converged: bool
    """False if the log-likelihood still changed after `iterations_max`."""

    @property
    def tasks(self) -> pl.DataFrame:
        """The most likely option of each task, and its posterior; of equal ones, the first option.

        The columns are `task_no`, `option` (UInt8, 1-based) and `posterior` (Float64).
        """
        best, place = self.posteriors[0], pl.zeros(len(self.posteriors[0]), pl.UInt32, eager=True)
        for n, posterior in enumerate(self.posteriors[1:], start=1):
            is_better = posterior > best
            place = place.zip_with(~is_better, pl.Series([n], dtype=pl.UInt32))
            best = posterior.zip_with(is_better, best)
        pattern_of = self.patterns.pattern_of
        return pl.DataFrame(
            {
                "task_no": self.patterns.task_nos,
                "option": self.patterns.options[place][pattern_of],
                "posterior": best[pattern_of],
            }
        )

    def posterior_of(self, option: int) -> pl.Series:
        """Return the posterior of an option, 1-based, for each task; 0 if nobody has chosen it."""
        place = self.patterns.options.index_of(option)
        if place is None:
            return pl.zeros(len(self.patterns.task_nos), eager=True)
        return self.posteriors[place][self.patterns.pattern_of]

    def confusion_of(self, annotator: int) -> list[list[float]]:
        """Return the confusion matrix of the annotator at a place of `Patterns.annotators`.

        A row is a true option, a column a label's; both are in the order of `Patterns.options`.
        """
        size = len(self.posteriors)
        return [row.slice(annotator * size, size).to_list() for row in self.model.confusion]


def infer(
    labels: pl.DataFrame,
    method: InferenceMethod,
    *,
    smoothing: float = SMOOTHING,
    tolerance: float = TOLERANCE,
    iterations_max: int = ITERATIONS_MAX,
) -> Inference:
    """Return the inference from labels, `patterns.LABEL_COLUMNS`, of which there has to be one.

    `smoothing` must be more than 0. The same labels give the same result, in whatever order they come.
    3 million labels for ten options take some seconds, and some hundred MB.

    Raises:
        TooLarge: labels times options, or annotators times options times options, are above 32 million;
            options that nobody has chosen and tasks with the same labels by the same annotators do not
            count.
    """
    patterns = find_patterns(labels)
    _check_size(patterns)
    posteriors = _count_votes(patterns)
    likelihood = -math.inf
    iterations = 0
    while True:
        model = _maximize(patterns, posteriors, method, smoothing)
        before = likelihood
        posteriors, likelihood = _expect(patterns, model)
        iterations += 1
        has_converged = abs(likelihood - before) < tolerance
        if has_converged or iterations == iterations_max:
            return Inference(patterns, model, posteriors, iterations, likelihood, has_converged)


def _check_size(patterns: Patterns) -> None:
    options = len(patterns.options)
    cells = max(len(patterns.answers), len(patterns.all_answers)) * options
    if cells > _CELLS_MAX:
        raise TooLarge(
            f"Labels times options, or annotators times options times options, are {cells:,}; "
            f"at most {_CELLS_MAX:,} can be inferred from."
        )


def _count_votes(patterns: Patterns) -> list[pl.Series]:
    """Return each option's share of the votes of each pattern."""
    return [
        patterns.answers_of_patterns.sum(patterns.has_option(n)) / patterns.sizes
        for n in range(len(patterns.options))
    ]


def _maximize(
    patterns: Patterns, posteriors: Sequence[pl.Series], method: InferenceMethod, smoothing: float
) -> Model:
    """Return the model that the labels are most likely by, if the posteriors are right."""
    options = len(posteriors)
    tasks = [float((posterior * patterns.weights).sum()) for posterior in posteriors]
    priors = [(n + smoothing / options) / (sum(tasks) + smoothing) for n in tasks]
    # For each true option, the labels of each answer on tasks where that is the true one.
    counts = [
        patterns.patterns_of_answers.sum(posterior * patterns.weights) for posterior in posteriors
    ]
    right = _sum([count * patterns.has_option(n) for n, count in enumerate(counts)])
    given = _by_annotator(_sum(counts), options)
    right_added = smoothing + smoothing / options
    accuracy = (_by_annotator(right, options) + right_added) / (given + 2 * smoothing)
    if method is InferenceMethod.ONE_COIN:
        return Model(priors, accuracy, _confuse_evenly(patterns, accuracy))
    confusion = [
        _share(patterns, count + smoothing * patterns.has_option(n), smoothing)
        for n, count in enumerate(counts)
    ]
    return Model(priors, accuracy, confusion)


def _share(patterns: Patterns, count: pl.Series, smoothing: float) -> pl.Series:
    """Return each answer's share of its annotator's labels."""
    options = len(patterns.options)
    given = _by_annotator(count, options) + smoothing
    return (count + smoothing / options) / given[patterns.annotator_of]


def _confuse_evenly(patterns: Patterns, accuracy: pl.Series) -> list[pl.Series]:
    """Return the probabilities of answers where all wrong options are alike."""
    options = len(patterns.options)
    right = accuracy[patterns.annotator_of]
    wrong = (1 - right) / max(options - 1, 1)
    return [wrong + (right - wrong) * patterns.has_option(n) for n in range(options)]


def _expect(patterns: Patterns, model: Model) -> tuple[list[pl.Series], float]:
    """Return the posteriors by a model, and the log-likelihood of the labels for each of them."""
    logs = [
        patterns.answers_of_patterns.sum(probability.log()) + math.log(prior)
        for probability, prior in zip(model.confusion, model.priors, strict=True)
    ]
    # Of hundreds of labels the probabilities are too small for numbers: only their ratios are not.
    top = pl.DataFrame({str(n): log for n, log in enumerate(logs)}).max_horizontal()
    for n, log in enumerate(logs):  # in place: there may be a hundred columns of a million values
        logs[n] = (log - top).exp()
    total = _sum(logs)
    for n, ratio in enumerate(logs):
        logs[n] = ratio / total
    likelihood = float(((top + total.log()) * patterns.weights).sum())
    return logs, likelihood / max(patterns.compared, 1)


def _by_annotator(column: pl.Series, options: int) -> pl.Series:
    return column.reshape((-1, options)).arr.sum()


def _sum(parts: Sequence[pl.Series]) -> pl.Series:
    return functools.reduce(operator.add, parts)
