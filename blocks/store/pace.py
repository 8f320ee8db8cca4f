"""Tell how fast a job is being labelled, and when it will be done, from a bounded number of rows."""

from datetime import datetime, timedelta

import msgspec

from blocks.store.database import Transaction
from blocks.store.jobs import Job
from blocks.store.queries import load

_SQL = load("pace")

_WINDOW_S = 3600.0  # an hour, the unit of the pace as well
_REQUESTS_MAX = 1_000
_SAMPLE_MAX = 1_000
_CHUNKS_MAX = 20  # people take the tasks of few at a time
_VACANCIES_MAX = 100_000
_SECONDS_MIN = 1.0  # requests that come at one moment say nothing of an hour
_ETA_DAYS_MAX = 36_500


class Pace(msgspec.Struct, frozen=True):
    """How fast a job is labelled.

    `labels_per_hour` is None after one request alone. `labels_left` is an estimate. `seconds_left` is
    None where nobody labels, or lines are still to come.
    """

    labels_per_hour: float | None
    labels_left: int
    seconds_left: float | None

    def eta(self, now: datetime) -> datetime | None:
        """Return when the last label will come; None if that is not known, or in a hundred years."""
        if (
            self.seconds_left is None
            or self.seconds_left > timedelta(_ETA_DAYS_MAX).total_seconds()
        ):
            return None
        return (now + timedelta(seconds=self.seconds_left)).replace(microsecond=0)


def measure(tx: Transaction, job: Job) -> Pace:
    """Measure by up to 1,000 requests of the last hour, and the first 1,000 tasks with labels.

    It also reads a row or two for each chunk, as the sums of the job do, up to 2,000 tasks of each of 20
    chunks that are being handed out, and up to 100,000 vacancies.
    """
    labels_per_hour = _count_per_hour(tx, job.job_no)
    labels_left = _count_left(tx, job)
    if not labels_per_hour or job.ingested_at is None:
        return Pace(labels_per_hour, labels_left, None)
    return Pace(labels_per_hour, labels_left, labels_left / labels_per_hour * _WINDOW_S)


def _count_per_hour(tx: Transaction, job_no: int) -> float | None:
    bounds = {"window_s": _WINDOW_S, "requests_max": _REQUESTS_MAX}
    row = tx.execute(_SQL["recent"], {"job_no": job_no, **bounds}).fetchone()
    assert row is not None  # of sums
    if row["requests"] == 0:
        return 0.0
    if row["requests"] == 1 or row["seconds"] < _SECONDS_MIN:
        return None
    return float(row["labels"] / row["seconds"] * _WINDOW_S)


def _count_left(tx: Transaction, job: Job) -> int:
    """Estimate the labels to come: the places that nobody was handed, and what ties will take beyond.

    Ended tasks tell that: by how many labels more, or fewer with `stop_early`, than the threshold.
    """
    values = {
        "job_no": job.job_no,
        "sample_max": _SAMPLE_MAX,
        "chunks_max": _CHUNKS_MAX,
        "vacancies_max": _VACANCIES_MAX,
    }
    row = tx.execute(_SQL["progress"], values).fetchone()
    assert row is not None  # of sums
    waiting = row["open"] - row["under_review"]
    places = row["coming"] + row["vacant"]
    needed = row["labels"] / row["sampled"] if row["sampled"] else job.consensus_threshold
    left = places + (needed - job.consensus_threshold) * waiting
    return int(max(round(left), round(min(places, waiting)), 0))
