"""Tell how long the labels of a job took, as `label_batches` records it."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("label_times")

_WIDTH = 1.05  # of a bucket of time_bucket(), as a ratio
_DIGITS = 3


class Times:
    """The labels of a job by the buckets of their times, for each annotator."""

    def __init__(self, labels: Mapping[int, Counter[int]]) -> None:
        self._labels = labels

    @classmethod
    def read(cls, tx: Transaction, job_no: int) -> "Times":
        """Count the labels of a job, of requests that are folded and of others."""
        labels: dict[int, Counter[int]] = defaultdict(Counter)
        for row in tx.execute(_SQL["read"], {"job_no": job_no}):
            labels[row["annotator_no"]][row["bucket"]] = row["labels"]
        return cls(labels)

    def median(self, annotator_no: int | None = None) -> float | None:
        """Return the median seconds of a label, of one annotator or of all; None if none is known.

        It is the middle of its bucket, so it is off by 2.5 % at most.
        """
        some = (
            self._labels.values()
            if annotator_no is None
            else [self._labels.get(annotator_no, Counter())]
        )
        counts: Counter[int] = Counter()
        for each in some:
            counts.update(each)
        rest = (counts.total() + 1) // 2
        for bucket in sorted(counts):
            rest -= counts[bucket]
            if rest <= 0:
                return float(f"{_WIDTH**bucket:.{_DIGITS}g}")
        return None
