"""The manifests for Kubernetes: names lead somewhere, probes and commands are ours, and pods may do next to nothing."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import prefect as prefect_package
import pytest

from api.app import create_app
from api.routes.health import live, metrics, ready
from blocks.settings import Settings
from tests.support.deployed import (
    DEPLOYMENTS,
    OTHERS,
    OURS,
    PREFECT_SECRETS,
    SECRETS,
    USER,
    accept_command,
    looks_secret,
    option,
    project,
    read_yaml,
    scalars,
    unknown_variables,
)

FOLDER = DEPLOYMENTS / "kubernetes"
VERSION = project()["version"]
IMAGE = f"registry.example.com/refinery-jobs:{VERSION}"


def load(kustomization: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization and of all that it names, as they are before any patch."""
    (content,) = read_yaml(kustomization / "kustomization.yaml")
    found: list[dict[str, Any]] = []
    for each in [*content["resources"], *content.get("components", [])]:
        path = kustomization / each
        found += load(path) if path.is_dir() else read_yaml(path)
    return found


OBJECTS = load(FOLDER / "example")
SECRET_OBJECTS = read_yaml(FOLDER / "secrets-template.yaml")


def of(kind: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] == kind]


def name(thing: dict[str, Any]) -> str:
    return str(thing["metadata"]["name"])


WORKLOADS = [*of("Deployment"), *of("StatefulSet"), *of("Job")]
workloads = pytest.mark.parametrize("workload", WORKLOADS, ids=name)


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod(workload)["containers"]
    return dict(found)


def labels(workload: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def component(workload: dict[str, Any]) -> str:
    return labels(workload)["app.kubernetes.io/component"]


def selected(selector: dict[str, Any]) -> list[str]:
    """The components whose pods a selector chooses."""
    found = []
    for each in WORKLOADS:
        has = labels(each)
        wanted = selector.get("matchLabels", {})
        among = selector.get("matchExpressions", [])
        assert all(rule["operator"] == "In" for rule in among)
        if wanted.items() <= has.items() and all(
            has.get(rule["key"]) in rule["values"] for rule in among
        ):
            found.append(component(each))
    return found


def values(thing: str) -> dict[str, str]:
    """The variables of a config map."""
    (found,) = (each["data"] for each in of("ConfigMap") if name(each) == thing)
    return dict(found)


def test_every_file_is_part_of_something() -> None:
    used = {
        (folder / each).resolve()
        for folder in (FOLDER / "base", FOLDER / "prefect", FOLDER / "example")
        for each in read_yaml(folder / "kustomization.yaml")[0]["resources"]
    }
    files = {path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files - used == {FOLDER / "secrets-template.yaml"}
    assert len({(each["kind"], name(each)) for each in OBJECTS}) == len(OBJECTS)
    assert {each["metadata"].get("namespace", "refinery") for each in OBJECTS} == {"refinery"}


def test_the_namespace_refuses_pods_that_are_not_restricted() -> None:
    (namespace,) = of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@workloads
def test_a_pod_is_restricted(workload: dict[str, Any]) -> None:
    """By Pod Security's level "restricted", and with a file system that nobody writes to."""
    security = pod(workload)["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, USER)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(workload)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    allowed = {"emptyDir"}
    assert all(each.keys() - {"name"} <= allowed for each in pod(workload)["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(workload).keys()


@workloads
def test_a_pod_has_an_account_of_ours_and_no_token(workload: dict[str, Any]) -> None:
    assert pod(workload)["automountServiceAccountToken"] is False
    assert pod(workload)["serviceAccountName"] in [name(each) for each in of("ServiceAccount")]
    assert all(each["automountServiceAccountToken"] is False for each in of("ServiceAccount"))
    # Variables such as REFINERY_API_PORT, which Kubernetes makes of services, are unknown settings.
    assert pod(workload)["enableServiceLinks"] is False


@workloads
def test_a_container_has_requests_and_limits(workload: dict[str, Any]) -> None:
    resources = container(workload)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert "memory" in resources["limits"]


@workloads
def test_a_container_runs_a_command_of_the_image_of_this_version(workload: dict[str, Any]) -> None:
    assert container(workload)["image"] == IMAGE
    # Not `command`, which would replace the entrypoint.
    assert "command" not in container(workload)
    accept_command(container(workload)["args"])


@workloads
def test_its_variables_are_read_and_its_secrets_are_in_the_template(
    workload: dict[str, Any],
) -> None:
    keys = {name(each): each["stringData"].keys() for each in SECRET_OBJECTS}
    (config,) = (each["configMapRef"]["name"] for each in container(workload)["envFrom"][:1])
    (secret,) = (each["secretRef"]["name"] for each in container(workload)["envFrom"][1:])
    assert unknown_variables([*values(config), *keys[secret]]) == set()
    assert {each for each in values(config) if not OURS.match(each)} <= OTHERS
    assert keys[secret] == (PREFECT_SECRETS if secret == "prefect" else SECRETS)
    mounted = {each["mountPath"] for each in container(workload)["volumeMounts"]}
    home = values(config)["PREFECT_HOME"]
    assert any(home == place or home.startswith(f"{place}/") for place in mounted)
    volumes = {each["name"] for each in pod(workload)["volumes"]} | {
        each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])
    }
    assert {each["name"] for each in container(workload)["volumeMounts"]} == volumes


def test_no_file_holds_a_secret() -> None:
    assert all(value == "…" for each in SECRET_OBJECTS for value in each["stringData"].values())
    assert not [each for each in scalars(OBJECTS) if looks_secret(each)]
    assert of("Secret") == []


def probes(workload: dict[str, Any]) -> dict[str, str]:
    names = ("startupProbe", "livenessProbe", "readinessProbe")
    found = container(workload)
    return {each: found[each]["httpGet"]["path"] for each in names if each in found}


def the(kind: str, component_name: str) -> dict[str, Any]:
    (found,) = (each for each in of(kind) if component(each) == component_name)
    return found


def test_the_api_is_asked_by_its_own_routes() -> None:
    api = the("Deployment", "api")
    assert {probes(api)["startupProbe"]} == {probes(api)["livenessProbe"]} == live.paths
    assert {probes(api)["readinessProbe"]} == ready.paths
    notes = api["spec"]["template"]["metadata"]["annotations"]
    assert {notes["prometheus.io/path"]} == metrics.paths
    (port,) = (each["containerPort"] for each in container(api)["ports"])
    assert str(port) == option(container(api)["args"], "port") == notes["prometheus.io/port"]


def test_requests_under_way_have_time_to_end() -> None:
    api = the("Deployment", "api")
    before_s = int(container(api)["lifecycle"]["preStop"]["exec"]["command"][1])
    finish_s = int(option(container(api)["args"], "timeout-graceful-shutdown"))
    assert before_s + finish_s < pod(api)["terminationGracePeriodSeconds"]
    assert api["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_prefect_is_asked_by_routes_that_need_no_password() -> None:
    prefect = the("StatefulSet", "prefect")
    assert probes(prefect) == {
        "startupProbe": "/api/health",
        "livenessProbe": "/api/health",
        "readinessProbe": "/api/ready",
    }
    # To import the server takes seconds.
    server = Path(str(prefect_package.__file__)).parent / "server/api/server.py"
    assert 'health_check_paths = {health_check_path, "/ready"}' in server.read_text()
    assert 'health_check_path: str = "/health"' in server.read_text()


def test_a_worker_is_checked_by_the_name_that_it_has() -> None:
    worker = container(the("Deployment", "worker"))
    (variable,) = worker["env"]
    assert option(worker["args"], "name") == f"$({variable['name']})"
    shell = worker["livenessProbe"]["exec"]["command"][-1]
    assert shell.endswith(f'"${variable["name"]}"')
    accept_command(shell.removeprefix("exec ").split())
    # A worker is online for 90 s after its last heartbeat.
    assert (
        worker["livenessProbe"]["periodSeconds"] * worker["livenessProbe"]["failureThreshold"] > 90
    )


def test_each_job_is_of_this_version() -> None:
    for each in of("Job"):
        assert name(each).endswith(f"-{VERSION.replace('.', '-')}")
        assert pod(each)["restartPolicy"] == "OnFailure"


def test_selectors_choose_the_pods_that_they_are_for() -> None:
    for each in [*of("Deployment"), *of("StatefulSet")]:
        assert selected(each["spec"]["selector"]) == [component(each)]
    for each in of("PodDisruptionBudget"):
        (chosen,) = selected(each["spec"]["selector"])
        replicas = the("Deployment", chosen)["spec"]["replicas"]
        assert 0 < each["spec"]["minAvailable"] < replicas
    for each in of("Service"):
        (chosen,) = selected({"matchLabels": each["spec"]["selector"]})
        (workload,) = (one for one in WORKLOADS if component(one) == chosen)
        ports = {port["name"] for port in container(workload)["ports"]}
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
    (scaler,) = of("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert target["name"] in [name(each) for each in of(target["kind"])]
    assert scaler["spec"]["minReplicas"] == the("Deployment", "api")["spec"]["replicas"]


def policies(direction: str, component_name: str) -> list[dict[str, Any]]:
    """The rules of all policies that choose a pod."""
    return [
        rule
        for each in of("NetworkPolicy")
        if component_name in selected(each["spec"]["podSelector"])
        for rule in each["spec"].get(direction, [])
    ]


def may_reach(source: str, port: int, target: str | None = None) -> bool:
    """Whether a pod may connect to a pod, or to PostgreSQL in a private network."""
    rules = [
        rule
        for rule in policies("egress", source)
        if port in [each["port"] for each in rule.get("ports", [])]
    ]
    if target is None:
        return any("ipBlock" in peer for rule in rules for peer in rule["to"])
    out = any(
        target in selected(peer["podSelector"])
        for rule in rules
        for peer in rule["to"]
        if "podSelector" in peer
    )
    into = any(
        source in selected(peer["podSelector"])
        for rule in policies("ingress", target)
        for peer in rule["from"]
        if "podSelector" in peer
    )
    return out and into


def test_every_policy_chooses_pods_that_are_there() -> None:
    first, *others = of("NetworkPolicy")
    assert first["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for each in others:
        assert selected(each["spec"]["podSelector"]), name(each)


@pytest.mark.parametrize(
    "source, database, prefect",
    [
        ("api", True, True),
        ("worker", True, True),
        ("migrate", True, False),
        ("deploy", False, True),
        ("prefect", True, False),
    ],
)
def test_a_pod_reaches_what_it_needs_and_nothing_else(
    source: str, database: bool, prefect: bool
) -> None:
    assert may_reach(source, 5432) is database
    assert may_reach(source, 4200, "prefect") is prefect
    is_public = any(
        peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
        for rule in policies("egress", source)
        for peer in rule["to"]
    )
    assert is_public is (source in {"api", "worker"})


def test_only_the_api_is_reached_from_elsewhere() -> None:
    outside = {
        each
        for each in map(component, WORKLOADS)
        for rule in policies("ingress", each)
        if any("namespaceSelector" in peer for peer in rule["from"])
    }
    assert outside == {"api"}
    (rule,) = policies("ingress", "api")
    (port,) = (each["containerPort"] for each in container(the("Deployment", "api"))["ports"])
    assert [each["port"] for each in rule["ports"]] == [port]


def test_the_ingress_leads_to_every_route_but_those_for_the_cluster() -> None:
    app = create_app(Settings(database_url="postgresql://x/y", encryption_key="ab" * 32))
    routes = {route.path for route in app.routes}
    inside = {*live.paths, *ready.paths, *metrics.paths}
    (ingress,) = of("Ingress")
    (rule,) = ingress["spec"]["rules"]
    paths = [(each["path"], each["pathType"]) for each in rule["http"]["paths"]]

    def is_led(route: str) -> bool:
        return any(
            route == path or (kind == "Prefix" and route.startswith(f"{path}/"))
            for path, kind in paths
        )

    assert {route for route in routes if not is_led(route)} == inside
    services = {each["backend"]["service"]["name"] for each in rule["http"]["paths"]}
    assert services <= {name(each) for each in of("Service")}
    assert values("refinery")["REFINERY_PUBLIC_URL"] == f"https://{rule['host']}"


@cache
def rendered() -> str | None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    command = [kubectl, "kustomize", str(FOLDER / "example")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_kustomize_renders_the_example() -> None:
    text = rendered()
    if text is None:
        pytest.skip("There is no kubectl, so the kustomization is not rendered.")
    kinds = re.findall(r"^kind: (\w+)$", text, re.MULTILINE)
    assert sorted(kinds) == sorted(each["kind"] for each in OBJECTS)


def test_each_object_is_one_by_the_schema_of_kubernetes() -> None:
    program = shutil.which("kubernetes-validate")
    text = rendered()
    if program is None or text is None:
        pytest.skip(
            "There is no kubernetes-validate (pip install kubernetes-validate), so the schemas are not asked."
        )
    done = subprocess.run(
        [program, "--strict", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
