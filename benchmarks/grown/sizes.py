"""Sizes of the drill on several machines."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

_Count = Annotated[int, Parameter(validator=Number(gte=1))]
_Counts = Annotated[tuple[int, ...], Parameter(validator=Number(gte=1), consume_multiple=True)]
_Seconds = Annotated[float, Parameter(validator=Number(gt=0))]


@dataclass(frozen=True, kw_only=True)
class GrownSizes:
    """Say how large the machines are, and what they have to do."""

    share: Annotated[float, Parameter(validator=Number(gt=0, lte=1))] = 0.15
    """A share of CPU, in cores. It is small, so that all machines together leave some to spare."""
    shares: _Counts = (1, 2, 4)
    """Numbers of shares that each worker's machine has, in turn."""
    workers: _Counts = (1, 2, 3)
    """Numbers of workers that are at work, in turn."""
    rounds: _Count = 1
    """Everything is measured once in a round; figures are medians."""
    jobs: _Count = 24
    """Jobs that are posted at once."""
    lines: Annotated[int, Parameter(validator=Number(gte=100))] = 250_000
    """Lines of the manifest of each."""
    dask_workers: _Counts = (1, 2)
    """Numbers of Dask's workers, in turn."""
    dask_lines: Annotated[int, Parameter(validator=Number(gte=100))] = 3_000_000
    """Lines of the manifest that Dask's workers read together."""
    away_seconds: _Seconds = 60.0
    """How long a link is cut, and a machine is gone."""
    drained_seconds: _Seconds = 6.0
    """How long an API process that was drained is away."""
    seed: int = 1
    """Draws the instants of the faults."""
