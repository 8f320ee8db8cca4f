"""Pass lines to the operator, from any thread, without waiting for a terminal that is held."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

FLUSH_S_MAX = 1.0


class Teller:
    """Hand lines to a listener, in a thread of its own.

    A terminal may be held (Ctrl-S), and a pipe or the disk of a log may be full; the threads that
    restart processes must not stop for that.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._listener: Callable[[str], None] = _take_no_notice
        self._thread: threading.Thread | None = None

    def start(self, listener: Callable[[str], None]) -> None:
        """Hand every line to `listener` from now on; a line for which it raises OSError is lost."""
        self._listener = listener
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
            self._thread.start()

    def say(self, line: str) -> None:
        """Queue a line, and return at once."""
        self._lines.put(line)

    def flush(self) -> None:
        """Return when every queued line was handed on, or after `FLUSH_S_MAX`."""
        said = threading.Event()
        self._lines.put(said)
        if self._thread:
            said.wait(FLUSH_S_MAX)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            with suppress(OSError, ValueError):
                self._listener(line)


def _take_no_notice(_: str) -> None:
    pass
