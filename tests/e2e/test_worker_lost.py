"""A worker and the run that it had are killed: the job goes on by itself.

It takes Prefect 75 seconds to notice, so `lost` is begun before the first test on the same stack.
"""

import time
from datetime import datetime

import httpx
import pytest

from tests.support.checks import check_errors
from tests.support.client import runs_of, wait_for
from tests.support.lost_worker import Lost

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

RECOVERS_S = 120


def test_a_job_whose_worker_and_run_were_killed_goes_on_without_a_human(
    lost: Lost, prefect: httpx.Client
) -> None:
    lines = len(lost.manifest.good) + len(lost.manifest.bad)
    assert lost.had < lines
    deadline = lost.killed_s + RECOVERS_S
    while (job := lost.customer.job(lost.job_id))["total_tasks"] < lines:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert job["tasks_failed"] == len(lost.manifest.bad)
    check_errors(lost.customer.http.get(f"/v1/jobs/{lost.job_id}/errors").content, lost.manifest)
    wait_for(
        "the runs to end", lambda: all(run["end_time"] for run in runs_of(prefect, lost.job_id))
    )
    runs = runs_of(prefect, lost.job_id)
    first = min(runs, key=lambda run: datetime.fromisoformat(run["created"]))
    assert first["state"]["type"] == "CRASHED"
    assert "no sign of life" in first["state"]["message"]
