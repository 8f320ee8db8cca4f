"""Every work pool in `prefect.yaml` is one that its type of worker understands, and holds no secret."""

import asyncio
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import google.auth
import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator
from google.auth.credentials import AnonymousCredentials
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools import validate
from prefect.workers.base import BaseJobConfiguration
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSWorker
from prefect_gcp.workers.cloud_run_v2 import CloudRunWorkerJobV2Configuration, CloudRunWorkerV2
from ruamel.yaml import YAML

from blocks.settings import Settings
from deployments.names import WORK_POOL, WORKER_TYPE
from deployments.worker import HEARTBEAT_S
from tests.support.deployed import scalars

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/work-pools.md").read_text()
DOCKERFILE = (ROOT / "deployments/Dockerfile").read_text()
CONTENT = YAML(typ="safe").load(ROOT / "prefect.yaml")
POOLS: dict[str, dict[str, Any]] = CONTENT["definitions"]["work_pools"]

TYPES = {
    "refinery": WORKER_TYPE,
    "process": "process",
    "docker": "docker",
    "kubernetes": "kubernetes",
    "ecs": "ecs",
    "cloud-run": "cloud-run-v2",
}
THEIRS = [name for name in TYPES if name != "refinery"]
CONTAINERS = [name for name in THEIRS if name != "process"]
IMAGE = CONTENT["definitions"]["image"]
HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
SECRETS_FILE = "/run/secrets/refinery.env"
ENTRYPOINT: list[str] = json.loads(
    re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[1]  # type: ignore[index]
)
SECRETS = ["REFINERY_DATABASE_URL", "ASG_ENCRYPTION_KEY"]
FLOW_MIB = 300
CHUNK_MIB = 60
MIB = {"m": 1, "Mi": 1, "g": 1024, "Gi": 1024, "": 1}
RUN = FlowRun(id=UUID(int=1), flow_id=UUID(int=2), deployment_id=UUID(int=3), name="process job_1")
# Nobody listens there, and nobody is asked: our definitions refer to nothing that Prefect keeps.
CLIENT = PrefectClient("http://127.0.0.1:9/api")

Job = TypeVar("Job", bound=BaseJobConfiguration)


def variables(pool: str) -> dict[str, Any]:
    found: dict[str, Any] = POOLS[pool].get("job_variables", {})
    return found


def default_template(pool: str) -> dict[str, Any]:
    """What `prefect work-pool get-default-base-job-template` gives where Refinery is installed.

    That is the worker's own, and where there is none, what Prefect's server knows of the type.
    """
    workers = {"process": ProcessWorker, "ecs": ECSWorker, "cloud-run": CloudRunWorkerV2}
    if pool in workers:
        return dict(workers[pool].get_default_base_job_template())
    views = resources.files("prefect.server.api.collections_data") / "views"
    collections = json.loads((views / "aggregate-worker-metadata.json").read_text())
    found = [types[TYPES[pool]] for types in collections.values() if TYPES[pool] in types]
    return dict(found[0]["default_base_job_configuration"])


def section(pool: str) -> str:
    """What the document has of a pool."""
    return DOCUMENT.split(f"\n## {pool}\n")[1].partition("\n## ")[0]


def template(pool: str, folder: Path) -> dict[str, Any]:
    """That of the pool, after what the document does to the default."""
    program = re.search(r"python - <<'END'\n(.*?)END\n", section(pool), re.DOTALL)
    if program is None:
        return default_template(pool)
    file = folder / "template.json"
    file.write_text(json.dumps(default_template(pool)))
    subprocess.run([sys.executable, "-c", program[1]], cwd=folder, check=True)
    changed = json.loads(file.read_text())
    assert changed["variables"] == default_template(pool)["variables"]
    return dict(changed)


def configured(kind: type[Job], pool: str, folder: Path) -> Job:
    """What a worker makes of the definition."""
    with warnings.catch_warnings():
        # Prefect's ECS configuration has fields that it warns of itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        job = asyncio.run(
            kind.from_template_and_values(template(pool, folder), variables(pool), client=CLIENT)
        )
    return cast(Job, job)


def test_these_are_all_the_pools() -> None:
    assert POOLS.keys() == TYPES.keys()
    assert POOLS["refinery"]["name"] == WORK_POOL
    assert len({pool["name"] for pool in POOLS.values()}) == len(POOLS)
    assert all(pool.keys() <= {"name", "job_variables"} for pool in POOLS.values())


@pytest.mark.parametrize("pool", list(TYPES))
def test_the_document_says_how_it_is_made_deployed_to_and_served(pool: str) -> None:
    name, said = POOLS[pool]["name"], section(pool)
    assert f"prefect work-pool create {name} --type {TYPES[pool]}" in said
    if pool == "refinery":
        assert "\nrefinery deploy\nrefinery worker\n" in said
    else:
        assert f"\nrefinery deploy --pool {pool}\nprefect worker start --pool {name}\n" in said


def test_our_own_pool_needs_no_variables() -> None:
    assert variables("refinery") == {}


@pytest.mark.parametrize("pool", THEIRS)
def test_each_variable_is_one_of_the_types_template(pool: str, tmp_path: Path) -> None:
    of_pool = template(pool, tmp_path)
    assert variables(pool).keys() <= of_pool["variables"]["properties"].keys()
    WorkPoolCreate(name=POOLS[pool]["name"], type=TYPES[pool], base_job_template=of_pool)
    # As Prefect's server does when a deployment is made.
    validate(
        variables(pool),
        of_pool["variables"],
        raise_on_error=True,
        preprocess=True,
        ignore_required=True,
        allow_none_with_default=True,
    )


@pytest.mark.parametrize("pool", list(TYPES))
def test_no_definition_holds_a_secret(pool: str) -> None:
    environment = variables(pool).get("env", {})
    settings = {f"REFINERY_{field.upper()}" for field in Settings.__struct_fields__}
    assert environment.keys() - {HEARTBEAT} <= settings - set(SECRETS)
    for each in scalars(POOLS[pool]):
        assert "://" not in each
        assert not re.search(r"[0-9a-fA-F]{32}", each)
        assert "prefect.blocks" not in each  # would be read when deployed, and kept as plain text


@pytest.mark.parametrize("pool", CONTAINERS)
def test_what_is_in_flight_fits_into_the_memory(pool: str) -> None:
    limits = [variables(pool).get(name) for name in ("mem_limit", "memory_limit", "memory")]
    (limit,) = filter(None, limits)
    number, unit = re.fullmatch(r"(\d+)(\D*)", str(limit)).groups()  # type: ignore[union-attr]
    chunks = int(variables(pool)["env"]["REFINERY_CHUNKS_IN_FLIGHT"])
    assert int(number) * MIB[unit] >= 1.5 * (FLOW_MIB + chunks * CHUNK_MIB)


@pytest.mark.parametrize("pool", list(POOLS))
def test_a_run_gives_two_signs_of_life_before_it_counts_as_crashed(pool: str) -> None:
    automations = YAML(typ="safe").load(ROOT / "deployments/automations.yaml")["automations"]
    (silent_s,) = [each["trigger"]["within"] for each in automations if each["trigger"]["within"]]
    beats_s = int(variables(pool)["env"][HEARTBEAT]) if pool != "refinery" else HEARTBEAT_S
    assert 2 * beats_s < silent_s


@pytest.mark.parametrize("pool", CONTAINERS)
def test_a_container_has_the_command_that_watches_for_a_cancellation(pool: str) -> None:
    assert "command" not in variables(pool)


def test_a_process_is_the_engine_itself(tmp_path: Path) -> None:
    job = configured(ProcessJobConfiguration, "process", tmp_path)
    job.prepare_for_flow_run(RUN)
    assert job.command == "python -m prefect.engine"
    assert job.working_dir is None  # the pull step goes where the deployment was made


def test_a_docker_container_has_its_secrets_from_the_file_that_the_image_reads(
    tmp_path: Path,
) -> None:
    class Fields(BaseJobConfiguration):
        image: str
        networks: list[str]
        volumes: list[str]
        mem_limit: str

    job = configured(Fields, "docker", tmp_path)
    assert (job.image, job.mem_limit, job.networks) == (IMAGE, "1g", ["refinery"])
    here, there, mode = job.volumes[0].split(":")
    assert here in section("docker")
    assert (there, mode) == (SECRETS_FILE, "ro")


def test_a_pod_has_secret_image_and_resources_in_their_places(tmp_path: Path) -> None:
    class Fields(BaseJobConfiguration):
        namespace: str
        job_manifest: dict[str, Any]

    job = configured(Fields, "kubernetes", tmp_path)
    manifest = job.job_manifest
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "refinery", "key": name}}}
        for name in SECRETS
    ]
    assert container["image"] == IMAGE
    assert container["resources"] == {
        "limits": {"memory": "1Gi"},
        "requests": {"cpu": "1", "memory": "1Gi"},
    }
    assert manifest["metadata"]["namespace"] == job.namespace == "refinery"
    assert manifest["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job.env == variables("kubernetes")["env"]  # the worker puts it before the secrets


def test_an_ecs_task_has_its_secrets_by_reference_and_is_one_that_aws_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = configured(ECSJobConfiguration, "ecs", tmp_path)
    job.prepare_for_flow_run(RUN)
    worker = ECSWorker(work_pool_name=POOLS["ecs"]["name"])

    definition = worker._prepare_task_definition(job, "eu-central-1", RUN)
    worker._validate_task_definition(definition, job)
    (container,) = definition["containerDefinitions"]
    assert container["secrets"] == [
        {"name": name, "valueFrom": f"/refinery/{name}"} for name in SECRETS
    ]
    # Prefect's observer looks for the container by this name when a task has ended.
    assert (container["name"], container["image"]) == ("prefect", IMAGE)
    assert (definition["cpu"], definition["memory"]) == ("1024", "2048")
    assert definition["family"] == "refinery"
    assert_aws_takes("RegisterTaskDefinition", definition)

    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
    monkeypatch.setattr(worker, "_load_network_configuration", lambda *_: network)
    request = worker._prepare_task_run_request(job, definition, "arn:of-it", True)
    (override,) = request["overrides"]["containerOverrides"]
    assert override["command"] == ["prefect", "flow-run", "execute"]
    assert {"name": "REFINERY_CHUNKS_IN_FLIGHT", "value": "2"} in override["environment"]
    assert not {each["name"] for each in override["environment"]} & set(SECRETS)
    assert_aws_takes("RunTask", request)


def test_one_ecs_task_definition_serves_the_runs_of_all_deployments(tmp_path: Path) -> None:
    worker = ECSWorker(work_pool_name=POOLS["ecs"]["name"])
    definitions = []
    for deployment in (UUID(int=3), UUID(int=4)):
        run = RUN.model_copy(update={"deployment_id": deployment})
        job = configured(ECSJobConfiguration, "ecs", tmp_path)
        job.prepare_for_flow_run(run)
        definitions.append(worker._prepare_task_definition(job, "eu-central-1", run))
    assert definitions[0] == definitions[1]


def assert_aws_takes(operation: str, parameters: dict[str, Any]) -> None:
    model = get_session().get_service_model("ecs").operation_model(operation)
    report = ParamValidator().validate(parameters, model.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_a_cloud_run_job_has_its_secrets_by_reference_and_nothing_that_google_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(google.auth, "default", lambda *_, **__: (credentials, "my-project"))
    job = configured(CloudRunWorkerJobV2Configuration, "cloud-run", tmp_path)
    job.prepare_for_flow_run(RUN)
    task = job.job_body["template"]["template"]
    (container,) = task["containers"]
    environment = {each["name"]: each for each in container["env"]}
    for name in SECRETS:
        reference = {"secretKeyRef": {"secret": name, "version": "latest"}}
        assert environment[name] == {"name": name, "valueSource": reference}
    assert environment["REFINERY_CHUNKS_IN_FLIGHT"]["value"] == "2"
    assert container["image"] == IMAGE
    assert container["command"] == ["prefect", "flow-run", "execute"]
    assert container["resources"]["limits"] == {"cpu": "1000m", "memory": "1Gi"}
    assert task["serviceAccount"] == "refinery@my-project.iam.gserviceaccount.com"
    assert (task["timeout"], task["maxRetries"]) == ("86400s", 0)
    assert (job.project, job.region) == ("my-project", "europe-west1")

    documents = resources.files("googleapiclient.discovery_cache") / "documents"
    schemas = json.loads((documents / "run.v2.json").read_text())["schemas"]
    assert list(unknown(job.job_body, {"$ref": "GoogleCloudRunV2Job"}, schemas)) == []


def unknown(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """The keys that Google's description of its API does not have."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        for each in value:
            yield from unknown(each, schema["items"], schemas)
    elif isinstance(value, dict):
        for key, each in value.items():
            known = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if known is None:
                yield key
            else:
                yield from unknown(each, known, schemas)


def test_flows_are_imported_from_where_refinery_is_installed_and_nothing_is_pulled() -> None:
    # An empty list: without one Prefect's own step would go to the folder that was deployed from.
    assert CONTENT["pull"] == []
    for deployment in CONTENT["deployments"]:
        assert "pull" not in deployment
        assert re.fullmatch(r"flows\.\w+\.\w+", deployment["entrypoint"])


def test_the_image_is_given_all_that_it_copies_and_nothing_else() -> None:
    let_through = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for sources in re.findall(r"^COPY ((?!--from).*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    ]
    assert sorted(let_through) == sorted(set(copied))
    assert all((ROOT / source).exists() for source in copied)
    code = {d["entrypoint"].partition(".")[0] for d in CONTENT["deployments"]}
    assert code <= set(copied)


def enter(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The entrypoint of the image, with its file of secrets elsewhere."""
    shell, flag, script, name = ENTRYPOINT
    assert SECRETS_FILE in script
    return subprocess.run(
        [shell, flag, script.replace(SECRETS_FILE, str(file)), name, *arguments],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_image_hands_the_file_of_secrets_to_its_command(tmp_path: Path) -> None:
    file = tmp_path / "refinery.env"
    url = "postgresql://user:p%24ss@host/db?sslmode=require&application_name=a b"
    file.write_text(f"REFINERY_DATABASE_URL='{url}'\nASG_ENCRYPTION_KEY='{'ab' * 32}'\n")
    done = enter(file, "env")
    assert {f"REFINERY_DATABASE_URL={url}", f"ASG_ENCRYPTION_KEY={'ab' * 32}"} <= set(
        done.stdout.splitlines()
    )


def test_the_image_runs_its_command_as_it_is_given(tmp_path: Path) -> None:
    done = enter(tmp_path / "none", "sh", "-c", 'echo "$1"; exit 7', "sh", "a  b")
    assert (done.stdout, done.returncode) == ("a  b\n", 7)
