"""Summarize the latencies of requests for a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_MS = 1000


@dataclass(frozen=True)
class Latency:
    """Give the milliseconds within which half, 95 % and 99 % of some requests stayed."""

    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Take the nearest rank, so each is a latency that was measured; there must be at least one."""
        ordered = sorted(seconds)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * _MS

        return cls(at(0.50), at(0.95), at(0.99))

    def __str__(self) -> str:
        return f"{self.p50_ms:.1f} / {self.p95_ms:.1f} / {self.p99_ms:.1f}"
