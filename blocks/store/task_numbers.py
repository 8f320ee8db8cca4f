"""Find the numbers of tasks by their ids. Keys of jobs never change, and are kept in memory."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from blocks.domain.ids import parse_task_id, task_no_of
from blocks.store.database import Transaction
from blocks.store.queries import Statement, load

_SQL = load("task_numbers")

Number = tuple[str, int]
"""Of a task: the id of its job, and its number."""

_KEPT_MAX = 10_000  # jobs, 200 bytes each
_kept: dict[str, int] = {}


def find(tx: Transaction, task_ids: Iterable[str]) -> dict[str, Number]:
    """Return the numbers of tasks by their ids; what is no id of one of our jobs is left out.

    The jobs need not have tasks of those numbers.
    """
    parsed = {id_: key for id_ in task_ids if (key := parse_task_id(id_))}
    task_keys = _find_keys(tx, {job_id for job_id, _ in parsed.values()})
    return {
        id_: (job_id, task_no_of(task_keys[job_id], number))
        for id_, (job_id, number) in parsed.items()
        if job_id in task_keys
    }


def execute(
    tx: Transaction, statement: Statement, task_ids: Iterable[str], **values: Any
) -> dict[str, Mapping[str, Any]]:
    """Run a statement for some tasks, which it takes as arrays `job_ids` and `task_nos`.

    Return its rows by the ids of their tasks.
    """
    numbers = find(tx, task_ids)
    values["job_ids"] = [job_id for job_id, _ in numbers.values()]
    values["task_nos"] = [task_no for _, task_no in numbers.values()]
    rows = {(row["job_id"], row["task_no"]): row for row in tx.execute(statement, values)}
    return {id_: rows[number] for id_, number in numbers.items() if number in rows}


def _find_keys(tx: Transaction, job_ids: Collection[str]) -> dict[str, int]:
    # Another thread may clear them meanwhile.
    found = {job_id: key for job_id in job_ids if (key := _kept.get(job_id)) is not None}
    missing = [job_id for job_id in job_ids if job_id not in found]
    if missing:
        rows = tx.execute(_SQL["find_keys"], {"job_ids": missing}).fetchall()
        fresh = {row["job_id"]: row["task_key"] for row in rows}
        if len(_kept) + len(fresh) > _KEPT_MAX:
            _kept.clear()
        _kept.update(fresh)
        found |= fresh
    return found
