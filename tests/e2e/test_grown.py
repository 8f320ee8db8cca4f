"""`make grown` at its least: machines out of namespaces, one API behind Caddy, one worker, ten lines."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.grown import isolation
from deployments.registered import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    if why := isolation.obstacle():
        pytest.skip(why)


def test_a_job_is_read_on_several_machines_that_can_be_limited_cut_and_crashed(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "benchmarks.grown", "--smoke"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10 tasks; ")
