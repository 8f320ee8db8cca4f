"""Tell how a job went on: lines that were read and labels that came, over time."""

from datetime import datetime

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("timeline")

_REQUESTS_MAX = 10_000
_STEPS_MAX = 60
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400)


class Point(msgspec.Struct, frozen=True):
    """How many came within one step."""

    at: datetime
    """When the step begins."""
    count: int
    """How many came."""


class Series(msgspec.Struct, frozen=True):
    """Counts over time; steps in which nothing came are left out."""

    step_s: int
    """How many seconds a step has."""
    points: list[Point]
    """The steps, the first one first; some 60 at most, unless that takes more than a day for each."""


def list_lines(tx: Transaction, job_no: int) -> Series:
    """Return the lines of the job's manifest by when they were recorded; reads a row for each chunk."""
    return _list(tx, "lines", {"job_no": job_no})


def list_labels(tx: Transaction, job_no: int) -> Series:
    """Return the labels of the latest 10,000 requests by when they came."""
    return _list(tx, "labels", {"job_no": job_no, "requests_max": _REQUESTS_MAX})


def _list(tx: Transaction, name: str, values: dict[str, int]) -> Series:
    span = tx.execute(_SQL[f"span_of_{name}"], values).fetchone()
    if span is None or span["first_at"] is None:
        return Series(_STEPS_S[0], [])
    span_s = (span["last_at"] - span["first_at"]).total_seconds()
    step_s = next((step for step in _STEPS_S if span_s / step <= _STEPS_MAX), _STEPS_S[-1])
    rows = tx.execute(_SQL[name], values | {"step_s": step_s})
    return Series(step_s, [Point(row["at"], row["count"]) for row in rows])
