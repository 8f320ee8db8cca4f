"""What annotators can look up: who they are, and the jobs whose tasks they are handed."""

import random
from datetime import UTC, datetime

import msgspec

from blocks.store import task_numbers
from blocks.store.annotation import ClaimedTask, LabelledJob, describe_claimed
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("own_work")

# Where a job has more open places, one that is not looked at may be for the annotator.
_VACANCIES_MAX = 1_000


class FullJob(LabelledJob, frozen=True, kw_only=True):
    """A job with its instructions; `is_open` while its tasks take labels."""

    instructions: str | None
    is_open: bool


class OpenLabel(msgspec.Struct, frozen=True):
    """A label that may be replaced, and its task, which is not held: its lease ends when it was read."""

    task: ClaimedTask
    label: str
    created_at: datetime


class Self(msgspec.Struct, frozen=True):
    """An annotator, as they are told of themselves."""

    annotator_id: str
    name: str


def find_self(tx: Transaction, annotator_no: int) -> Self:
    """Return who an annotator is."""
    row = tx.execute(_SQL["find_annotator"], {"annotator_no": annotator_no}).fetchone()
    assert row is not None  # their key is theirs
    return msgspec.convert(row, Self)


def list_open_jobs(tx: Transaction, annotator_no: int, *, limit: int) -> list[LabelledJob]:
    """Return up to `limit` jobs that may have work for the annotator, in the order of claims.

    Jobs of one priority have their turns by lot; where there are more than `limit`, so is who is listed.
    """
    values = {
        "annotator_no": annotator_no,
        "task_types": None,
        "job_id": None,
        "seed": random.getrandbits(63),
        "jobs_max": limit,
        "vacancies_max": _VACANCIES_MAX,
    }
    rows = tx.execute(_SQL["list_open_jobs"], values).fetchall()
    return [msgspec.convert(row, LabelledJob) for row in rows]


def find_job(tx: Transaction, annotator_no: int, job_id: str) -> FullJob | None:
    """Return the job, with its instructions; None if there is none whose tasks they may be handed."""
    values = {"annotator_no": annotator_no, "job_id": job_id}
    row = tx.execute(_SQL["find_job"], values).fetchone()
    return None if row is None else msgspec.convert(row, FullJob)


def find_open_label(tx: Transaction, annotator_no: int, task_id: str) -> OpenLabel | None:
    """Return the annotator's label of a task, with the task.

    Return None if there is none, if the task takes no more labels, or if its page is corrupt.
    """
    number = task_numbers.find(tx, [task_id]).get(task_id)
    if number is None:
        return None
    values = {"annotator_no": annotator_no, "job_id": number[0], "task_no": number[1]}
    row = tx.execute(_SQL["find_open_label"], values).fetchone()
    if row is None:
        return None
    place = {"task_no": row["task_no"], "expires_at": datetime.now(UTC)}
    tasks = describe_claimed(tx, [(row["job_no"], place)])
    return OpenLabel(tasks[0], row["label"], row["created_at"]) if tasks else None
