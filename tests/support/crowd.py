"""A crowd of annotators at work on the real stack, while its API is killed again and again."""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self

from deployments.embedded.stack import Stack
from tests.support.client import wait_for
from tests.support.crowd_annotator import Floor, RestlessAnnotator, Wire
from tests.support.records import Record

QUIET_S_MAX = 30.0
"""How long a crowd may get no label in: a slow machine is waited for, and work that nobody is handed is not."""
_LOOK_S = 0.1


def postgresql_log(stack: Stack) -> str:
    return (stack.log_folder / "postgresql.log").read_text()


def check_log(stack: Stack, start: int) -> None:
    """PostgreSQL never had to break a deadlock, and since `start` no statement has failed."""
    text = postgresql_log(stack)
    told = r"(?:\n(?:\t.*|.* (?:DETAIL|HINT|CONTEXT|STATEMENT):.*))*"
    deadlocks = re.findall(r"^.*deadlock detected.*" + told, text, re.MULTILINE)
    assert not deadlocks, "\n".join(deadlocks)
    # What a killed API leaves is a line of level LOG, or this one if a statement of its waits or takes long.
    since = text[start:]
    errors = re.findall(r"^.* (?:ERROR|FATAL|PANIC): +(.*)$", since, re.MULTILINE)
    assert not (others := set(errors) - {"connection to client lost"}), others
    assert "unexpected EOF on client connection with an open transaction" in since


class Api:
    """The API of a stack, whose supervisor starts it again each time."""

    def __init__(self, stack: Stack) -> None:
        found = [each for each in stack._supervisor._supervised if each.child.name == "API"]
        (self._supervised,) = found

    def kill(self) -> None:
        """At once, in the middle of whatever it does."""
        self._supervised._failures = 0  # or the supervisor would wait longer each time
        os.kill(pid := self._supervised.child.pid, signal.SIGKILL)
        wait_for("another one", lambda: self._supervised.child.pid != pid)

    def start(self) -> None:
        """Returns when it is ready."""
        self._supervised.wait_ready()


class Crowd(AbstractContextManager["Crowd"]):
    """Annotators, each with a thread; `keys` has the number and the API key of each."""

    def __init__(
        self, stack: Stack, keys: Sequence[tuple[int, str]], floor: Floor, seed: int
    ) -> None:
        self._floor = floor
        self._api = Api(stack)
        self._annotators = [
            RestlessAnnotator(floor, Wire(stack.api_url, key), number, f"{seed} {n}")
            for n, (number, key) in enumerate(keys)
        ]

    @property
    def record(self) -> Record:
        """What all of them were told."""
        return Record.of_all(annotator.record for annotator in self._annotators)

    @property
    def labels(self) -> int:
        """How many were taken by now, as far as anybody was told."""
        return self._floor.counted

    def work(self, kills: Sequence[int], left: Callable[[], Any]) -> None:
        """Until nothing is left to do.

        The API is killed and started again each time that as many labels were taken as `kills`
        says: by then most annotators are in the middle of a request. Fails after `QUIET_S_MAX`
        without a label.
        """
        self._floor.stopping.clear()
        self._floor.api_is_up.set()
        with ThreadPoolExecutor(len(self._annotators)) as executor:
            futures = [executor.submit(annotator.work) for annotator in self._annotators]
            for future in futures:
                future.add_done_callback(self._note_end)
            try:
                for labels in kills:
                    self._wait_for_labels(labels)
                    self.restart_api()
                self._wait_until_done(left)
            finally:
                self._floor.stopping.set()
        for future in futures:
            future.result()

    def _wait_for_labels(self, labels: int) -> None:
        with self._floor.changed:
            while self.labels < labels and not self._floor.stopping.is_set():
                changed = self._floor.changed.wait(QUIET_S_MAX)
                late = f"no label for {QUIET_S_MAX:.0f} s after {self.labels}, and not {labels}"
                assert changed, late

    def _wait_until_done(self, left: Callable[[], Any]) -> None:
        labels, since = self.labels, time.monotonic()
        while missing := left():
            if self.labels > labels:
                labels, since = self.labels, time.monotonic()
            late = f"no label for {QUIET_S_MAX:.0f} s after {labels}, and there is left: {missing}"
            assert time.monotonic() - since < QUIET_S_MAX, late
            if self._floor.stopping.wait(_LOOK_S):
                return

    def restart_api(self) -> None:
        """Kill it, and start it again."""
        self._floor.api_is_up.clear()
        try:
            self._api.kill()
            self._api.start()
        finally:  # nobody is to wait for one that does not come
            self._floor.api_is_up.set()

    def _note_end(self, future: Future[None]) -> None:
        """One that failed stops the others; its error is raised when all have stopped."""
        if future.exception():
            self._floor.stopping.set()
            self._floor.count(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as closing:
            for annotator in self._annotators:
                closing.callback(annotator.wire.close)
