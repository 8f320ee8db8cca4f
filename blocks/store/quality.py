"""Measure how well annotators agree on the tasks of a job."""

from collections.abc import Sequence

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("quality")


class Outcomes(msgspec.Struct, frozen=True):
    """How many `tasks` ended alike: settled or not, after `labels` labels, of which `agreed` agreed.

    `settled` is None for open tasks that have labels.
    """

    settled: bool | None
    labels: int
    agreed: int
    tasks: int


class OptionCount(msgspec.Struct, frozen=True):
    """Labels for an option, 1-based, and tasks that settled on it; `open`: labels on open tasks."""

    option: int
    labels: int
    tasks: int
    open: int


class AnnotatorCount(msgspec.Struct, frozen=True):
    """Labels of an annotator on settled tasks, and those that agree with the consensus.

    `open` counts their labels on open tasks.
    """

    annotator_id: str
    labels: int
    agreed: int
    open: int


class Quality(msgspec.Struct, frozen=True):
    """Counts over the tasks of a job that have labels."""

    outcomes: Sequence[Outcomes]
    options: Sequence[OptionCount]
    annotators: Sequence[AnnotatorCount]


def measure(tx: Transaction, job_no: int) -> Quality:
    """Count over all tallies and labels of the job; a million tasks take a second or two.

    This has to come first in its transaction, so that all counts are of one moment.
    """
    tx.execute(_SQL["one_snapshot"])
    tx.execute(_SQL["without_nested_loops"])
    values = {"job_no": job_no}
    return Quality(
        [Outcomes(**row) for row in tx.execute(_SQL["outcomes"], values)],
        [OptionCount(**row) for row in tx.execute(_SQL["options"], values)],
        [AnnotatorCount(**row) for row in tx.execute(_SQL["annotators"], values)],
    )
