"""The units for plain machines: commands are ours, names lead somewhere, and a service may do next to nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deployed import (
    DEPLOYMENTS,
    OTHERS,
    OURS,
    accept_command,
    option,
    unknown_variables,
)

FOLDER = DEPLOYMENTS / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
services = pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
INSTALLED = "/opt/refinery/bin"


def setting(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def command(unit: Path) -> list[str]:
    (found,) = setting(unit, "ExecStart")
    return found.replace("%i", "8000").replace("%H", "host").split()


@services
def test_its_command_is_one_that_the_installed_program_takes(unit: Path) -> None:
    assert command(unit)[0].startswith(f"{INSTALLED}/")
    accept_command(command(unit))


@services
def test_its_variables_are_read_and_its_secrets_are_in_a_file(unit: Path) -> None:
    assert setting(unit, "EnvironmentFile") == ["/etc/refinery/refinery.env"]
    given = dict(each.split("=", 1) for each in setting(unit, "Environment")[0].split())
    assert unknown_variables(given) == set()
    assert {each for each in given if not OURS.match(each)} <= OTHERS
    (folder,) = setting(unit, "RuntimeDirectory")
    assert given["PREFECT_HOME"] == f"%t/{folder}" == setting(unit, "WorkingDirectory")[0]


@services
def test_it_is_locked_in_and_bounded(unit: Path) -> None:
    for name, value in {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "SystemCallFilter": "@system-service",
        "Slice": "refinery.slice",
    }.items():
        assert setting(unit, name)[0] == value, name
    assert setting(unit, "MemoryMax")
    assert setting(unit, "TasksMax")
    # psutil reads /proc/stat to tell when a process began, and the worker asks it for its runs'.
    assert setting(unit, "ProcSubset") == []


@services
def test_units_that_it_names_are_there(unit: Path) -> None:
    named = [
        each
        for key in ("Wants", "Requires", "After", "PartOf", "WantedBy", "Slice")
        for line in setting(unit, key)
        for each in line.split()
        if each.startswith("refinery")
    ]
    assert named
    for each in named:
        assert (FOLDER / each).is_file(), each


def test_the_api_and_the_workers_begin_after_the_schema() -> None:
    waiting = [unit.name for unit in SERVICES if "refinery-migrate.service" in unit.read_text()]
    assert waiting == ["refinery-api@.service", "refinery-worker@.service"]


def test_requests_under_way_have_time_to_end() -> None:
    unit = FOLDER / "refinery-api@.service"
    finish_s = int(option(command(unit), "timeout-graceful-shutdown"))
    drain_s, background_s = int(re.findall(r"REFINERY_DRAIN_S=(\d+)", unit.read_text())[0]), 20
    assert int(setting(unit, "TimeoutStopSec")[0]) >= drain_s + finish_s + background_s


OFFLINE_SINCE = 250


def systemd_version(analyze: str) -> int:
    said = subprocess.run([analyze, "--version"], check=True, capture_output=True, text=True)
    return int(re.findall(r"^systemd (\d+)", said.stdout)[0])


def test_systemd_finds_no_fault_and_little_exposure(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None or systemd_version(analyze) < OFFLINE_SINCE:
        pytest.skip("There is no systemd-analyze of version 250, so the units are not checked.")
    for unit in FOLDER.iterdir():
        # Its programs are not installed here.
        text = unit.read_text().replace(f"{INSTALLED}/refinery", "/bin/true")
        name = unit.name.replace("@.", "@8000.")
        (tmp_path / name).write_text(text.replace(f"{INSTALLED}/python", "/bin/true"))
    units = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [analyze, "verify", *map(str, units)], capture_output=True, text=True, check=False
    )
    # It reads the machine's own units too, and may have something to say of those.
    assert [line for line in done.stderr.splitlines() if "refinery" in line] == []
    for unit in units:
        if unit.suffix == ".service":
            judged = subprocess.run(
                [analyze, "security", "--offline=true", "--threshold=20", str(unit)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert judged.returncode == 0, judged.stdout[-300:]
