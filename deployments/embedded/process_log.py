"""Bound the log of a process that writes to it by itself, while the process runs."""

import os
from pathlib import Path

from deployments.embedded.private_files import FILE_MODE

LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_TAIL_BYTES = 4096
LOG_TAIL_LINES = 15
_COPY_BYTES = 1024 * 1024


class ProcessLog:
    """Keep a log file and one predecessor, `<name>.log.1`.

    The process holds the file open, so it can be neither renamed nor replaced. Through a pipe of ours,
    its lines would be held up or lost whenever we are busy or dead. So the file is copied and then
    emptied: the process appends, and goes on at the new end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._previous = path.with_suffix(".log.1")
        self._start = 0

    def open(self) -> int:
        """Return a descriptor that appends, for one run of the process."""
        log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        self._start = os.lseek(log, 0, os.SEEK_END)
        return log

    def rotate(self) -> None:
        """Make a file of more than `LOG_BYTES_MAX` the predecessor, and begin anew.

        A kill at any point loses no line. Lines that are written between the last look at the size
        and the call that empties the file, some microseconds, are lost.

        Raises:
            OSError: the disk is full; the log is as before.
        """
        if not self.path.exists() or self.path.stat().st_size <= LOG_BYTES_MAX:
            return
        copy = self._previous.with_suffix(".1.new")
        try:
            self._copy_and_empty(copy)
        finally:
            copy.unlink(missing_ok=True)

    def _copy_and_empty(self, copy: Path) -> None:
        source = os.open(self.path, os.O_RDWR)
        try:
            target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            try:
                _append_rest(source, target)
                copy.replace(self._previous)
                _append_rest(source, target)
            finally:
                os.close(target)
            os.ftruncate(source, 0)
            self._start = 0
        finally:
            os.close(source)

    def tail(self) -> str:
        """Return the last `LOG_TAIL_LINES` lines of this run."""
        try:
            with self.path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(min(self._start, end), end - LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _append_rest(source: int, target: int) -> None:
    while data := os.read(source, _COPY_BYTES):
        while data:
            data = data[os.write(target, data) :]
