"""Every task has the retry policy, and `prefect.yaml` says what the code says."""

import ast
import asyncio
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from prefect.states import Crashed, Failed
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from blocks.domain import errors
from deployments import names
from flows.running.policy import chunk_runner, is_transient

ROOT = Path(__file__).parents[2]
TASKS = {
    "process_job": {
        "begin",
        "plan_chunks",
        "create_tasks",
        "create_tasks_of_compressed",
        "judge",
        "finish_ingestion",
        "fail_job",
    },
    "deliver_job": {
        "begin_delivery",
        "deliver",
        "find_delivery",
        "write_results",
        "write_bad_lines",
        "write_manifest",
        "tidy",
        "finish_delivery",
        "refuse_delivery",
    },
    "small_jobs": set(),
    "reconcile": {"reconcile_once"},
    "after_job": set(),
    "submit_manifests": {"check_parameters", "find_manifests", "submit"},
}
JOBS = ["process_job", "deliver_job", "small_jobs"]


def tasks_of(module: str) -> dict[str, Task[Any, Any]]:
    found = vars(import_module(f"flows.{module}"))
    return {name: value for name, value in found.items() if isinstance(value, Task)}


@pytest.mark.parametrize("module", list(TASKS))
def test_these_are_all_the_tasks_of_the_flow(module: str) -> None:
    assert tasks_of(module).keys() == TASKS[module]


@pytest.mark.parametrize("module", [path.stem for path in sorted((ROOT / "flows").glob("*.py"))])
def test_every_task_carries_the_retry_policy(module: str) -> None:
    for task in tasks_of(module).values():
        assert task.retries == 5
        assert task.retry_condition_fn is is_transient
        assert task.retry_delay_seconds == [1, 2, 4, 8, 16]
        assert task.retry_jitter_factor == 0.5
        assert task.cache_policy == NO_CACHE
        assert task.persist_result is False


@pytest.mark.parametrize("module", JOBS)
def test_a_run_is_given_the_id_of_its_job_and_nothing_else(module: str) -> None:
    flow = vars(import_module(f"flows.{module}"))[module]
    assert isinstance(flow, Flow)
    assert list(flow.parameters.properties) == ["job_id"]
    assert not flow.retries
    assert not flow.persist_result


def kinds(base: type[errors.RefineryError]) -> list[type[errors.RefineryError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, base)]


@pytest.mark.parametrize("kind", [k for k in kinds(errors.Transient) if k is not errors.RunEnded])
def test_what_time_may_mend_is_tried_again(kind: type[errors.RefineryError]) -> None:
    assert is_transient(None, None, Failed(data=kind("x")))  # type: ignore[arg-type]
    assert is_transient(None, None, Crashed(data=kind("x")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind", [*kinds(errors.Terminal), errors.UndecryptableCredentials, errors.RunEnded]
)
def test_what_no_retry_can_mend_is_not(kind: type[errors.RefineryError]) -> None:
    assert not is_transient(None, None, Failed(data=kind("unavailable, try again")))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ValueError, OSError, TimeoutError, AssertionError, MemoryError])
def test_nor_is_an_error_of_the_program(kind: type[Exception]) -> None:
    assert not is_transient(None, None, Failed(data=kind("x")))  # type: ignore[arg-type]


def test_as_many_chunks_run_side_by_side_as_the_settings_say() -> None:
    from blocks.settings import Settings

    settings = Settings(database_url="postgresql://", encryption_key="ab" * 32, chunks_in_flight=3)
    with chunk_runner(settings) as runner:
        assert getattr(runner, "_max_workers", None) == 3


def deployments() -> dict[str, dict[str, Any]]:
    """The deployments in `prefect.yaml`, by the name under which a run is started."""
    content = YAML(typ="safe").load(ROOT / "prefect.yaml")
    found = {}
    for deployment in content["deployments"]:
        found[f"{flow_name(deployment['entrypoint'])}/{deployment['name']}"] = deployment
    assert len(found) == len(content["deployments"])
    return found


def flow_name(entrypoint: str) -> str:
    """The name in the `@flow(name=…)` of `module.function`, read without importing anything."""
    module, _, function = entrypoint.rpartition(".")
    path = ROOT / f"{module.replace('.', '/')}.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "flow":
                    options = {k.arg: ast.literal_eval(k.value) for k in decorator.keywords}
                    return str(options["name"])
    raise AssertionError(f"{path} has no flow {function}")


OURS = [names.PROCESS_JOB, names.DELIVER_JOB, names.SMALL_JOBS, names.RECONCILE]
AFTER_JOB = "after-job/after-job"


def test_prefect_yaml_has_the_deployments_by_whose_names_runs_are_started() -> None:
    examples = {name for name in deployments() if name.startswith("submit-manifests/")}
    assert deployments().keys() - examples == {*OURS, AFTER_JOB}


@pytest.mark.parametrize("name", list(deployments()))
def test_each_runs_in_our_work_pool(name: str) -> None:
    deployment = deployments()[name]
    assert deployment["work_pool"]["name"] == names.WORK_POOL
    assert "refinery" in deployment["tags"]  # what the automations look for


@pytest.mark.parametrize("name", [names.PROCESS_JOB, names.DELIVER_JOB, names.SMALL_JOBS])
def test_a_job_is_begun_by_the_api_and_not_by_a_schedule(name: str) -> None:
    assert not {"parameters", "schedules"} & deployments()[name].keys()


def test_reconcile_comes_every_hour_where_no_api_asks_for_it() -> None:
    (schedule,) = deployments()[names.RECONCILE]["schedules"]
    assert (schedule["cron"], schedule.get("active", True)) == ("0 * * * *", True)


EXAMPLES = sorted(deployments().keys() - {*OURS, AFTER_JOB})


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_a_schedule_is_valid_and_does_not_fire_by_itself(name: str) -> None:
    (found,) = deployments()[name]["schedules"]
    assert found["active"] is False
    schedule = _schedule_config_to_deployment_schedule(found)["schedule"]
    first, second = asyncio.run(
        TypeAdapter(SCHEDULE_TYPES).validate_python(schedule.model_dump()).get_dates(2)
    )
    assert second > first
    flow = vars(import_module("flows.submit_manifests"))["submit_manifests"]
    flow.validate_parameters(deployments()[name]["parameters"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_of_the_slots_missed_by_an_example_one_run_catches_up(name: str) -> None:
    limit = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert deployments()[name]["concurrency_limit"] == limit


def test_there_is_an_example_of_each_kind_of_schedule() -> None:
    kinds = {kind for name in EXAMPLES for kind in deployments()[name]["schedules"][0]}
    assert {"cron", "interval", "rrule", "anchor_date", "timezone"} <= kinds


def test_the_flows_have_the_names_that_the_file_was_read_for() -> None:
    flows = [vars(import_module(f"flows.{module}"))[module] for module in TASKS]
    assert {flow.name for flow in flows} == {name.partition("/")[0] for name in deployments()}


def test_the_names_can_be_had_without_prefect_or_a_flow() -> None:
    program = (
        "import sys, deployments.names\n"
        "print({'prefect', 'flows', 'api', 'blocks'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
