"""Archive the labels of jobs that are over: from their tables to compressed columns beside the pages."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from blocks import logs
from blocks.domain.errors import InternalError, LedgerMismatch
from blocks.domain.ids import task_no
from blocks.lines.archived_labels import LABEL_COLUMNS, OPEN, make_archived, read_archived
from blocks.lines.packing import CorruptContent, find_corrupt
from blocks.store import arrays
from blocks.store.database import Transaction
from blocks.store.pages import Key
from blocks.store.queries import load

logger = logs.get_logger("refinery.archive")

_SQL = load("archive")

_COPIED = ["int8", "int8", "bytea"]
_PAGES_A_STEP = 64
_JOBS_MAX = 100
_END = 2**63 - 1
_NO_SKILL = -1


class ArchiveCorrupt(InternalError):
    """A page of archived labels is not what was stored: restore the table from a backup."""

    code = "archive_corrupt"


def archive_some(tx: Transaction, *, after_s: float) -> int:
    """Archive the labels of up to 64 pages of tasks, of jobs that were over `after_s` seconds ago.

    Return the number of tasks, 0 if there is nothing to archive. No label may come any more: after the
    end of a job, labels that are being counted are committed within a minute. A chunk whose tables have
    other labels or votes than were read stays as it is, and an error of the log names it.
    """
    due = {"after_s": after_s, "jobs_max": _JOBS_MAX}
    tx.execute(_SQL["mark_archived"], due)
    pages = tasks = 0
    for chunk in tx.execute(_SQL["take_chunks"], due).fetchall():
        if pages >= _PAGES_A_STEP:
            break
        try:
            with tx.transaction():
                found = _archive(tx, chunk, pages_max=_PAGES_A_STEP - pages)
        except LedgerMismatch as error:  # the other jobs do not wait for it
            logger.error("archive.mismatch", reason=error.message)  # noqa: TRY400 - nobody's code is at fault
            continue
        pages += len(found)
        tasks += sum(page["tasks"] for page in found)
    return tasks


def _archive(tx: Transaction, chunk: dict[str, int], *, pages_max: int) -> list[dict[str, int]]:
    """Archive the labels of the next pages of a chunk, and return the pages."""
    job_no, chunk_no = chunk["job_no"], chunk["chunk_no"]
    first = task_no(chunk_no, chunk["archived"])
    place = {
        "job_no": job_no,
        "from_task": first,
        "until_task": task_no(chunk_no + 1, 0),
        "limit": pages_max,
    }
    pages: list[dict[str, int]] = tx.execute(_SQL["find_pages"], place).fetchall()
    tasks = sum(page["tasks"] for page in pages)
    place["until_task"] = first + tasks
    labels = read_unarchived(
        tx, **{name: place[name] for name in ("job_no", "from_task", "until_task")}
    )
    with tx.cursor().copy(_SQL["copy"]) as copy:
        copy.set_types(_COPIED)
        for page in pages:
            ends_at = page["first_task"] + page["tasks"]
            some = labels.filter(pl.col("task_no").is_between(page["first_task"], ends_at - 1))
            if not some.is_empty():
                copy.write_row(
                    (job_no, page["first_task"], make_archived(some, page["first_task"]))
                )
    deleted = tx.execute(_SQL["delete_labels"], place).rowcount
    tx.execute(_SQL["delete_unlabelled"], place)
    tx.execute(_SQL["delete_gold_shown"], place)
    counted = tx.execute(_SQL["delete_tallies"], place).rowcount
    read = int((labels["option"] > 0).sum()), labels["task_no"].n_unique()
    if (deleted, counted) != read:
        raise LedgerMismatch(
            f"Job {job_no}, tasks from {first} on: {read[0]} labels of {read[1]} tasks were read, "
            f"and {deleted} labels of {counted} tasks deleted."
        )
    archived = {"archived": chunk["archived"] + tasks, "job_no": job_no, "chunk_no": chunk_no}
    tx.execute(_SQL["record"], archived)
    return pages


def read_labels(tx: Transaction, job_no: int, from_task: int, until_task: int) -> pl.DataFrame:
    """Return the archived labels of the pages that begin from `from_task` to before `until_task`.

    They are `LABEL_COLUMNS`, in the order of the tasks, and within a task as they were counted.

    Raises:
        ArchiveCorrupt: one of the pages is.
    """
    values = {
        "job_no": job_no, "from_task": from_task, "until_task": until_task, "limit": None,
    }  # fmt: skip
    rows = tx.execute(_SQL["list"], values, binary=True).fetchall()
    return _read(job_no, {row["first_task"]: row["content"] for row in rows})


def read_next(
    tx: Transaction, job_no: int, after: int, *, pages_max: int
) -> tuple[pl.DataFrame, int | None]:
    """Return the archived labels of the next pages of a job, and the last task that these go up to.

    They begin with the page of the first task after the number `after`, so they may have labels of tasks
    before it. They go up to None if there are no more pages.

    Raises:
        ArchiveCorrupt: a page is.
    """
    values = {"job_no": job_no, "after": after, "limit": pages_max + 1}
    rows = tx.execute(_SQL["list_next"], values, binary=True).fetchall()
    until = rows[-1]["first_task"] - 1 if len(rows) > pages_max else None
    shown = rows[:pages_max]
    return _read(job_no, {row["first_task"]: row["content"] for row in shown}), until


def read_all(tx: Transaction, job_no: int) -> Iterator[pl.DataFrame]:
    """Yield all archived labels of a job in the order of their tasks, those of 64 pages at a time.

    Raises:
        ArchiveCorrupt: a page is.
    """
    first = 0
    while True:
        values = {"job_no": job_no, "from_task": first, "until_task": _END, "limit": _PAGES_A_STEP}
        rows = tx.execute(_SQL["list"], values, binary=True).fetchall()
        if rows:
            yield _read(job_no, {row["first_task"]: row["content"] for row in rows})
            first = rows[-1]["first_task"] + 1
        if len(rows) < _PAGES_A_STEP:
            return


def read_labels_of(tx: Transaction, job_no: int, numbers: Sequence[int]) -> pl.DataFrame:
    """Return the archived labels of some tasks of a job, as `read_labels` does.

    Raises:
        ArchiveCorrupt: one of their pages is.
    """
    values = {"job_no": job_no, "task_nos": list(numbers)}
    rows = tx.execute(_SQL["find"], values, binary=True).fetchall()
    labels = _read(job_no, {row["first_task"]: row["content"] for row in rows})
    return labels.filter(pl.col("task_no").is_in(list(numbers)))


def find_options(tx: Transaction, annotator_no: int, keys: Iterable[Key]) -> dict[Key, int]:
    """Return the options, 1-based, that an annotator's archived labels of some tasks have.

    Tasks on corrupt pages are left out, and the pages are logged: other tasks do not wait for them.
    """
    numbers: dict[int, list[int]] = defaultdict(list)
    for job_no, number in keys:
        numbers[job_no].append(number)
    found: dict[Key, int] = {}
    for job_no, some in numbers.items():
        try:
            labels = read_labels_of(tx, job_no, some).filter(annotator_no=annotator_no)
        except ArchiveCorrupt as error:
            logger.error(error.code, reason=error.message)  # noqa: TRY400 - nobody's code is at fault
            continue
        pairs = zip(labels["task_no"], labels["option"], strict=True)
        found |= {(job_no, number): option for number, option in pairs}
    return found


def _read(job_no: int, contents: dict[int, bytes]) -> pl.DataFrame:
    try:
        return read_archived(list(contents.values()), list(contents))
    except CorruptContent as error:
        first = find_corrupt(contents)
        raise ArchiveCorrupt(
            f"The archived labels of job {job_no} from task {first} on are corrupt: {error}."
        ) from error


def read_unarchived(tx: Transaction, job_no: int, from_task: int, until_task: int) -> pl.DataFrame:
    """Return the labels of some tasks that are still in their tables, as `read_labels` does."""
    values = {
        "job_no": job_no, "from_task": from_task, "until_task": until_task, "open": OPEN,
        "no_skill": _NO_SKILL,
    }  # fmt: skip
    answer = tx.execute(_SQL["read_labels"], values, binary=True).pgresult
    assert answer is not None  # a statement with rows
    packed = [value for n in range(len(LABEL_COLUMNS)) if (value := answer.get_value(0, n))]
    if not packed:
        return pl.DataFrame(schema=LABEL_COLUMNS)
    task_nos, outcomes, options, annotator_nos, skills, created_at = packed
    skill = arrays.smallints(skills)
    outcome = arrays.smallints(outcomes)
    return pl.DataFrame(
        {
            "task_no": arrays.bigints(task_nos),
            "outcome": outcome.set(outcome == OPEN, None),
            "option": arrays.smallints(options),
            "annotator_no": arrays.integers(annotator_nos),
            "skill": skill.set(skill == _NO_SKILL, None),
            "created_at": arrays.times(created_at),
        }
    ).cast(pl.Schema(LABEL_COLUMNS))
