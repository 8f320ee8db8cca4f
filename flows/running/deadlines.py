"""How long one run may take, so that a store which gives little keeps no run's place for ever."""

from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

from blocks.domain.errors import RunEnded
from flows.running.resources import settings

_T = TypeVar("_T")


class Deadline:
    """`REFINERY_RUN_S_MAX` from now on.

    It is looked at between the steps of a run, each of which ends by the time limits of its requests.
    """

    def __init__(self) -> None:
        self._run_s = settings().run_s_max
        self._ends_s = monotonic() + self._run_s

    @property
    def left_s(self) -> float:
        """Return the seconds that are left, 0 at the least."""
        return max(self._ends_s - monotonic(), 0.0)

    def check(self) -> None:
        """Pass if there is time left.

        Raises:
            RunEnded: there is none.
        """
        if not self.left_s:
            raise self.ended()

    def ended(self) -> RunEnded:
        """Return what is raised when no time is left."""
        return RunEnded(
            f"The run took longer than {self._run_s:,} s and was ended; another one goes on."
        )

    def watch(self, blocks: Iterable[_T]) -> Iterator[_T]:
        """Yield `blocks` as long as there is time.

        Raises:
            RunEnded: there is none.
        """
        for block in blocks:
            self.check()
            yield block
