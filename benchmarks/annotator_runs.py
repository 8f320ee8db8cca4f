"""Measure annotators at work once: run their process, and read the servers' processor time."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks import processor_time
from benchmarks.annotation_jobs import OPTIONS
from benchmarks.annotators import Counts, Plan
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes

_REPOSITORY = Path(__file__).parent.parent
# The last request of a loop ends after the measurement.
_END_TIMEOUT_S = 180.0


class AnnotatorsFailed(Exception):
    """A request failed or was answered wrongly; the last lines say how."""


@dataclass(frozen=True)
class Run:
    """Count what annotators did in `seconds`, with the processor time of it."""

    counts: Counts
    seconds: float
    api_cpu_s: float
    postgres_cpu_s: float


def run(
    databases: Databases,
    keys: Sequence[str],
    batch: int,
    sizes: Sizes,
    *,
    seconds: float | None = None,
    labels_per_s: float | None = None,
) -> Run:
    """Let one annotator for each key work, with claims of `batch` tasks.

    They work as fast as they can, or hand in `labels_per_s` together, at set times; for `seconds`, or
    as long as annotation is measured.

    Raises:
        AnnotatorsFailed: an answer was not a 200, a claim was empty or a label was refused.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.annotators"],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None  # it is a pipe
        process.stdout.readline()  # it is ready, or has failed
        api = urlsplit(databases.stack.api_url)
        begin_s = time.monotonic() + sizes.warm_seconds
        plan = Plan(
            host=str(api.hostname),
            port=int(api.port or 0),
            keys=list(keys),
            options=OPTIONS,
            batch=batch,
            begin_s=begin_s,
            end_s=begin_s + (seconds or sizes.seconds),
            period_s=len(keys) * batch / labels_per_s if labels_per_s else 0.0,
        )
        return _watch(process, plan, databases)
    finally:
        process.kill()  # it does nothing to a process that has ended
        process.wait()


def _watch(process: subprocess.Popen[bytes], plan: Plan, databases: Databases) -> Run:
    assert process.stdin is not None  # it is a pipe
    with contextlib.suppress(BrokenPipeError):  # its errors are read below
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
