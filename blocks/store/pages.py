"""Pages of tasks: written in the transaction of their chunk, read by the numbers of their tasks."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from blocks import logs
from blocks.domain.errors import InternalError
from blocks.domain.ids import task_no
from blocks.domain.model import GoodLine
from blocks.lines.packing import CorruptContent, count_bytes, find_corrupt
from blocks.lines.pages import Page, read_frame, read_lines
from blocks.store.database import Transaction
from blocks.store.queries import load

logger = logs.get_logger("refinery.pages")

_SQL = load("pages")
_COPIED = ["int8", "int8", "int4", "bytea"]
_PAGES_AT_A_TIME = 64
_FRAME_BYTES_MAX = 16 * 1024 * 1024  # decompressed; a page that has more is a frame of its own


Key = tuple[int, int]
"""Of a task: the number of its job, and its own."""


class PageCorrupt(InternalError):
    """A page of tasks in the database is not what was stored: restore the table from a backup."""

    code = "page_corrupt"


def write(tx: Transaction, job_no: int, first_task: int, pages: Iterable[Page]) -> None:
    """Record pages of tasks whose numbers follow one another from `first_task` on."""
    with tx.cursor().copy(_SQL["copy"]) as copy:
        copy.set_types(_COPIED)
        for page in pages:
            copy.write_row((job_no, first_task, page.tasks, page.content))
            first_task += page.tasks


def read(tx: Transaction, keys: Sequence[Key]) -> dict[Key, GoodLine]:
    """Return the lines of some tasks, of which some need not exist.

    Raises:
        PageCorrupt: one of their pages is.
    """
    if not keys:
        return {}
    lines, corrupt = _pick(_find(tx, keys), keys)
    if corrupt:
        raise corrupt[0]
    return lines


def read_whole(tx: Transaction, keys: Sequence[Key]) -> dict[Key, GoodLine]:
    """Return the lines of some tasks, but for those on corrupt pages, which are logged.

    For work on tasks of several jobs, which must not hold one another up.
    """
    return pick_whole(_find(tx, keys), keys) if keys else {}


def _find(tx: Transaction, keys: Sequence[Key]) -> list[dict[str, Any]]:
    return tx.execute(_SQL["find"], find_runs(keys), binary=True).fetchall()


def find_runs(keys: Sequence[Key]) -> dict[str, list[int]]:
    """Return keys as runs of numbers that follow one another, for a statement that finds their pages.

    Of each run there are its job's number, its first number and its last one.
    """
    runs: dict[str, list[int]] = {"job_nos": [], "firsts": [], "lasts": []}
    before: Key | None = None
    for key in sorted(keys):
        if before is not None and key in (before, (before[0], before[1] + 1)):
            runs["lasts"][-1] = key[1]
        else:
            for column, number in zip(runs.values(), (*key, key[1]), strict=True):
                column.append(number)
        before = key
    return runs


def pick_whole(rows: list[dict[str, Any]], keys: Sequence[Key]) -> dict[Key, GoodLine]:
    """Return the lines of some tasks out of rows of `pages`, but for corrupt ones, which are logged."""
    lines, corrupt = _pick(rows, keys)
    for error in corrupt:
        logger.error(error.code, reason=error.message)
    return lines


def _pick(
    rows: list[dict[str, Any]], keys: Sequence[Key]
) -> tuple[dict[Key, GoodLine], list[PageCorrupt]]:
    """Return the lines of some tasks out of rows of `pages`, if those have them, and what is corrupt."""
    rows.sort(key=_place)
    places = [_place(row) for row in rows]
    wanted: list[list[int]] = [[] for _ in rows]
    for key in keys:
        nth = bisect_right(places, key) - 1
        if nth >= 0 and places[nth][0] == key[0] and key[1] - places[nth][1] < rows[nth]["tasks"]:
            wanted[nth].append(key[1] - places[nth][1])
    found: dict[Key, GoodLine] = {}
    corrupt = []
    for (job_no, first_task), row, ordinals in zip(places, rows, wanted, strict=True):
        try:
            lines = read_lines(row["content"], ordinals)
        except CorruptContent as error:
            corrupt.append(_corrupt(job_no, first_task, error))
            continue
        found |= {(job_no, first_task + n): line for n, line in zip(ordinals, lines, strict=True)}
    return found, corrupt


def read_chunk(tx: Transaction, job_no: int, chunk_no: int) -> Iterator[pl.DataFrame]:
    """Yield all tasks of a chunk in the order of the manifest: `TASK_COLUMNS`, and `task_no` (Int64).

    Each frame is read by a statement of its own, and cut at the same places whenever it is read.

    Raises:
        PageCorrupt: a page is.
    """
    first, until = task_no(chunk_no, 0), task_no(chunk_no + 1, 0)
    while True:
        values = {
            "job_no": job_no,
            "from_task": first,
            "until_task": until,
            "limit": _PAGES_AT_A_TIME,
        }
        rows = tx.execute(_SQL["list"], values, binary=True).fetchall()
        for some in _group(rows):
            first = some[0]["first_task"]
            frame = _frame(job_no, some)
            yield frame.with_columns(task_no=pl.int_range(pl.len(), dtype=pl.Int64) + first)
            first += len(frame)
        if len(rows) < _PAGES_AT_A_TIME:
            return


def _group(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    """Yield rows together that come to at most `_FRAME_BYTES_MAX`, or one alone."""
    start = total = 0
    for n, row in enumerate(rows):
        size = count_bytes(row["content"])
        if n > start and total + size > _FRAME_BYTES_MAX:
            yield rows[start:n]
            start, total = n, 0
        total += size
    if rows:
        yield rows[start:]


def _frame(job_no: int, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    try:
        return read_frame([row["content"] for row in rows])
    except CorruptContent as error:
        first_task = find_corrupt({row["first_task"]: row["content"] for row in rows})
        raise _corrupt(job_no, first_task, error) from error


def _corrupt(job_no: int, first_task: int | None, error: CorruptContent) -> PageCorrupt:
    return PageCorrupt(f"The page of job {job_no} from task {first_task} on is corrupt: {error}.")


def _place(row: dict[str, Any]) -> Key:
    return row["job_no"], row["first_task"]
