"""Exclude annotators from jobs, and set their labels aside. The rules are in `sql/exclusions.sql`."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from blocks.store import jobs, lease_returns, review_queue, webhook_messages
from blocks.store.database import Database, Locked, Rollback, Transaction
from blocks.store.queries import load

_SQL = load("exclusions")

_LABELS_LOOKED_AT_MAX = 5_000  # in one step, of which those of one annotator are set aside
_STEPS_MAX = 200
_WRITERS_S_MAX = 1.0
_LOOK_EVERY_S = 0.01


class Exclusion(msgspec.Struct, frozen=True):
    """An annotator who gets no more tasks of a job."""

    annotator_id: str
    """The annotator."""
    excluded_at: datetime
    """Since when."""
    reason: str
    """`customer`: you have asked for it. `min_accuracy`: they were right on too few gold tasks."""
    labels_set_aside: int
    """Labels of theirs that do not count any more."""
    tasks_reopened: int
    """Tasks that had ended, and have no result without these labels."""
    is_under_way: bool
    """True while there are labels left to be set aside; the job does not complete before."""
    done_at: datetime | None
    """When all were set aside; null before, and where they are kept."""


def find_annotator(tx: Transaction, job_no: int, annotator_id: str) -> int | None:
    """Return the number of an annotator who has to do with the job; None if there is none."""
    values = {"job_no": job_no, "annotator_id": annotator_id}
    row = tx.execute(_SQL["find"], values).fetchone()
    return None if row is None else int(row["annotator_no"])


def was_begun(tx: Transaction, job_no: int, annotator_no: int) -> bool:
    """Return whether the annotator's labels are set aside already; no other begins it before the end."""
    lease_returns.await_claims(tx, annotator_no)
    place = {"job_no": job_no, "annotator_no": annotator_no}
    return tx.execute(_SQL["find_begun"], place).fetchone() is not None


def exclude(tx: Transaction, job_no: int, annotator_no: int) -> bool:
    """Hand the annotator nothing more of the job, and have their labels set aside, step by step.

    Return False, and change nothing, if all tasks of the job have ended. Again, it changes nothing.
    """
    place = {"job_no": job_no, "annotator_no": annotator_no}
    # In the order of claims and labels: claims, leases, what is known of the annotator, the job.
    if was_begun(tx, job_no, annotator_no):
        return True
    tx.execute(_SQL["lock_leases"], place)
    with tx.transaction():
        tx.execute(_SQL["exclude"], place)
        if tx.execute(_SQL["lock_open_job"], place).fetchone() is None:
            raise Rollback
        tx.execute(_SQL["begin"], place)
        lease_returns.take_leases_back(tx, annotator_no)
        return True
    return False


def get(tx: Transaction, job_no: int, annotator_no: int) -> Exclusion | None:
    """Return what has become of an exclusion; None if the annotator is not excluded."""
    place = {"job_no": job_no, "annotator_no": annotator_no}
    row = tx.execute(_SQL["get"], place).fetchone()
    return None if row is None else msgspec.convert(row, Exclusion)


def list_all(tx: Transaction, job_no: int) -> list[Exclusion]:
    """Return the exclusions from a job, the first one first."""
    rows = tx.execute(_SQL["list"], {"job_no": job_no}).fetchall()
    return msgspec.convert(rows, list[Exclusion])


def go_on(database: Database, *, job_no: int | None = None, steps_max: int = _STEPS_MAX) -> int:
    """Set labels aside in up to `steps_max` steps, a transaction each; return how many were done.

    Of one job, or of all. Wait a moment for labels that are just being counted; where they take longer,
    or others hold what a step needs, it is for the next time. Any number of processes may do so at once.
    """
    with database.transaction() as tx:
        values = {"job_no": job_no, "limit": steps_max}
        under_way = tx.execute(_SQL["list_under_way"], values).fetchall()
    steps, give_up_at = 0, time.monotonic() + _WRITERS_S_MAX
    for place in under_way:
        while steps < steps_max and _step(database, place, give_up_at):
            steps += 1
    return steps


def _step(database: Database, place: dict[str, Any], give_up_at: float) -> bool:
    """Do the next step of one exclusion; return False if it is done, or cannot go on now."""
    try:
        with database.transaction() as tx:
            taken = tx.execute(_SQL["take"], place).fetchone()
            if taken is None:  # somebody else does it
                return False
            if taken["is_alone"]:
                return _set_aside_some(tx, taken)
            return _await_writers(tx, place, give_up_at)
    except Locked:
        return False


def _await_writers(tx: Transaction, place: dict[str, Any], give_up_at: float) -> bool:
    """Wait for the labels that do not see the exclusion; return whether all are there.

    This looks, and waits for no lock: other labels would have to wait behind it.
    """
    while True:
        row = tx.execute(_SQL["await_writers"], place).fetchone()
        assert row is not None  # `take` has locked it
        if row["is_alone"] or time.monotonic() > give_up_at:
            return bool(row["is_alone"])
        time.sleep(_LOOK_EVERY_S)


def _set_aside_some(tx: Transaction, taken: dict[str, Any]) -> bool:
    seen = tx.execute(_SQL["scan"], taken | {"labels_max": _LABELS_LOOKED_AT_MAX}).fetchone()
    assert seen is not None  # an aggregate
    counts = {"labels": 0, "reopened": 0}
    if seen["task_nos"] and taken["is_open"]:
        values = taken | {"task_nos": seen["task_nos"]}
        tx.execute(_SQL["lock_tallies"], values)
        # A statement of its own, to see what was committed before the votes were locked.
        row = tx.execute(_SQL["set_aside"], values).fetchone()
        assert row is not None  # an aggregate
        _end(tx, taken, row.pop("ended"))
        counts |= row
    is_done = seen["labels"] < _LABELS_LOOKED_AT_MAX or not taken["is_open"]
    last = {"last_task": seen["last_task"], "last_annotator": seen["last_annotator"]}
    tx.execute(_SQL["record"], taken | last | counts | {"is_done": is_done})
    if is_done:
        jobs.settle(tx, [taken["job_no"]])
    return not is_done


def _end(tx: Transaction, taken: dict[str, Any], task_nos: Sequence[int]) -> None:
    """Do with tasks that have come to their end what is done where a label ends them."""
    rows = [{"job_no": taken["job_no"], "task_no": task_no} for task_no in task_nos]
    review_queue.hold_back(tx, rows)
    settled = [row["task_no"] for row in rows if row["settled"]]
    if taken["announces"]:
        webhook_messages.announce_tasks(
            tx, [(taken["job_no"], taken["job_id"], number) for number in settled]
        )
