"""The image: what it is called, what is installed into it, and its bill of materials."""

import re
import uuid
from importlib.metadata import Distribution, distribution, distributions

import httpx
import pytest

from deployments import sbom, worker_health
from deployments.registered import REPOSITORY
from tests.support.deployed import USER, project

DOCKERFILE = (REPOSITORY / "deployments/Dockerfile").read_text()
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()
BUILD, RUN = DOCKERFILE.split("\nFROM ")[1:]


def label(name: str) -> str:
    (found,) = re.findall(rf'org\.opencontainers\.image\.{name}="(.*)"', RUN)
    return str(found)


def test_its_labels_say_what_the_project_says() -> None:
    assert label("version") == project()["version"]
    for name, key in (("description", "description"), ("licenses", "license")):
        assert f'\n{key} = "{label(name)}"\n' in PYPROJECT
    assert f"refinery-jobs:{project()['version']}" in DOCKERFILE


def test_it_is_built_on_a_python_of_one_minor_version_that_we_take() -> None:
    images = {re.match(r"(\S+)", stage)[1] for stage in (BUILD, RUN)}  # type: ignore[index]
    (image,) = images
    assert re.fullmatch(r"python:3\.1[1-3]-slim-\w+", image)


def test_its_wheel_is_built_where_everything_is_that_the_build_asks_for() -> None:
    """hatchling stops at a file that it is forced to include and does not find."""
    (copied,) = re.findall(r"^COPY (.*) /opt/refinery/$", BUILD, re.MULTILINE)
    forced = re.findall(r'force-include = \{ "([^"]+)"', PYPROJECT)
    assert forced
    assert {"pyproject.toml", "LICENSE", *forced} <= set(copied.split())


def test_it_runs_as_a_user_that_is_a_number() -> None:
    assert re.findall(r"^USER (.*)$", RUN, re.MULTILINE) == [str(USER)]
    assert f"--uid {USER}" in RUN


def test_what_is_installed_comes_from_the_lock_alone_with_its_hashes() -> None:
    assert "--require-hashes --no-deps --only-binary :all:" in BUILD
    installs = re.findall(r"pip.* install (.*)", BUILD)
    assert len(installs) == 2
    assert all("--no-index --find-links /build/wheels" in each for each in installs)


class Installed(Distribution):
    """A package that is nowhere on the disk."""

    def __init__(self, metadata: str) -> None:
        self._text = metadata

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> object:  # type: ignore[override]
        raise NotImplementedError


OURS = Installed(
    "Name: refinery-jobs\nVersion: 1.0\nLicense-Expression: Apache-2.0\nRequires-Dist: A.b[x]>=1; extra == 'y'\n"
)
OTHERS = [
    Installed("Name: A_B\nVersion: 2+cpu\nClassifier: License :: OSI Approved :: MIT License\nRequires-Dist: gone>1\n"),
    Installed("Name: c\nVersion: 3\nLicense: BSD\n"),
    Installed("Name: d\nVersion: 4\nLicense: Long text\n        of a licence\n"),
]  # fmt: skip


def test_a_bill_of_materials_names_each_package_its_licence_and_what_it_needs() -> None:
    found = sbom.describe(OURS, OTHERS)
    assert found["metadata"]["component"]["purl"] == "pkg:pypi/refinery-jobs@1.0"
    assert [(each["purl"], each["licenses"]) for each in found["components"]] == [
        ("pkg:pypi/a-b@2%2Bcpu", [{"license": {"name": "MIT License"}}]),
        ("pkg:pypi/c@3", [{"license": {"name": "BSD"}}]),
        ("pkg:pypi/d@4", []),
    ]
    needs = {each["ref"]: each["dependsOn"] for each in found["dependencies"]}
    assert needs["pkg:pypi/refinery-jobs@1.0"] == ["pkg:pypi/a-b@2%2Bcpu"]
    assert needs["pkg:pypi/a-b@2%2Bcpu"] == []


def test_the_same_packages_are_the_same_bill_and_others_another() -> None:
    first = sbom.describe(OURS, OTHERS)
    assert sbom.describe(OURS, reversed(OTHERS)) == first
    assert uuid.UUID(first["serialNumber"]).urn == first["serialNumber"]
    assert sbom.describe(OURS, OTHERS[:1])["serialNumber"] != first["serialNumber"]


def test_the_bill_of_this_environment_refers_to_nothing_that_it_does_not_name() -> None:
    found = sbom.describe(distribution("refinery-jobs"), distributions())
    components = [found["metadata"]["component"], *found["components"]]
    references = [each["bom-ref"] for each in components]
    assert len(set(references)) == len(references) > 100
    assert {each["ref"] for each in found["dependencies"]} == set(references)
    for each in found["dependencies"]:
        assert set(each["dependsOn"]) <= set(references)


CLIENT = httpx.Client


def prefect(answer: httpx.Response | None) -> httpx.Client:
    def respond(request: httpx.Request) -> httpx.Response:
        if answer is None:
            raise httpx.ConnectError("nobody")
        assert request.url.path == "/api/work_pools/refinery/workers/filter"
        return answer

    return CLIENT(transport=httpx.MockTransport(respond))


@pytest.mark.parametrize(
    "answer, is_online",
    [
        (httpx.Response(200, json=[{"name": "one"}, {"name": "two"}]), True),
        (httpx.Response(200, json=[{"name": "two"}]), False),
        (httpx.Response(200, json=[]), False),
        (httpx.Response(503), None),
        (None, None),
    ],
)
def test_a_worker_is_well_if_prefect_has_heard_of_it_and_not_known_while_prefect_is_away(
    answer: httpx.Response | None, is_online: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prefect(answer) as session:
        assert worker_health.is_online(session, "http://prefect/api", "one") is is_online
    monkeypatch.setattr(httpx, "Client", lambda **_: prefect(answer))
    assert (worker_health.check("one") is None) is (is_online is not False)
