"""Keep the programs of one stack running, its logs short and its state recorded."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from deployments.embedded.guard import Guard
from deployments.embedded.processes import ChildProcess, Program
from deployments.embedded.supervised import Condition, Errand, Say, Supervised

TIDY_PERIOD_S = 5.0

_Each = TypeVar("_Each", bound=Supervised)


class Supervisor:
    """Supervise the children of one stack, in the order in which they were added."""

    def __init__(self, log_folder: Path, write_state: Callable[[], None], say: Say) -> None:
        """Keep what is told of the children, and whom.

        `write_state` is called after every start, with the new processes in `children`; if it raises
        OSError, again every few seconds. `say` is told of deaths and new tries, from any thread; it must
        not raise.
        """
        self._log_folder = log_folder
        self._write_state = write_state
        self._say = say
        self._guard = Guard()
        self._supervised: list[Supervised] = []
        self._state_lock = threading.Lock()
        self._state_is_written = True
        self._stopping = threading.Event()
        self._tidier: threading.Thread | None = None
        self._began = 0.0

    @property
    def children(self) -> Sequence[ChildProcess]:
        return [each.child for each in self._supervised]

    def start(self) -> None:
        """Begin to look after logs and state; and start the guard, which survives this process."""
        self._guard.start()
        self._began = time.monotonic()
        self._stopping.clear()
        self._tidier = threading.Thread(target=self._tidy, name="supervisor", daemon=True)
        self._tidier.start()

    def keep(self, program: Program) -> Supervised:
        """Start a program that is to run until it is stopped."""
        child = self._child(program)
        return self._add(Supervised(child, self._say, self._note_change, self._began))

    def finish(self, program: Program, condition: Condition | None) -> Errand:
        """Start a program that ends by itself, where the condition says so; until it succeeds."""
        child = self._child(program)
        return self._add(Errand(child, self._say, self._note_change, self._began, condition))

    def _child(self, program: Program) -> ChildProcess:
        return ChildProcess(program, self._log_folder, self._guard)

    def _add(self, supervised: _Each) -> _Each:
        self._supervised.append(supervised)
        supervised.start()
        return supervised

    def _note_change(self) -> None:
        with self._state_lock:
            try:
                self._write_state()
            except OSError as error:
                if self._state_is_written:
                    self._say(f"The state could not be written, tried again: {error}")
                self._state_is_written = False
            else:
                self._state_is_written = True

    def _tidy(self) -> None:
        while not self._stopping.wait(TIDY_PERIOD_S):
            for child in self.children:
                # On a full disk no log grows, and the next round tries again.
                with suppress(OSError):
                    child.log.rotate()
            if not self._state_is_written:
                self._note_change()

    def stop(self) -> None:
        """Stop stage after stage; the children of one stage stop side by side."""
        self._stopping.set()
        for each in self._supervised:
            each.hold()
        for stage in self._stages():
            for each in stage:
                each.ask_to_stop()
            for each in stage:
                each.stop()
        if self._tidier:
            self._tidier.join()
        self._supervised.clear()
        self._guard.stop()

    def _stages(self) -> Iterator[list[Supervised]]:
        for stage in sorted({each.child.program.stop_stage for each in self._supervised}):
            yield [each for each in self._supervised if each.child.program.stop_stage == stage]
