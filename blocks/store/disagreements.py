"""List the tasks of a job whose labels are not all alike, page by page, without gold.

A page looks at a bounded number of tasks, so it may have few of them, or none, and yet not be the last.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
import polars as pl

from blocks.domain.consensus import ALL, confidence_of, weight
from blocks.domain.ids import chunk_of
from blocks.domain.model import GoodLine
from blocks.store import archive, pages, quality
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("disagreements")

_TASKS_MAX = 4096
_ARCHIVED_PAGES_MAX = 16
_END = 2**63 - 1
_CURSOR = re.compile(r"0|[1-9][0-9]{0,17}")


class State(StrEnum):
    """Whether a task has an outcome, and of which kind."""

    OPEN = "open"
    SETTLED = "settled"
    FAILED = "failed"


class Filter(msgspec.Struct, frozen=True):
    """Which tasks are wanted; None: any.

    They are in one of these states, and have a label for the 1-based `option` and one by the annotator.
    """

    states: Sequence[State] | None = None
    option: int | None = None
    annotator_id: str | None = None


class Vote(msgspec.Struct, frozen=True):
    """A label of a task: who chose which option, 1-based, and when."""

    annotator_id: str
    option: int
    created_at: datetime


class Disagreement(msgspec.Struct, frozen=True):
    """A task, its votes for each option, and its labels in the order in which they came.

    `outcome` is None for an open task, else the option on which it settled, 1-based, or 0 or less. The
    number of its line, 1-based, is None where it is not known. `confidence`, 0 to 1, is that of the
    option on which it settled, else None.
    """

    task_no: int
    outcome: int | None
    votes: Sequence[int]
    confidence: float | None
    labels: Sequence[Vote]
    line: int | None
    content: GoodLine


class Page(msgspec.Struct, frozen=True):
    """Tasks in the order of the manifest, and the cursor of the next page; None after the last one."""

    found: Sequence[Disagreement]
    cursor: str | None


class _Task(msgspec.Struct, frozen=True):
    task_no: int
    outcome: int | None
    votes: Sequence[int]
    archived: Sequence[Mapping[str, Any]]  # its labels, if they are in the archive


def list_page(
    tx: Transaction,
    job_no: int,
    *,
    options: int,
    limit: int,
    after: str | None = None,
    wanted: Filter = Filter(),  # noqa: B008 - it is frozen
) -> Page | None:
    """Return up to `limit` tasks from after the cursor `after` on; None if that is no cursor.

    `options` is how many the job has. This has to come first in its transaction, so that a label that is
    just moving to the archive is seen once.

    Raises:
        ArchiveCorrupt, PageCorrupt: a page of the archive, or of tasks, is.
    """
    if after is not None and not _CURSOR.fullmatch(after):
        return None
    quality.begin_snapshot(tx)
    place = -1 if after is None else int(after)
    tasks, seen_to = _find_kept(tx, job_no, place, wanted, limit=limit + 1)
    archived, archived_to = _find_archived(tx, job_no, place, wanted, options=options)
    until = min(seen_to, archived_to)
    found = sorted(
        (task for task in (*tasks, *archived) if task.task_no <= until),
        key=lambda task: task.task_no,
    )
    shown = found[:limit]
    if len(found) > limit:
        until = shown[-1].task_no
    return Page(_describe(tx, job_no, shown), None if until == _END else str(until))


def _find_kept(
    tx: Transaction, job_no: int, after: int, wanted: Filter, *, limit: int
) -> tuple[list[_Task], int]:
    """Return tasks whose votes are in the tables, and the number of the last one that was looked at."""
    values: dict[str, Any] = {
        "job_no": job_no, "after": after, "tasks_max": _TASKS_MAX, "limit": limit,
    }  # fmt: skip
    values |= msgspec.structs.asdict(wanted)
    values["states"] = None if wanted.states is None else [state.value for state in wanted.states]
    rows = tx.execute(_SQL["find"], values).fetchall()
    until = rows[0]["until"]
    found = [
        _Task(row["task_no"], row["outcome"], row["votes"], ())
        for row in rows
        if row["task_no"] is not None
    ]
    return found, _END if until is None else until


def _find_archived(
    tx: Transaction, job_no: int, after: int, wanted: Filter, *, options: int
) -> tuple[list[_Task], int]:
    """Return the same of tasks whose labels are in the archive."""
    labels, until = archive.read_next(tx, job_no, after, pages_max=_ARCHIVED_PAGES_MAX)
    labels = labels.filter(pl.col("task_no") > after, pl.col("option") > 0)
    option = pl.col("option")
    conditions = [option.n_unique() > 1]
    if wanted.option is not None:
        conditions.append((option == wanted.option).any())
    if wanted.annotator_id is not None:
        annotator_no = quality.find_annotator(tx, wanted.annotator_id)
        conditions.append((pl.col("annotator_no") == (annotator_no or 0)).any())
    if wanted.states is not None:
        states = [_IS_IN[state].first() for state in wanted.states]
        conditions.append(pl.any_horizontal(pl.lit(value=False), *states))
    chosen = labels.filter(pl.all_horizontal(each.over("task_no") for each in conditions))
    by_task: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in chosen.iter_rows(named=True):
        by_task[row["task_no"]].append(row)
    values = {"job_no": job_no, "task_nos": list(by_task)}
    for row in tx.execute(_SQL["gold"], values).fetchall() if by_task else ():
        del by_task[row["task_no"]]
    found = []
    for number, rows in by_task.items():
        said = [row["option"] for row in rows]
        votes = [said.count(each) for each in range(1, options + 1)]
        found.append(_Task(number, rows[0]["outcome"], votes, rows))
    return found, _END if until is None else until


_OUTCOME = pl.col("outcome")
_IS_IN = {
    State.OPEN: _OUTCOME.is_null(),
    State.SETTLED: (_OUTCOME > 0).fill_null(value=False),
    State.FAILED: (_OUTCOME <= 0).fill_null(value=False),
}


def _describe(tx: Transaction, job_no: int, tasks: Sequence[_Task]) -> list[Disagreement]:
    """Return tasks with their lines and labels."""
    if not tasks:
        return []
    labels = _list_labels(tx, job_no, tasks)
    ids = quality.find_annotator_ids(
        tx, {row["annotator_no"] for rows in labels.values() for row in rows}
    )
    lines = pages.read(tx, [(job_no, task.task_no) for task in tasks])
    before = _count_lines_before(tx, job_no, {chunk_of(task.task_no) for task in tasks})
    return [
        Disagreement(
            task_no=task.task_no,
            outcome=task.outcome,
            votes=task.votes,
            confidence=_confidence(task, labels[task.task_no]),
            labels=[
                Vote(ids[row["annotator_no"]], row["option"], row["created_at"])
                for row in labels[task.task_no]
            ],
            line=_number(before[chunk_of(task.task_no)], lines[job_no, task.task_no]),
            content=lines[job_no, task.task_no],
        )
        for task in tasks
    ]


def _confidence(task: _Task, labels: Sequence[Mapping[str, Any]]) -> float | None:
    if task.outcome is None or task.outcome <= 0:
        return None
    if any(row["skill"] is None for row in labels):  # the majority decides
        return task.votes[task.outcome - 1] / sum(task.votes)
    scores = [0] * len(task.votes)
    for row in labels:
        scores[row["option"] - 1] += weight(row["skill"], len(scores))
    return confidence_of(scores, task.outcome) / ALL


def _list_labels(
    tx: Transaction, job_no: int, tasks: Iterable[_Task]
) -> Mapping[int, Sequence[Mapping[str, Any]]]:
    """Return the labels of each task, in the order in which they came."""
    kept = [task.task_no for task in tasks if not task.archived]
    rows: list[Mapping[str, Any]] = []
    rows += tx.execute(_SQL["labels"], {"job_no": job_no, "task_nos": kept})
    rows += [row for task in tasks for row in task.archived]
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["created_at"], row["annotator_no"])):
        found[row["task_no"]].append(row)
    return found


def _count_lines_before(
    tx: Transaction, job_no: int, chunk_nos: Iterable[int]
) -> dict[int, int | None]:
    values = {"job_no": job_no, "chunk_nos": list(chunk_nos)}
    rows = tx.execute(_SQL["lines_before"], values)
    return {row["chunk_no"]: row["lines_before"] for row in rows}


def _number(lines_before: int | None, line: GoodLine) -> int | None:
    return None if lines_before is None else lines_before + line.line
