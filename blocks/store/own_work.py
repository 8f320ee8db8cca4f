"""What annotators can look up: the jobs whose tasks they are handed."""

import msgspec

from blocks.store.annotation import LabelledJob
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("own_work")


class OpenJob(LabelledJob, frozen=True, kw_only=True):
    """A job as annotators are told of it; `is_open` while its tasks take labels."""

    instructions: str | None
    is_open: bool


def find_job(tx: Transaction, annotator_no: int, job_id: str) -> OpenJob | None:
    """Return the job, with its instructions; None if there is none whose tasks they may be handed."""
    values = {"annotator_no": annotator_no, "job_id": job_id}
    row = tx.execute(_SQL["find_job"], values).fetchone()
    return None if row is None else msgspec.convert(row, OpenJob)
