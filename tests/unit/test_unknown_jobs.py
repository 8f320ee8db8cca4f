"""A run whose job is not there, or is deleted meanwhile, ends quietly."""

from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows import deliver_job, process_job, small_jobs
from flows.running.resources import UnknownJob

FLOWS = {
    process_job: process_job.process_job,
    deliver_job: deliver_job.deliver_job,
    small_jobs: small_jobs.small_jobs,
}


@pytest.mark.parametrize("module", FLOWS, ids=lambda each: each.__name__)
def test_a_run_without_its_job_has_nothing_to_do(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_none(job_id: str) -> Any:
        raise UnknownJob(f"There is no job {job_id!r}.")

    monkeypatch.setattr(module, "load_job", find_none)
    run: Callable[[str], State[Any]] = FLOWS[module].fn
    state = run("job_1")
    assert state.is_completed()
    assert "nothing to do" in (state.message or "")
    assert FLOWS[module].parameters.required == ["job_id"]
