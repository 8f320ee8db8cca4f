"""compose.yaml: what it names is there, each command is one that its program takes, and each container is locked in."""

import json
import os
import re
import shutil
import stat
import subprocess
import sysconfig
from importlib import util
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from api.routes.health import live, metrics, ready
from deployments.names import WORK_POOL
from tests.support.deployed import (
    DEPLOYMENTS,
    OTHERS,
    OURS,
    PREFECT_SECRETS,
    SECRETS,
    USER,
    accept_command,
    compose_schema,
    looks_secret,
    option,
    project,
    read_yaml,
    scalars,
    unknown_variables,
)
from tests.support.monitoring import list_rules

COMPOSE = DEPLOYMENTS / "compose.yaml"
FOLDER = DEPLOYMENTS / "compose"
CADDYFILE = (FOLDER / "Caddyfile").read_text()
(CONTENT,) = read_yaml(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = CONTENT["services"]
NAMES = list(SERVICES)
ONCE = ["migrate", "deploy"]
STAY = [name for name in NAMES if name not in ONCE]
IMAGE = f"${{IMAGE:-registry.example.com/refinery-jobs:{project()['version']}}}"
OUR_IMAGE = [name for name in NAMES if SERVICES[name]["image"] == IMAGE]
REDIS_ENV = dict(
    cast(tuple[str, str], line.split("=", 1))
    for line in (FOLDER / "redis.env").read_text().splitlines()
    if not line.startswith("#")
)


def environment(name: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[name].get("environment", {})
    return found


def default(value: str) -> str:
    """What a value is where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def networks(name: str) -> set[str]:
    return set(SERVICES[name]["networks"])


def test_it_is_a_compose_file_by_the_official_schema() -> None:
    schema = json.loads(compose_schema().read_text())
    problems = [str(each.message) for each in Draft202012Validator(schema).iter_errors(CONTENT)]
    assert problems == []
    assert not Draft202012Validator(schema).is_valid({"services": {"x": {"imagge": "y"}}})


def test_all_that_is_ours_runs_from_the_image_of_this_version() -> None:
    assert {"api-1", "api-2", "worker-1", "worker-2", "prefect", *ONCE} <= set(OUR_IMAGE)
    others = [each["image"] for each in SERVICES.values() if each["image"] != IMAGE]
    # By a version that does not move on by itself.
    assert [image for image in others if not re.search(r":v?\d+\.\d+[\w.-]*$", image)] == []
    assert [name for name in NAMES if "build" in SERVICES[name]] == ["migrate"]
    build = SERVICES["migrate"]["build"]
    assert (DEPLOYMENTS / build["context"] / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_container_is_locked_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].split(":")[0] not in {"0", "root"}
    assert service.get("cap_add", []) in ([], ["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert "privileged" not in service
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("name", OUR_IMAGE)
def test_our_image_runs_as_its_user_and_writes_to_memory_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] == str(USER)
    homes = {each.split(":")[1] for each in service.get("volumes", [])}
    (temporary,) = (each.split(":")[0] for each in service["tmpfs"])
    home = environment(name)["PREFECT_HOME"]
    assert any(home.startswith(f"{place}/") for place in {temporary, *homes})


@pytest.mark.parametrize("name", STAY)
def test_what_stays_is_looked_after(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["stop_grace_period"].endswith("s")


@pytest.mark.parametrize("name", ONCE)
def test_what_runs_once_is_waited_for(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"
    waits = [
        other
        for other in STAY
        if SERVICES[other].get("depends_on", {}).get(name)
        == {"condition": "service_completed_successfully"}
    ]
    assert {"worker-1", "worker-2"} <= set(waits)
    assert ({"api-1", "api-2"} <= set(waits)) is (name == "migrate")


def test_the_api_needs_no_prefect_to_begin() -> None:
    assert SERVICES["api-1"]["depends_on"].keys() == {"migrate"}


@pytest.mark.parametrize("name", OUR_IMAGE)
def test_each_command_is_one_that_its_program_takes(name: str) -> None:
    accept_command(SERVICES[name]["command"])
    check = SERVICES[name]["healthcheck"].get("test", [])
    if check[:1] == ["CMD-SHELL"]:
        accept_command(check[1].split("exec ")[1].split())


def test_a_command_that_no_program_takes_is_noticed() -> None:
    for wrong in (["refinery", "wroker"], ["python", "-m", "api", "--prot=1"], ["prefect", "up"]):
        with pytest.raises((Exception, SystemExit)):
            accept_command(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_each_variable_is_one_that_a_setting_reads(name: str) -> None:
    assert unknown_variables(environment(name)) == set()
    if name in OUR_IMAGE:
        assert {each for each in environment(name) if not OURS.match(each)} <= OTHERS


def test_a_variable_that_nobody_reads_is_noticed() -> None:
    wrong = {"REFINERY_PUBLIC_ULR", "PREFECT_APY_URL", "PREFECT_REDIS_MESSAGING_HOTS"}
    assert unknown_variables([*wrong, "REFINERY_PUBLIC_URL"]) == wrong


def test_no_file_holds_a_secret() -> None:
    for path in [COMPOSE, *FOLDER.rglob("*")]:
        if path.is_file():
            found = [line for line in path.read_text().splitlines() if looks_secret(line)]
            # The script writes URLs around what it reads.
            assert [line for line in found if "$(" not in line] == [], path
    for name in NAMES:
        assert environment(name).keys().isdisjoint(SECRETS | PREFECT_SECRETS)
    assert not [each for each in scalars(CONTENT) if looks_secret(each)]


def test_the_script_makes_every_secret_that_is_named_once(tmp_path: Path) -> None:
    secrets, state = tmp_path / "secrets", tmp_path / "state"
    command = ["sh", str(FOLDER / "secrets.sh"), str(secrets), str(state)]
    subprocess.run(command, check=True, capture_output=True)
    wanted = {Path(each["file"]).name for each in CONTENT["secrets"].values()}
    assert {each.name for each in secrets.iterdir()} == wanted
    assert {stat.S_IMODE(each.stat().st_mode) for each in (secrets, state)} == {0o700}
    before = {each.name: each.read_text() for each in secrets.iterdir()}
    again = subprocess.run(command, check=True, capture_output=True)
    assert again.stdout == b""
    assert {each.name: each.read_text() for each in secrets.iterdir()} == before
    assert names_in(before["refinery.env"]) == SECRETS
    assert names_in(before["prefect.env"]) == PREFECT_SECRETS
    assert before["refinery-database-password"] in before["refinery.env"]
    assert before["prefect-database-password"] in before["prefect.env"]
    identities = json.loads(before["store.json"])["identities"]
    assert identities[0]["credentials"][0].keys() == {"accessKey", "secretKey"}
    mounted = {
        each.split("}")[1].split(":")[0]
        for service in SERVICES.values()
        for each in service.get("volumes", [])
        if each.startswith("${STATE")
    }
    assert {f"/{each.name}" for each in state.iterdir()} == mounted
    # What the service and Prefect make of them.
    values = read_as_shell(secrets / "refinery.env")
    assert re.fullmatch(r"[0-9a-f]{64}", values["ASG_ENCRYPTION_KEY"])
    server = read_as_shell(secrets / "prefect.env")
    assert len(server["PREFECT_SERVER_ENCRYPTION_KEY"]) == 44
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == values["PREFECT_API_AUTH_STRING"]


def names_in(text: str) -> set[str]:
    return set(re.findall(r"^(\w+)='[^']+'$", text, re.MULTILINE))


def read_as_shell(file: Path) -> dict[str, str]:
    """What the image's entrypoint makes of a file of secrets."""
    done = subprocess.run(
        ["sh", "-c", f"set -a; . {file}; exec env"],
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(cast(tuple[str, str], each.split("=", 1)) for each in done.stdout.splitlines())


def test_each_database_has_a_role_whose_password_is_mounted() -> None:
    sql = (FOLDER / "databases.sql").read_text()
    read = set(re.findall(r"cat /run/secrets/([\w-]+)`", sql))
    assert read | {"postgres-password"} == set(SERVICES["postgres"]["secrets"])
    script = (FOLDER / "secrets.sh").read_text()
    for role, database in re.findall(r"//(\w+):\$\(.*@postgres:5432/(\w+)'", script):
        assert f"create database {database} owner {role};" in sql
        assert f"create role {role} login password :'{role}';" in sql


def test_every_file_that_is_mounted_is_there() -> None:
    for each in CONTENT["configs"].values():
        assert (DEPLOYMENTS / each["file"]).is_file(), each
    for service in SERVICES.values():
        assert {each["source"] for each in service.get("configs", [])} <= CONTENT["configs"].keys()
        for each in service.get("secrets", []):
            name = each if isinstance(each, str) else each["source"]
            assert name in CONTENT["secrets"]


def test_hosts_that_are_named_are_services_that_share_a_network() -> None:
    for name in OUR_IMAGE:
        for host in re.findall(r"://(\w[\w-]*):\d+", " ".join(environment(name).values())):
            if host != "localhost":
                assert networks(name) & networks(host), (name, host)
    for variable, host in re.findall(r"\{\$(\w+):([\w-]+):\d+\}", CADDYFILE):
        assert networks("caddy") & networks(host), variable


def test_who_has_no_business_with_the_database_does_not_reach_it() -> None:
    reach = {name for name in NAMES if "database" in networks(name)}
    assert reach == {*OUR_IMAGE, "postgres"} - {"deploy"}
    for inside in ("database", "prefect", "redis"):
        assert CONTENT["networks"][inside] == {"internal": True}


def test_only_the_balancer_is_open_to_the_world() -> None:
    ports = {name: SERVICES[name].get("ports", []) for name in NAMES}
    assert ports["caddy"][:2] == ["80:8080", "443:8443"]
    others = [each for name in NAMES for each in ports[name] if each not in ports["caddy"][:2]]
    assert all(each.startswith("127.0.0.1:") for each in others)


def test_the_balancer_knows_every_api_process_and_asks_a_route_that_is_there() -> None:
    processes = [name for name in NAMES if name.startswith("api-")]
    assert re.findall(r"\{\$API_\d:([\w-]+):", CADDYFILE) == processes
    (asked,) = re.findall(r"health_uri (\S+)", CADDYFILE)
    assert {asked} == ready.paths
    for path in (*live.paths, *ready.paths, *metrics.paths):
        assert path == "/metrics" or path.startswith("/health/")
    assert "@inside path /metrics /metrics/* /health /health/*" in CADDYFILE
    for name in processes:
        port = option(SERVICES[name]["command"], "port")
        assert f"{{$API_{name[-1]}:{name}:{port}}}" in CADDYFILE
        assert f"http://127.0.0.1:{port}{asked}" in SERVICES[name]["healthcheck"]["test"][-1]
        assert default(environment(name)["FORWARDED_ALLOW_IPS"]) == default(
            CONTENT["networks"]["front"]["ipam"]["config"][0]["subnet"]
        )


@pytest.mark.parametrize("name", ["api-1", "api-2"])
def test_requests_under_way_have_time_to_end(name: str) -> None:
    finish_s = int(option(SERVICES[name]["command"], "timeout-graceful-shutdown"))
    drain_s, background_s = int(environment(name)["REFINERY_DRAIN_S"]), 20
    grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= drain_s + finish_s + background_s


def test_workers_have_names_of_their_own_by_which_they_are_checked() -> None:
    workers = [name for name in NAMES if name.startswith("worker-")]
    for name in workers:
        command = SERVICES[name]["command"]
        assert option(command, "name") == name
        assert SERVICES[name]["healthcheck"]["test"][-1].endswith(f" {name}")
        assert "--pool" not in command
        flow_mib, chunk_mib = 300, 60
        chunks = int(environment(name)["REFINERY_CHUNKS_IN_FLIGHT"])
        wanted = int(option(command, "limit")) * (flow_mib + chunks * chunk_mib)
        assert SERVICES[name]["deploy"]["resources"]["limits"]["memory"] == "3g"
        assert wanted <= 3 * 1024
    assert len(workers) == 2
    assert WORK_POOL == "refinery"


def test_prometheus_scrapes_every_api_process_by_the_name_of_the_rules() -> None:
    (config,) = read_yaml(FOLDER / "prometheus.yaml")
    (job,) = config["scrape_configs"]
    assert f'job="{job["job_name"]}"' in list_rules()[0]["expr"]
    (targets,) = (each["targets"] for each in job["static_configs"])
    assert targets == [
        f"{name}:{option(SERVICES[name]['command'], 'port')}"
        for name in NAMES
        if name.startswith("api-")
    ]
    assert networks("prometheus") & networks("api-1")
    mounted = {Path(each["target"]).name for each in SERVICES["prometheus"]["configs"]}
    assert {"prometheus.yaml", *config["rule_files"]} == mounted


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (sources,) = read_yaml(FOLDER / "grafana/data-sources.yaml")
    (source,) = sources["datasources"]
    host = source["url"].removeprefix("http://").split(":")[0]
    assert networks("grafana") & networks(host)
    (providers,) = read_yaml(FOLDER / "grafana/dashboards.yaml")
    path = providers["providers"][0]["options"]["path"]
    mounted = [each["target"] for each in SERVICES["grafana"]["configs"]]
    assert any(each.startswith(f"{path}/") for each in mounted)


def test_redis_takes_over_all_that_a_prefect_server_has_in_its_memory() -> None:
    settings = environment("prefect")
    given = {name for name, value in settings.items() if value.startswith("${")}
    assert given == REDIS_ENV.keys() - {"COMPOSE_PROFILES"}
    assert REDIS_ENV["COMPOSE_PROFILES"] in SERVICES["redis"]["profiles"]
    for name in given:
        for module in (default(settings[name]), REDIS_ENV[name]):
            assert "://" in module or util.find_spec(module), module
    assert settings["PREFECT_REDIS_MESSAGING_HOST"] == "redis"
    # Without its services a server would take their work from Redis, and drop it.
    assert SERVICES["prefect-2"]["command"] == SERVICES["prefect"]["command"]
    assert SERVICES["prefect-2"]["networks"]["prefect"] == {"aliases": ["prefect"]}


def test_caddy_finds_no_fault() -> None:
    caddy = shutil.which("caddy", path=sysconfig.get_path("scripts")) or shutil.which("caddy")
    if caddy is None:
        pytest.skip("There is no caddy, so its file is not read (its wheel is for Linux).")
    command = [caddy, "validate", "--adapter", "caddyfile", "--config", str(FOLDER / "Caddyfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
