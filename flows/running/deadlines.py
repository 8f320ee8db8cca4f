"""Bound how long one run may take, so that a slow store keeps no run's place for ever."""

from collections.abc import Iterable, Iterator
from time import time
from typing import TypeVar

from blocks.domain.errors import RunEnded
from flows.running.resources import settings

_T = TypeVar("_T")


class Deadline:
    """Count down `REFINERY_RUN_S_MAX` seconds from now on.

    A run looks at it between its steps, each of which is ended by the time limits of its requests. It
    may be handed to other processes, on other machines too, so it is kept by the clock on the wall.
    """

    def __init__(self) -> None:
        self._run_s = settings().run_s_max
        self._ends_s = time() + self._run_s
        self._is_ended = False

    @property
    def left_s(self) -> float:
        """Return the seconds that are left, at least 0."""
        return 0.0 if self._is_ended else max(self._ends_s - time(), 0.0)

    def end(self) -> None:
        """Leave no time to the steps that look at it in this process."""
        self._is_ended = True

    def check(self) -> None:
        """Pass if there is time left.

        Raises:
            RunEnded: there is none.
        """
        if not self.left_s:
            raise self.error()

    def error(self) -> RunEnded:
        """Return the error to raise when no time is left."""
        if self._is_ended:
            return RunEnded("The run was ended; another one goes on.")
        return RunEnded(
            f"The run took longer than {self._run_s:,} s and was ended; another one goes on."
        )

    def watch(self, blocks: Iterable[_T]) -> Iterator[_T]:
        """Yield `blocks` as long as there is time left.

        Raises:
            RunEnded: there is none.
        """
        for block in blocks:
            self.check()
            yield block
