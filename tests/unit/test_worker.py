"""The worker forks its runs from a process that has imported what they need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# In a program of its own: the fork server of this one has to have a clean start.
FORKS = """
import multiprocessing
import os

from deployments.worker import PRELOADED


def validate(queue):
    from flows.batches import validate_lines

    text = b'{"data_url": "https://a.example.com/"}\\n' * 50_000
    queue.put(sum(len(batch.tasks) for batch in validate_lines(text, 0)))


if __name__ == "__main__":
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(PRELOADED)
    queue = forks.SimpleQueue()
    children = [forks.Process(target=validate, args=(queue,)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0, child.exitcode
    print([queue.get() for _ in children])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_polars_works_in_a_fork_of_what_is_preloaded(tmp_path: Path) -> None:
    program = tmp_path / "forks.py"
    program.write_text(FORKS)
    done = subprocess.run(
        [sys.executable, program],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([50_000] * 8)


def test_prefects_own_class_for_the_type_stays_registered() -> None:
    from prefect.workers.base import BaseWorker
    from prefect.workers.process import ProcessWorker

    from deployments.worker import WarmWorker

    assert BaseWorker.get_worker_class_from_type("process") is ProcessWorker
    assert WarmWorker.type == "process"
