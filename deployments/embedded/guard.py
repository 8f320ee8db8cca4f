"""Run `guard_child.py`, and tell it which process groups there are."""

import subprocess
import sys
import threading
from pathlib import Path

PROGRAM = Path(__file__).with_name("guard_child.py")
STOP_TIMEOUT_S = 5.0


class Guard:
    """Keep a process that outlives the supervisor by an instant and kills the groups that it left.

    Decision 115 says why parent-death signals are not enough.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process, in a session of its own."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            text=True,
        )

    def watch(self, group: int) -> None:
        """Have the group killed if the supervisor ends without another word."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """Have the group left alone from now on."""
        self._tell(f"-{group}")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._process is None or self._process.stdin is None:
                return
            try:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                # Somebody killed the guard. The parent-death signals still hold.
                self._process.stdin = None

    def stop(self) -> None:
        """End the guard; it kills the groups that are still on its list."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
