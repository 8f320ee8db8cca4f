"""Things that go on at the same time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

WAIT_S = 20.0


POLL_S = 0.02


class Side:
    """Something that goes on at the same time; `join` gives its result or raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        executor = ThreadPoolExecutor(1)
        self._future = executor.submit(function)
        executor.shutdown(wait=False)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        return bool(wait([self._future], seconds).done)

    def join(self) -> Any:
        return self._future.result(WAIT_S)


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """The results of all, started together."""
    barrier = threading.Barrier(len(functions))

    def start(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            barrier.wait(WAIT_S)
            return function()

        return run

    sides = [Side(start(function)) for function in functions]
    return [side.join() for side in sides]


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not check():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(POLL_S)
