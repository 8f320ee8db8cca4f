"""True options by labels: by the formulas, whatever the labels are, and better than the majority."""

import math
import random
from collections import Counter
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.model import InferenceMethod
from blocks.inference import dawid_skene
from blocks.inference.changes import find_changes
from blocks.inference.dawid_skene import Inference, TooLarge, infer
from blocks.inference.index_lists import IndexLists
from tests.support.made_crowds import MadeCrowd, make_crowd
from tests.support.reference_inference import Reference, Said, frame

METHODS = list(InferenceMethod)
methods = pytest.mark.parametrize("method", METHODS)

# At most one label of an annotator for a task, few of each, so that patterns repeat.
some_labels = st.dictionaries(
    st.tuples(st.sampled_from([1, 2, 3, 5, 8, 2**40]), st.sampled_from([1, 4, 9, 2**31])),
    st.sampled_from([1, 2, 7, 100]),
    min_size=1,
).map(lambda said: [(task, annotator, option) for (task, annotator), option in said.items()])


def posteriors(found: Inference) -> dict[int, dict[int, float]]:
    """By task and option."""
    by_option = {n: found.posterior_of(n) for n in found.patterns.options}
    return {
        task: {n: column[row] for n, column in by_option.items()}
        for row, task in enumerate(found.patterns.task_nos)
    }


def flat(by_task: dict[int, dict[int, float]]) -> list[float]:
    return [by_task[task][option] for task in sorted(by_task) for option in sorted(by_task[task])]


def mixed_crowd(options: int = 3) -> MadeCrowd:
    rng = random.Random(options)
    skills = [rng.uniform(0.55, 0.98) for _ in range(20)]
    return make_crowd("mixed", skills, tasks=1500, options=options, each=3)


def majority(labels: list[Said], tasks: int) -> list[int]:
    """The option with the most votes of each task; of equal ones, the first."""
    votes: dict[int, Counter[int]] = {task: Counter() for task in range(1, tasks + 1)}
    for task, _, option in labels:
        votes[task][option] += 1
    return [min(counts, key=lambda n: (-counts[n], n)) for counts in votes.values()]


@methods
@given(some_labels, st.integers(1, 4), st.sampled_from([0.01, 1.0, 3.0]))
def test_whatever_the_labels_are_it_computes_what_the_formulas_say(
    method: InferenceMethod, labels: list[Said], iterations: int, smoothing: float
) -> None:
    found = infer(
        frame(labels), method, smoothing=smoothing, tolerance=0, iterations_max=iterations
    )
    reference = Reference(labels, method, smoothing).iterate(iterations)
    options = list(found.patterns.options)
    assert (options, list(found.patterns.annotators)) == (reference.options, reference.annotators)
    assert list(found.patterns.task_nos) == reference.tasks
    assert (found.patterns.tasks * found.patterns.sizes).sum() == len(labels)
    assert flat(posteriors(found)) == pytest.approx(flat(reference.posteriors), abs=1e-9)
    assert found.model.priors == pytest.approx(list(reference.priors.values()))
    assert list(found.model.accuracy) == pytest.approx(list(reference.accuracy.values()))
    if len(options) > 1 or method is InferenceMethod.DAWID_SKENE:
        matrices = [found.confusion_of(n) for n in range(len(found.patterns.annotators))]
        assert [n for matrix in matrices for row in matrix for n in row] == pytest.approx(
            list(reference.confusion.values())
        )


@methods
def test_labels_in_another_order_give_the_same_bits(method: InferenceMethod) -> None:
    labels = frame(mixed_crowd().labels)
    found = infer(labels, method)
    shuffled = infer(labels.sample(fraction=1, shuffle=True, seed=1), method)
    assert found.tasks.equals(shuffled.tasks)
    assert found.model.accuracy.equals(shuffled.model.accuracy)


@methods
def test_other_names_of_tasks_annotators_and_options_change_nothing_else(
    method: InferenceMethod,
) -> None:
    labels = mixed_crowd().labels
    rng = random.Random(1)
    tasks, annotators, options = (
        dict(zip(sorted({label[n] for label in labels}), names, strict=True))
        for n, names in enumerate(
            (rng.sample(range(10**12), 1500), rng.sample(range(10**9), 20), [200, 3, 70])
        )
    )
    renamed = [(tasks[t], annotators[a], options[o]) for t, a, o in labels]
    # Sums have other orders, and the tolerance may be met a step earlier: so many steps for both.
    one, two = (
        infer(frame(each), method, tolerance=0, iterations_max=30) for each in (labels, renamed)
    )
    expected = {
        tasks[task]: {options[n]: p for n, p in by_option.items()}
        for task, by_option in posteriors(one).items()
    }
    assert flat(posteriors(two)) == pytest.approx(flat(expected), abs=1e-9)


@methods
def test_who_all_agree_are_believed(method: InferenceMethod) -> None:
    truth = [task % 3 + 1 for task in range(300)]
    found = infer(frame([(t, a, true) for t, true in enumerate(truth) for a in (1, 2, 3)]), method)
    assert list(found.tasks["option"]) == truth
    assert found.tasks["posterior"].min() > 0.9999  # type: ignore[operator]
    assert found.model.accuracy.min() > 0.99  # type: ignore[operator]
    assert found.has_converged


@methods
def test_a_task_with_one_label_is_what_that_says(method: InferenceMethod) -> None:
    rng = random.Random(1)
    labels = [(task, rng.randint(1, 9), rng.randint(1, 3)) for task in range(200)]
    found = infer(frame(labels), method)
    assert list(found.tasks["option"]) == [option for _, _, option in labels]
    assert found.tasks["posterior"].max() < 0.7  # type: ignore[operator]


@methods
def test_tasks_with_one_label_say_nothing_of_annotators(method: InferenceMethod) -> None:
    labels = mixed_crowd().labels
    single = [(5000 + n, annotator, 1) for n, (_, annotator, _) in enumerate(labels)]
    alone, with_single = (infer(frame(each), method).model for each in (labels, labels + single))
    assert list(with_single.accuracy) == pytest.approx(list(alone.accuracy), abs=1e-9)
    assert with_single.priors == pytest.approx(alone.priors, abs=1e-9)


@methods
def test_one_option_that_everybody_chooses_is_certain(method: InferenceMethod) -> None:
    found = infer(frame([(task, a, 4) for task in range(5) for a in range(3)]), method)
    assert found.tasks.rows() == [(task, 4, 1.0) for task in range(5)]
    assert (list(found.model.priors), found.has_converged) == ([1.0], True)
    assert list(found.posterior_of(3)) == [0.0] * 5


@methods
def test_a_tie_of_equals_stays_a_tie_and_changes_no_result(method: InferenceMethod) -> None:
    """Two annotators who disagree on as many tasks of each option, and agree on as many."""
    labels = [(1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)]
    labels += [(3 + n, a, n % 2 + 1) for n in range(40) for a in (1, 2)]
    said = frame(labels)
    found = infer(said, method)
    assert list(found.tasks["posterior"].head(2)) == pytest.approx([0.5, 0.5])
    outcomes = {1: 2, 2: 1} | {3 + n: n % 2 + 1 for n in range(40)}
    column = said["task_no"].replace_strict(outcomes, return_dtype=pl.UInt8)
    assert find_changes(found, said.with_columns(outcome=column)).is_empty()


@methods
def test_a_spammer_is_right_by_chance(method: InferenceMethod) -> None:
    crowd = make_crowd("spam", [0.9] * 6 + [0.25], tasks=2000, options=4, each=4)
    found = infer(frame(crowd.labels), method)
    *others, spammer = found.model.accuracy
    assert spammer == pytest.approx(0.25, abs=0.04)
    assert others == pytest.approx([0.9] * 6, abs=0.03)


def test_a_confusion_matrix_is_found() -> None:
    """Annotators are right in 0.8, near misses are more than half of the rest."""
    crowd = make_crowd("confused", [0.8] * 8, tasks=3000, options=4, each=5)
    found = infer(frame(crowd.labels), InferenceMethod.DAWID_SKENE)
    near, far = 0.2 * (1 / 2 + 1 / 6), 0.2 / 6
    for annotator in range(8):
        for true, row in enumerate(found.confusion_of(annotator)):
            assert sum(row) == pytest.approx(1)
            expected = [far] * 4
            expected[true], expected[(true + 1) % 4] = 0.8, near
            assert row == pytest.approx(expected, abs=0.06)


@methods
@pytest.mark.parametrize("options", [2, 3, 6])
def test_it_is_right_more_often_than_the_majority(method: InferenceMethod, options: int) -> None:
    crowd = mixed_crowd(options)
    found = infer(frame(crowd.labels), method)
    by_majority = crowd.accuracy_of(majority(crowd.labels, 1500))
    assert found.has_converged
    gained = crowd.accuracy_of(list(found.tasks["option"])) - by_majority
    # With more options, who errs prefers one of the wrong ones, which one coin cannot tell.
    assert gained > (0.01 if method is InferenceMethod.DAWID_SKENE or options == 2 else 0)


@methods
def test_the_labels_become_likelier_with_each_iteration(method: InferenceMethod) -> None:
    labels = make_crowd("uphill", [0.9, 0.7, 0.6, 0.5], tasks=40, options=3, each=3).labels
    found = [
        infer(frame(labels), method, smoothing=1e-9, tolerance=0, iterations_max=n).log_likelihood
        for n in range(1, 20)
    ]
    assert all(later > earlier - 1e-12 for earlier, later in pairwise(found))
    reference = Reference(labels, method, 1e-9).iterate(19)
    assert [n * len(labels) for n in found] == pytest.approx(reference.log_likelihoods)


@methods
def test_a_smaller_tolerance_takes_more_iterations(method: InferenceMethod) -> None:
    labels = frame(mixed_crowd().labels)
    found = [infer(labels, method, tolerance=10.0**-n).iterations for n in (2, 4, 6)]
    assert found[0] < found[1] < found[2]


@methods
def test_iterations_are_bounded(method: InferenceMethod) -> None:
    labels = frame(mixed_crowd().labels)
    found = infer(labels, method, tolerance=1e-6, iterations_max=2)
    assert (found.iterations, found.has_converged) == (2, False)


@methods
def test_hundreds_of_labels_of_a_task_are_no_trouble_to_its_numbers(
    method: InferenceMethod,
) -> None:
    rng = random.Random(1)
    labels = [
        (task, a, task % 2 + 1 if rng.random() < 0.6 else 2 - task % 2)
        for task in range(10)
        for a in range(3000)
    ]
    found = infer(frame(labels), method)
    assert list(found.tasks["option"]) == [task % 2 + 1 for task in range(10)]
    assert all(math.isfinite(each) for each in flat(posteriors(found)))


def test_results_that_are_less_likely_and_tasks_without_one_are_changes() -> None:
    crowd = mixed_crowd()
    said = frame(crowd.labels)
    found = infer(said, InferenceMethod.DAWID_SKENE)
    rng = random.Random(1)
    outcomes = {task: rng.choice([0, 1, 2, 3]) for task in range(1, 1501)}
    column = said["task_no"].replace_strict(outcomes, return_dtype=pl.UInt8)
    changed = find_changes(found, said.with_columns(outcome=column))
    expected = [
        (task, outcomes[task], option, posterior)
        for task, option, posterior in found.tasks.iter_rows()
        if option != outcomes[task]
    ]
    assert changed.rows() == expected
    assert {each[1] for each in expected} == {0, 1, 2, 3}


def test_too_much_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = mixed_crowd()
    patterns = infer(frame(crowd.labels), InferenceMethod.ONE_COIN).patterns
    cells = len(patterns.answers) * 3
    monkeypatch.setattr(dawid_skene, "_CELLS_MAX", cells)
    infer(frame(crowd.labels), InferenceMethod.ONE_COIN)
    monkeypatch.setattr(dawid_skene, "_CELLS_MAX", cells - 1)
    with pytest.raises(TooLarge, match=f"{cells:,}"):
        infer(frame(crowd.labels), InferenceMethod.ONE_COIN)


def test_lists_are_summed_the_empty_ones_too() -> None:
    lists = IndexLists(pl.Series([2, 0, 0, 1]), pl.Series([0, 3, 0, 1, 0], dtype=pl.UInt32))
    assert list(lists.sum(pl.Series([1.5, 2.0, 4.0]))) == [0.0, 7.0, 0.0, 2.0, 0.0]
