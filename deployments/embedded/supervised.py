"""Keep one program running, or repeat it until it succeeds, by a thread of its own."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from blocks.domain.backoff import backoff_s
from deployments.embedded.processes import ChildProcess
from deployments.errors import ServerFailed

RESTART_DELAY_MIN_S = 0.5
RESTART_DELAY_MAX_S = 30.0
# A program that has been ready for so long counts as mended: its next death is a first one.
STEADY_S = 60.0
PROBE_PERIOD_S = 5.0
# So many in a row are a minute without any answer.
PROBES_MISSED_MAX = 12
WAIT_S = 0.2

Say = Callable[[str], None]


class Supervised:
    """Start a child process again whenever it dies or hangs, more slowly each time, without end.

    No error ends that: a full disk has room again some day. Each such thread waits for its own program
    only, so that programs which died at the same time come back side by side.
    """

    ready = "is ready"

    def __init__(
        self, child: ChildProcess, say: Say, on_change: Callable[[], None], began: float
    ) -> None:
        """`on_change` is called after every start, with the new process in `child`.

        `began` is when the whole stack began to start, as `time.monotonic` has it.
        """
        self.child = child
        self._say = say
        self._on_change = on_change
        self._began = began
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        # Set once the first try has ended, well or badly.
        self._tried = threading.Event()
        self._failure: Exception | None = None
        self._failures = 0
        self._has_been_ready = False
        self._thread = threading.Thread(target=self._run, name=f"keeps {child.name}", daemon=True)

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    def start(self) -> None:
        """Begin, and return at once."""
        self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until it is ready, however many tries that takes; return whether it is."""
        return self._ready.wait(timeout_s)

    def wait_first_try(self) -> None:
        """Wait until it is ready.

        Raises:
            ServerFailed: the first try failed. There will be others, unless it is stopped.
        """
        self._tried.wait()
        if self._failure:
            raise self._failure

    def ask_to_stop(self) -> None:
        """Start nothing any more, and send the stop signal."""
        self._stopping.set()
        with self._lock:
            self.child.ask_to_stop()

    def stop(self) -> None:
        """Return when the program and all that it started have ended."""
        self.ask_to_stop()
        self.child.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def hold(self) -> None:
        """Start nothing any more; a running program goes on."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._try()
            except Exception as error:  # noqa: BLE001 - it may pass, whatever it is
                self._note_failure(error)
            self._stopping.wait(self._delay_s())
        if not self._tried.is_set():
            self._failure = self.child.failure("was stopped before it was ready")
            self._tried.set()

    def _try(self) -> None:
        if not self._spawn():
            return
        self.child.wait_ready()
        ready_at = time.monotonic()
        self._note_ready()
        end = self._wait_for_end()
        self._ready.clear()
        if time.monotonic() - ready_at >= STEADY_S:
            self._failures = 0
        self._failures += 1
        if not self._stopping.is_set():
            self._say(f"{self.child.name} {end}; starting it again")

    def _spawn(self) -> bool:
        with self._lock:
            if self._stopping.is_set():
                return False
            self.child.spawn()
        self._on_change()
        return True

    def _wait_for_end(self) -> str:
        """Wait until the program has ended, and return how. One that hangs is killed."""
        missed, pause_s, heard_s = 0, PROBE_PERIOD_S, time.monotonic()
        while not self.child.wait_exit(pause_s):
            asked_s = time.monotonic()
            if self._is_alive():
                missed, heard_s = 0, asked_s
            else:
                missed += 1
            pause_s = max(0.0, PROBE_PERIOD_S - (time.monotonic() - asked_s))
            if missed >= PROBES_MISSED_MAX and not self._stopping.is_set():
                self.child.kill()
                return f"gave no answer for {time.monotonic() - heard_s:.0f} s and was killed"
        return f"died (exit {self.child.exit_code})"

    def _is_alive(self) -> bool:
        # Only Prefect knows whether the worker is alive; a stopped process is seen without asking.
        return not self.child.is_stopped and self.child.is_alive()

    def _note_ready(self) -> None:
        if self._has_been_ready:
            self._say(f"{self.child.name} {self.ready} again")
        else:
            self._say(f"{self.child.name} {self.ready} ({time.monotonic() - self._began:.1f} s)")
        self._has_been_ready = True
        self._ready.set()
        self._tried.set()

    def _note_failure(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        self._failures += 1
        if not self._tried.is_set():
            self._failure = error
            self._tried.set()
        self._say(f"{self._sentence_about(error)}; tried again in {self._delay_s():.0f} s")

    def _sentence_about(self, error: Exception) -> str:
        if isinstance(error, ServerFailed):
            return f"{error.name} {error.reason} (its log: {error.log_path})"
        return f"{self.child.name} cannot be started: {error}"

    def _delay_s(self) -> float:
        return backoff_s(self._failures, first_s=RESTART_DELAY_MIN_S, max_s=RESTART_DELAY_MAX_S)


@dataclass(frozen=True)
class Condition:
    """Say when an errand has to be done: when `after` is ready and `is_done` returns False.

    `is_done` raises where that cannot be found out, and is called again later.
    """

    after: Supervised
    is_done: Callable[[], bool]


class Errand(Supervised):
    """Repeat a program that ends by itself until it succeeds once; then it is ready."""

    ready = "is done"

    def __init__(
        self,
        child: ChildProcess,
        say: Say,
        on_change: Callable[[], None],
        began: float,
        condition: Condition | None,
    ) -> None:
        """Without a condition the program is started at once."""
        super().__init__(child, say, on_change, began)
        self._condition = condition

    def _try(self) -> None:
        if not self._is_done():
            if not self._spawn():
                return
            self.child.wait_success()
        self._note_ready()
        self._stopping.wait()

    def _is_done(self) -> bool:
        if self._condition is None:
            return False
        while not self._condition.after.wait_ready(WAIT_S):
            if self._stopping.is_set():
                return False
        return self._condition.is_done()
