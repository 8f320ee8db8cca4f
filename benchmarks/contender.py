"""Measure contenders one after the other, round after round, and compare them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.servers import Servers

OURS = "ours"


@dataclass(frozen=True)
class Contender:
    """Describe one way to do the work, and its settings.

    `measure` does it once and returns seconds by the name of what took them. `goal` is how many times
    as fast ours has to be.
    """

    name: str
    settings: str
    rows: int
    measure: Callable[[], Mapping[str, float]]
    goal: float | None = None


@dataclass
class Figures:
    """Collect the seconds of each round, by what took them."""

    contender: Contender
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, seconds: Mapping[str, float]) -> None:
        for what, value in seconds.items():
            self.seconds.setdefault(what, []).append(value)

    def median_s(self, what: str) -> float:
        return statistics.median(self.seconds[what])

    def rate(self, what: str) -> float:
        """Return rows a second."""
        return self.contender.rows / self.median_s(what)


def compare(
    contenders: Sequence[Contender], servers: Servers, rounds: int, console: Console
) -> list[Figures]:
    """Measure everyone once in each round, so that a slow minute of the machine falls on all."""
    figures = [Figures(contender) for contender in contenders]
    for number in range(1, rounds + 1):
        for each in figures:
            servers.clear()
            with console.status(f"Round {number} of {rounds}: {each.contender.name}"):
                seconds = each.contender.measure()
            each.add(seconds)
            times = ", ".join(f"{what} {value:.2f} s" for what, value in seconds.items())
            console.print(f"[dim]round {number}: {times}[/]")
    return figures


def table_of(figures: Sequence[Figures], title: str) -> Table:
    """Return a table of medians; the ratios divide the first rate of ours."""
    table = Table(title=title, show_lines=True, title_justify="left")
    table.add_column("what", ratio=3)
    table.add_column("settings", ratio=5)
    for column in ("rows", "s", "rows/s", "ours ÷ it", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    ours = _rate_of_ours(figures)
    for each in figures:
        goal = each.contender.goal
        for number, what in enumerate(each.seconds):
            rate = each.rate(what)
            table.add_row(
                what,
                each.contender.settings if number == 0 else "the same runs",
                f"{each.contender.rows:,}",
                f"{each.median_s(what):.2f}",
                f"{rate:,.0f}",
                f"{ours / rate:.2f}" if ours and each.contender.name != OURS else "",
                f"≥ {goal:g}" if goal else "",
            )
    return table


def _rate_of_ours(figures: Sequence[Figures]) -> float | None:
    for each in figures:
        if each.contender.name == OURS:
            return each.rate(next(iter(each.seconds)))
    return None
