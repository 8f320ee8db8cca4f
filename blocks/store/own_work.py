"""What annotators can look up: who they are, and the jobs whose tasks they are handed."""

import random

import msgspec

from blocks.store.annotation import LabelledJob
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("own_work")

# Where a job has more open places, one that is not looked at may be for the annotator.
_VACANCIES_MAX = 1_000


class FullJob(LabelledJob, frozen=True, kw_only=True):
    """A job with its instructions; `is_open` while its tasks take labels."""

    instructions: str | None
    is_open: bool


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
