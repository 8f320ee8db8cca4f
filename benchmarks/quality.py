"""Measure how often results are right, and for how many labels, by method of consensus: a simulation."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.simulated_jobs import Crowd, Plan, simulate
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks.domain.consensus import ALL
from blocks.domain.gold import GoldEstimate, Majority, Rule, Weighted, estimate

_ANNOTATORS = 20
_SPAMMERS = 4
_OPTIONS = (2, 10)
_GOLD_EACH = 20
_GOLD_TASKS = (50, 100, 200)
_COVERAGE_GOAL = 0.95

_MIXED = tuple(0.6 + 0.38 * n / (_ANNOTATORS - 1) for n in range(_ANNOTATORS))
_MAJORITY = Majority(threshold=3)
_EARLY = Majority(threshold=3, stop_early=True)
# Those that are tried to find the best one within so many labels a task.
_TARGETS = range(8000, ALL, 100)


@dataclass(frozen=True)
class _Method:
    """Name a rule, and how many gold tasks each annotator has labelled before."""

    name: str
    rule: Rule
    gold_each: int = 0


@dataclass(frozen=True)
class _Goal:
    """Compare the weighted method with the majority of 3: right tasks, within so many labels a task."""

    crowd: str
    labels_max: float | None
    """None: as many as the majority takes."""
    better_by: float


_METHODS = (
    _Method("majority of 3", _MAJORITY),
    _Method("majority of 3, stop_early", _EARLY),
    *(
        _Method(f"weighted {t / ALL:.2f}, gold", Weighted(target=t), _GOLD_EACH)
        for t in (9000, 9500, 9900)
    ),
    *(_Method(f"weighted {t / ALL:.2f}, no gold", Weighted(target=t)) for t in (9000, 9500, 9900)),
    *(
        _Method(f"weighted {t / ALL:.2f}, no gold, 2 labels", Weighted(target=t, labels_min=2))
        for t in (9000, 9500)
    ),
)
_GOALS = (
    _Goal("mixed", 2.1, 0.0),
    _Goal("mixed", 2.6, 0.03),
    _Goal("equal", None, 0.0),
)


def _crowds(options: int) -> dict[str, Crowd]:
    spammers = (1 / options,) * _SPAMMERS
    return {
        "equal": Crowd((0.85,) * _ANNOTATORS),
        "mixed": Crowd(_MIXED),
        "mixed, 4 of 20 at random": Crowd((*spammers, *_MIXED[_SPAMMERS:])),
        "mixed, 4 of 20 always the same": Crowd(_MIXED, constant=_SPAMMERS),
    }


def measure(_: Stacks, sizes: Sizes, console: Console) -> Iterator[Table]:
    """Yield tables: methods by crowd, the goals of the weighted one, intervals by gold."""
    yield _by_method(sizes, console)
    yield _beside_goals(sizes, console)
    yield _by_gold(sizes, console)


@dataclass(frozen=True)
class _Figures:
    """Say what a task takes and comes to, as means of jobs."""

    labels: float
    right: float
    """Of all tasks, those without consensus by their best option."""
    settled_right: float
    open: float


def _by_method(sizes: Sizes, console: Console) -> Table:
    table = Table(
        title=f"Results by method, simulated: {_ANNOTATORS} annotators, means of {sizes.quality_jobs} "
        f"jobs of {sizes.quality_tasks:,} tasks, gold {_GOLD_EACH} a person",
        title_justify="left",
    )
    _add_columns(
        table,
        ("crowd", "options", "method"),
        ("labels a task", "right, of all", "right, of settled", "without consensus"),
    )
    for options in _OPTIONS:
        for name, crowd in _crowds(options).items():
            with console.status(f"{name}, {options} options"):
                for method in _METHODS:
                    found = _run(method, options, crowd, sizes)
                    table.add_row(
                        name,
                        str(options),
                        method.name,
                        f"{found.labels:.2f}",
                        f"{found.right:.2%}",
                        f"{found.settled_right:.2%}",
                        f"{found.open:.2%}",
                    )
    return table


def _run(method: _Method, options: int, crowd: Crowd, sizes: Sizes) -> _Figures:
    plan = Plan(
        rule=method.rule,
        options=options,
        tasks=sizes.quality_tasks,
        gold_before=method.gold_each,
    )
    jobs = [simulate(plan, crowd, seed) for seed in range(sizes.quality_jobs)]
    return _Figures(
        labels=statistics.fmean(job.labels / job.tasks for job in jobs),
        right=statistics.fmean(job.best_right / job.tasks for job in jobs),
        settled_right=statistics.fmean(job.accuracy for job in jobs),
        open=statistics.fmean(1 - job.settled / job.tasks for job in jobs),
    )


def _beside_goals(sizes: Sizes, console: Console) -> Table:
    table = Table(
        title=f"The weighted method, gold {_GOLD_EACH} a person, beside the majority of 3: "
        "the best target within so many labels a task",
        title_justify="left",
    )
    _add_columns(
        table,
        ("crowd", "options"),
        (
            "majority: labels",
            "right",
            "goal: labels",
            "weighted: target",
            "labels",
            "right, of all",
        ),
        ("without consensus", "better by", "goal"),
    )
    for options in _OPTIONS:
        for goal in _GOALS:
            with console.status(f"{goal.crowd}, {options} options"):
                table.add_row(*_compare(goal, options, sizes))
    return table


def _compare(goal: _Goal, options: int, sizes: Sizes) -> Sequence[str]:
    crowd = _crowds(options)[goal.crowd]
    majority = _run(_Method("", _MAJORITY), options, crowd, sizes)
    labels_max = majority.labels if goal.labels_max is None else goal.labels_max
    tried = [
        (_run(_Method("", Weighted(target=target), _GOLD_EACH), options, crowd, sizes), target)
        for target in _TARGETS
    ]
    within = [each for each in tried if each[0].labels <= labels_max] or tried[:1]
    best, target = max(within, key=lambda each: each[0].right)
    return (
        goal.crowd,
        str(options),
        f"{majority.labels:.2f}",
        f"{majority.right:.2%}",
        f"≤ {labels_max:.2f}",
        f"{target / ALL:.2f}",
        f"{best.labels:.2f}",
        f"{best.right:.2%}",
        f"{best.open:.2%}",
        f"{best.right - majority.right:+.4f}",
        f"≥ {goal.better_by:.2f}",
    )


def _by_gold(sizes: Sizes, console: Console) -> Table:
    table = Table(
        title="The interval of a job's accuracy by its gold tasks, weighted 0.95: "
        f"{sizes.interval_jobs:,} simulated jobs of {sizes.interval_tasks:,} tasks, "
        "a tenth of the labels on gold",
        title_justify="left",
    )
    _add_columns(
        table,
        ("crowd", "options"),
        ("gold tasks", "that settle", "accuracy", "estimate", "width of the interval"),
        ("holds the accuracy", "goal"),
    )
    for options in _OPTIONS:
        for name in ("equal", "mixed"):
            for gold in _GOLD_TASKS:
                with console.status(f"{name}, {options} options, {gold} gold tasks"):
                    table.add_row(
                        name,
                        str(options),
                        str(gold),
                        *_cover(_crowds(options)[name], options, gold, sizes),
                    )
    return table


def _cover(crowd: Crowd, options: int, gold: int, sizes: Sizes) -> Sequence[str]:
    rule = Weighted(target=9500)
    plan = Plan(rule=rule, options=options, tasks=sizes.interval_tasks, gold=gold)
    found: list[tuple[float, GoldEstimate]] = []
    for seed in range(sizes.interval_jobs):
        job = simulate(plan, crowd, seed)
        found.append((job.accuracy, estimate(rule, options, job.gold)))
    return (
        f"{statistics.fmean(each.seen for _, each in found):.0f}",
        f"{statistics.fmean(accuracy for accuracy, _ in found):.2%}",
        f"{statistics.fmean(each.right / max(each.seen, 1) for _, each in found):.2%}",
        f"{statistics.fmean(each.high - each.low for _, each in found):.3f}",
        f"{statistics.fmean(each.low <= accuracy <= each.high for accuracy, each in found):.1%}",
        f"≥ {_COVERAGE_GOAL:.0%}",
    )


def _add_columns(table: Table, left: Sequence[str], *right: Sequence[str]) -> None:
    for column in left:
        table.add_column(column)
    for columns in right:
        for column in columns:
            table.add_column(column, justify="right")
