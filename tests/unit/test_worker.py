"""The worker forks its runs from a process that has imported what they need."""

import asyncio
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseWorker

from deployments import prefect_internals
from deployments.remembering_client import RememberingClient
from deployments.worker import ForkJobConfiguration
from flows.running import warming

PACKAGES = ("api", "blocks", "deployments", "flows")
ROOT = Path(__file__).parents[2]

# In a program of its own: the fork server of this one has to have a clean start.
FORKS = """
import multiprocessing
import sys

from deployments.worker import PRELOADED


def validate(queue):
    assert {"deployments.preload", "flows.submit_manifests"} <= set(sys.modules)
    from flows.reading.fast_path import validate_lines

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
    assert "Traceback" not in done.stderr  # preload says what it has not got ready, and goes on


def test_it_is_a_type_of_work_pool_of_its_own() -> None:
    from prefect.server.schemas.actions import WorkPoolCreate
    from prefect.workers.base import BaseWorker

    from deployments.worker import ForkWorker

    assert BaseWorker.get_worker_class_from_type("refinery") is ForkWorker
    template = ForkWorker.get_default_base_job_template()
    WorkPoolCreate(name="refinery", type="refinery", base_job_template=template)


def test_prefect_finds_the_type_without_being_told_where_it_is() -> None:
    program = "from prefect.workers.base import BaseWorker as b; print(b.get_all_available_worker_types())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/"
    )
    assert "'refinery'" in done.stdout


def test_prefect_still_has_every_private_name_that_the_worker_stands_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert prefect_internals.missing() == []
    names = prefect_internals.USED[BaseWorker]
    monkeypatch.setattr(prefect_internals, "USED", {BaseWorker: (*names, "_gone")})
    assert prefect_internals.missing() == ["BaseWorker._gone"]


def test_private_modules_of_prefect_are_imported_in_one_file() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    importing = [
        path.name for path in files if re.search(r"prefect\.[a-z_.]*\._[a-z]", path.read_text())
    ]
    assert importing == ["prefect_internals.py"]


class Prefect:
    """Plays the client that the worker remembers the answers of."""

    def __init__(self) -> None:
        self.asked: list[UUID] = []

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        self.asked.append(deployment_id)
        flow_id = uuid4()
        return DeploymentResponse(
            id=deployment_id, name="d", flow_id=flow_id, job_variables={}, labels={}
        )


def test_a_deployment_is_asked_for_once_for_a_run_and_again_for_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefect, one, other = Prefect(), uuid4(), uuid4()
    client = RememberingClient(cast(PrefectClient, prefect))

    def read(deployment_id: UUID) -> DeploymentResponse:
        return asyncio.run(client.read_deployment(deployment_id))

    read(one).job_variables["env"] = {"of": "one run"}
    assert read(one).job_variables == {}
    read(other)
    assert prefect.asked == [one, other]
    monkeypatch.setattr("deployments.remembering_client._DEPLOYMENT_S", 0.0)
    read(one)
    assert prefect.asked == [one, other, one]


@pytest.mark.parametrize(
    "entrypoint, pull_steps, is_told",
    [
        ("flows.process_job.process_job", [], True),
        ("flows/process_job.py:process_job", [], False),
        ("theirs.flow", [{"prefect.deployments.steps.git_clone": {}}], False),
    ],
)
def test_a_run_is_told_its_flow_where_nothing_is_pulled(
    entrypoint: str, pull_steps: list[dict[str, Any]], is_told: bool
) -> None:
    flow_id = uuid4()
    run = FlowRun(flow_id=flow_id, name="a")
    deployment = DeploymentResponse(
        id=uuid4(),
        name="d",
        flow_id=flow_id,
        entrypoint=entrypoint,
        pull_steps=pull_steps,
        labels={},
    )
    configuration = ForkJobConfiguration()
    configuration.prepare_for_flow_run(run, deployment)
    told = configuration.env.get("PREFECT__FLOW_ENTRYPOINT")
    assert told == (entrypoint if is_told else None)


@pytest.mark.parametrize(
    "env, has_settings",
    [({"REFINERY_CHUNKS_IN_FLIGHT": "2"}, False), ({"PREFECT_LOGGING_LEVEL": "DEBUG"}, True)],
)
def test_settings_of_a_pool_are_read_by_its_runs(
    env: dict[str, str | None], has_settings: bool
) -> None:
    configuration = ForkJobConfiguration(env=env)
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="a"))
    assert configuration.has_settings is has_settings


def test_connecting_early_changes_nothing_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def fail(job_id: str) -> None:
        tried.set()
        raise ConnectionError(job_id)

    monkeypatch.setattr(warming, "database", lambda: None)
    monkeypatch.setattr(warming, "load_job", fail)
    warming.warm_up("job_1")
    assert tried.wait(10)
    warming._connect("job_1")
