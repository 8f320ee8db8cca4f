"""Measure annotators at work once: run their process, and read the servers' processor time."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from benchmarks import processor_time
from benchmarks.annotation_jobs import OPTIONS
from benchmarks.annotators import Counts, Plan
from benchmarks.servers import Databases

_REPOSITORY = Path(__file__).parent.parent
# Seconds for the interpreter's start, and then to warm connections, caches and plans.
_START_S = 1.0
_WARM_S = 2.0
# The last request of a loop ends after the measurement.
_END_TIMEOUT_S = 180.0


class AnnotatorsFailed(Exception):
    """A request failed or was answered wrongly; the last lines say how."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Say how annotation is measured."""

    annotators: Annotated[int, Parameter(validator=Number(gte=1, lte=200))] = 8
    """Annotators who work at the same time, each in a closed loop."""
    seconds: Annotated[float, Parameter(validator=Number(gte=1))] = 8.0
    """Seconds of each measurement of annotation."""
    open_tasks: Annotated[int, Parameter(validator=Number(gte=10_000))] = 1_000_000
    """Tasks that are pending or open in the larger of the two jobs that claims are compared in."""


@dataclass(frozen=True)
class Run:
    """Count what annotators did in `seconds`, with the processor time of it."""

    counts: Counts
    seconds: float
    api_cpu_s: float
    postgres_cpu_s: float


def run(databases: Databases, keys: Sequence[str], batch: int, seconds: float) -> Run:
    """Let one annotator for each key work, with claims of `batch` tasks.

    Raises:
        AnnotatorsFailed: an answer was not a 200, a claim was empty or a label was refused.
    """
    api = urlsplit(databases.stack.api_url)
    begin_s = time.monotonic() + _START_S + _WARM_S
    plan = Plan(
        host=str(api.hostname),
        port=int(api.port or 0),
        keys=list(keys),
        options=OPTIONS,
        batch=batch,
        begin_s=begin_s,
        end_s=begin_s + seconds,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.annotators"],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        return _watch(process, plan, databases)
    finally:
        process.kill()  # it does nothing to a process that has ended
        process.wait()


def _watch(process: subprocess.Popen[bytes], plan: Plan, databases: Databases) -> Run:
    assert process.stdin is not None  # it is a pipe
    process.stdin.write(msgspec.json.encode(plan))
    process.stdin.close()
    process.stdin = None  # communicate() would flush it
    time.sleep(max(0.0, plan.begin_s - time.monotonic()))
    api_s = processor_time.api_s(databases)
    postgres_s = processor_time.postgres_s(databases)
    time.sleep(max(0.0, plan.end_s - time.monotonic()))
    api_s = processor_time.api_s(databases) - api_s
    postgres_s = processor_time.postgres_s(databases) - postgres_s
    output, errors = process.communicate(timeout=_END_TIMEOUT_S)
    if process.returncode:
        raise AnnotatorsFailed(errors.decode()[-2000:])
    counts = msgspec.json.decode(output, type=Counts)
    if not counts.claims_s or not counts.labels_s:
        raise AnnotatorsFailed("No request ended within the measurement; give it more seconds.")
    return Run(counts, plan.end_s - plan.begin_s, api_s, postgres_s)
