"""Explore every state that a protocol can reach, as a model checker does."""

import gc
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import msgspec

S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    """A protocol: how it begins, what may happen next, and what must be true."""

    def begin(self) -> S:
        """Return the first state."""

    def steps(self, state: S) -> Iterable[tuple[str, S]]:
        """Return what may happen, and the state after it."""

    def find_wrong(self, state: S) -> str | None:
        """Return what must never be, and is."""

    def is_end(self, state: S) -> bool:
        """Return whether all is done."""


class Explored(msgspec.Struct, frozen=True):
    """What an exploration has seen; `ends` are states in which all is done."""

    states: int
    steps: int
    ends: int


class Violation(Exception):
    """A state that must not be, with the shortest way to it."""

    def __init__(self, what: str, way: list[str]) -> None:
        super().__init__("\n  ".join([f"{what}, by:", *way]))
        self.what = what


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage: of these tuples there is none, and to look for it would take most of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_no_collection()
def explore(model: Model[S]) -> Explored:
    """Visit every state, the nearest first.

    Raises:
        Violation: something must not be, or from some state on the end cannot be reached any more.
    """
    first = model.begin()
    numbers = {first: 0}
    states = [first]
    came_from: list[tuple[int, str]] = [(0, "")]
    before: list[list[int]] = [[]]  # the states that each can be reached from by one step
    steps = 0

    def way_to(number: int) -> list[str]:
        way: list[str] = []
        while number:
            number, step = came_from[number]
            way.append(step)
        return way[::-1]

    for number, state in enumerate(states):  # which grows meanwhile
        wrong = model.find_wrong(state)
        if wrong:
            raise Violation(wrong, way_to(number))
        for step, following in model.steps(state):
            steps += 1
            known = numbers.setdefault(following, len(states))
            if known == len(states):
                states.append(following)
                came_from.append((number, step))
                before.append([])
            before[known].append(number)

    ends = [number for number, state in enumerate(states) if model.is_end(state)]
    can_end = bytearray(len(states))
    reached = list(ends)
    while reached:
        number = reached.pop()
        if not can_end[number]:
            can_end[number] = True
            reached += before[number]
    if not all(can_end):
        raise Violation("It goes on for ever, or stands still", way_to(can_end.index(0)))
    return Explored(len(states), steps, len(ends))
