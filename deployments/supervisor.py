"""Keeps children running: what dies unexpectedly is started again, more slowly each time."""

import queue
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from deployments.errors import ServerFailed
from deployments.guard import Guard
from deployments.processes import ChildProcess, Program

RESTART_DELAY_MIN_S = 0.5
RESTART_DELAY_MAX_S = 30.0
# More deaths than this within the window are no accident: the supervisor gives up and says why.
DEATHS_MAX = 6
DEATHS_WINDOW_S = 180.0


class Supervisor:
    """The children of one stack, in the order in which they were added."""

    def __init__(self, log_folder: Path, on_change: Callable[[], None]) -> None:
        """`on_change` is called after every start, with the new processes in `children`."""
        self.children: list[ChildProcess] = []
        self._log_folder = log_folder
        self._on_change = on_change
        self._guard = Guard()
        self._deaths: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
        self._death_times: dict[ChildProcess, list[float]] = defaultdict(list)

    def start_guard(self) -> None:
        self._guard.start()

    def spawn(self, program: Program) -> ChildProcess:
        """Starts a program that is to run until it is stopped."""
        return self._spawn(program, self._deaths.put)

    def spawn_once(self, program: Program) -> ChildProcess:
        """Starts a program that ends by itself."""
        return self._spawn(program, lambda _: None)

    def _spawn(self, program: Program, on_death: Callable[[ChildProcess], None]) -> ChildProcess:
        child = ChildProcess(program, self._log_folder, self._guard, on_death)
        self.children.append(child)
        child.spawn()
        self._on_change()
        return child

    def watch(self, on_step: Callable[[str], None]) -> None:
        """Starts again what dies; never returns.

        Raises:
            ServerFailed: one server died more than `DEATHS_MAX` times within `DEATHS_WINDOW_S`.
        """
        due: dict[ChildProcess, float] = {}
        while True:
            pause_s = max(0.0, min(due.values()) - time.monotonic()) if due else None
            try:
                child = self._deaths.get(timeout=pause_s)
            except queue.Empty:
                child = min(due, key=lambda waiting: due[waiting])
                del due[child]
                self._restart(child, on_step)
            else:
                due[child] = time.monotonic() + self._delay_s(child)

    def _delay_s(self, child: ChildProcess) -> float:
        now = time.monotonic()
        recent = [t for t in self._death_times[child] if now - t < DEATHS_WINDOW_S] + [now]
        self._death_times[child] = recent
        if len(recent) > DEATHS_MAX:
            raise child.failure(f"died {len(recent)} times within {DEATHS_WINDOW_S:.0f} s")
        return min(RESTART_DELAY_MAX_S, RESTART_DELAY_MIN_S * 2.0 ** (len(recent) - 1))

    def _restart(self, child: ChildProcess, on_step: Callable[[str], None]) -> None:
        exit_code = child.exit_code
        try:
            child.spawn()
            self._on_change()
            child.wait_ready()
        except ServerFailed as error:
            # Its end is in the queue like any other, and the next try waits longer than this one.
            on_step(f"{child.name} died (exit {exit_code}), and then {error.reason}")
        else:
            on_step(f"{child.name} died (exit {exit_code}), started again")

    def stop(self) -> None:
        """Stops stage after stage; the children of one stage stop side by side."""
        for stage in sorted({child.program.stop_stage for child in self.children}):
            children = [child for child in self.children if child.program.stop_stage == stage]
            for child in children:
                child.ask_to_stop()
            for child in children:
                child.stop()
        self.children.clear()
        self._guard.stop()
