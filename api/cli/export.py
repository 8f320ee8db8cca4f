"""Downloads: results and bad lines, into a file or to standard output."""

import json
import os
import time
from typing import Any, BinaryIO

from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from api.cli.client import Client
from api.cli.exits import Unreachable
from api.cli.output import note, notes

_BREAKS_MAX = 10
_BACKOFF_S = 0.5
_BACKOFF_DOUBLINGS_MAX = 6
_TAIL_BYTES = 64 * 1024


def stream(client: Client, path: str, file: BinaryIO, **params: Any) -> None:
    """Write what `path` answers to `file`, with a bar where standard error is a terminal.

    Raises:
        Unreachable: it broke off; what had come is written.
    """
    columns = (TextColumn("download"), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=notes(), disable=not notes().is_terminal) as progress,
        client.stream(path, **params) as response,
    ):
        bar = progress.add_task("", total=None)
        for block in response.iter_bytes():
            file.write(block)
            progress.update(bar, advance=len(block))
    file.flush()


def download(client: Client, path: str, file: BinaryIO) -> int:
    """Write what `path` streams to `file`, going on where it breaks off; return the size in bytes.

    What `file` has already is that of an earlier attempt, and is gone on from.

    Raises:
        CommandFailed: the API refuses, or does not answer any more.
    """
    breaks = 0  # in a row: one after which something came counts anew, which tenacity cannot do
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
            note(f"{error}; going on after line {after:,}", style="dim")
            time.sleep(_BACKOFF_S * 2 ** min(breaks, _BACKOFF_DOUBLINGS_MAX))
        else:
            return file.tell()


def _cut_to_whole_lines(file: BinaryIO) -> int:
    """Drop a last line that is not whole; return the number of the one before, 0 if there is none."""
    end = file.seek(0, os.SEEK_END)
    tail = b""
    # The last whole line may be long: read back until it begins.
    while end > len(tail) and tail.rstrip(b"\n").count(b"\n") < 2:  # noqa: PLR2004 - it, and one before
        take = min(end, len(tail) + _TAIL_BYTES)
        file.seek(end - take)
        tail = file.read(take)
    whole = tail[: tail.rfind(b"\n") + 1]
    line = _number(whole[:-1].rpartition(b"\n")[2])
    # A line without a number does not say where to go on, so that all of them are fetched again.
    size = 0 if line is None else end - len(tail) + len(whole)
    file.truncate(size)
    file.seek(size)
    return line or 0


def _number(row: bytes) -> int | None:
    try:
        line = json.loads(row)["line"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return line if isinstance(line, int) else None
