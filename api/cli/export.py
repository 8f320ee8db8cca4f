"""Downloads: results and bad lines, into a file or to standard output."""

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from api.cli.client import Client
from api.cli.exits import CommandFailed, Exit, Unreachable
from api.cli.output import notes
from blocks.domain.backoff import backoff_s

_BREAKS_MAX = 10
_BACKOFF_S = 0.5
_BACKOFF_S_MAX = 32.0
_TAIL_BYTES = 64 * 1024


def stream(client: Client, path: str, file: BinaryIO | None = None, **params: Any) -> None:
    """Write what `path` answers to `file`, by default standard output.

    Raises:
        Unreachable: it broke off; what had come is written.
    """
    file = file or sys.stdout.buffer
    columns = (TextColumn("download"), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=notes, disable=not notes.is_terminal) as progress,
        client.stream(path, **params) as response,
    ):
        bar = progress.add_task("", total=None)
        for block in response.iter_bytes():
            file.write(block)
            progress.update(bar, advance=len(block))
    file.flush()


def export(client: Client, path: str, file: Path, part: Path) -> int:
    """Bring what `path` streams to `file`, by way of `part`; its size in bytes.

    What is in `part` of an earlier attempt is kept and gone on from.

    Raises:
        CommandFailed: another export writes `part`, or the API does not answer any more.
    """
    with part.open("ab+") as open_file:
        try:
            fcntl.flock(open_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another export is writing {part}; wait for it, or name another file."
            raise CommandFailed(message, Exit.CONFLICT) from error
        _download(client, path, open_file)
        os.fsync(open_file.fileno())
        size = open_file.tell()
        part.replace(file)
    return size


def _download(client: Client, path: str, file: BinaryIO) -> None:
    breaks = 0
    while True:
        after = _cut_to_whole_lines(file)
        began_at = file.tell()
        try:
            stream(client, path, file, after=after)
        except Unreachable as error:
            file.flush()
            breaks = 0 if file.tell() > began_at else breaks + 1
            if breaks >= _BREAKS_MAX:
                raise
            notes.print(f"[dim]{error}; going on after line {after:,}[/]")
            time.sleep(backoff_s(breaks + 1, first_s=_BACKOFF_S, max_s=_BACKOFF_S_MAX))
        else:
            return


def _cut_to_whole_lines(file: BinaryIO) -> int:
    """Drop what is there of a line that is not whole; the number of the last one, 0 if there is none."""
    end = file.seek(0, os.SEEK_END)
    tail = b""
    # Back to the beginning of the last whole line, which may be long.
    while end > len(tail) and tail.rstrip(b"\n").count(b"\n") < 2:  # noqa: PLR2004 - it, and one before
        take = min(end, len(tail) + _TAIL_BYTES)
        file.seek(end - take)
        tail = file.read(take)
    whole = tail[: tail.rfind(b"\n") + 1]
    line = _number(whole[:-1].rpartition(b"\n")[2])
    # Without a number, as in a job that was cancelled, it is fetched from the start.
    size = 0 if line is None else end - len(tail) + len(whole)
    file.truncate(size)
    file.seek(size)
    return line or 0


def _number(row: bytes) -> int | None:
    try:
        line = json.loads(row)["line"]
    except (ValueError, KeyError, TypeError):
        return None
    return line if isinstance(line, int) else None
