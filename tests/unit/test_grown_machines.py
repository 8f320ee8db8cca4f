"""The machines of `make grown`: their shares of the CPUs, and what compose.yaml has them run."""

import os
from pathlib import Path

import pytest

from benchmarks.grown import isolation
from benchmarks.grown.compose import Compose
from benchmarks.grown.cpu_groups import (
    Unlimited,
    VersionOne,
    VersionTwo,
    open_groups,
    remove_groups,
)


def test_a_share_is_a_quota_of_version_one(tmp_path: Path) -> None:
    for name in ("cpu", "cpuacct"):
        (tmp_path / name).mkdir()
    groups = VersionOne("drill", tmp_path)
    joined = groups.add("worker-1")
    assert [path.parent.relative_to(tmp_path).parts for path in joined] == [
        ("cpu", "drill", "worker-1"),
        ("cpuacct", "drill", "worker-1"),
    ]
    quota = tmp_path / "cpu" / "drill" / "worker-1" / "cpu.cfs_quota_us"
    period = quota.with_name("cpu.cfs_period_us")
    groups.limit("worker-1", 0.15)
    assert int(quota.read_text()) / int(period.read_text()) == 0.15
    groups.limit("worker-1", None)
    assert quota.read_text() == "-1"
    joined[1].with_name("cpuacct.usage").write_text("1500000000\n")
    assert groups.used_s("worker-1") == 1.5


def test_a_share_is_a_quota_of_version_two(tmp_path: Path) -> None:
    groups = VersionTwo("drill", tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    (joined,) = groups.add("worker-1")
    groups.limit("worker-1", 0.15)
    quota, period = joined.with_name("cpu.max").read_text().split()
    assert int(quota) / int(period) == 0.15
    groups.limit("worker-1", None)
    assert joined.with_name("cpu.max").read_text().split()[0] == "max"
    joined.with_name("cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert groups.used_s("worker-1") == 1.5


def test_where_the_kernel_has_no_groups_the_drill_says_so_and_goes_on(tmp_path: Path) -> None:
    groups = open_groups("drill", tmp_path / "nothing")
    assert isinstance(groups, Unlimited)
    assert "nothing" in groups.note
    assert groups.add("worker-1") == []
    groups.limit("worker-1", 0.15)


def test_groups_that_are_empty_are_removed(tmp_path: Path) -> None:
    for path in ("cpu/drill/worker-1", "cpuacct/drill/worker-1", "cpu/another"):
        (tmp_path / path).mkdir(parents=True)
    remove_groups("drill", tmp_path)
    assert sorted(path.name for path in (tmp_path / "cpu").iterdir()) == ["another"]
    assert list((tmp_path / "cpuacct").iterdir()) == []


def test_without_root_there_are_no_machines_and_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert isolation.obstacle() == "make grown needs root: its machines are network namespaces."


def test_services_have_the_variables_and_secrets_of_compose(tmp_path: Path) -> None:
    compose = Compose(tmp_path, {"DOMAIN": "refinery.test", "EGRESS_ALLOW": "store:8333"})
    api = compose.service("api-1")
    assert api.command[:3] == ["python", "-m", "api"]
    assert api.environment["REFINERY_PUBLIC_URL"] == "https://refinery.test"
    assert api.environment["REFINERY_EGRESS_ALLOW"] == "store:8333"
    assert api.environment["REFINERY_DATABASE_URL"].startswith("postgresql://refinery:")
    prefect = compose.service("prefect").environment
    assert prefect["PREFECT_SERVER_API_AUTH_STRING"] == api.environment["PREFECT_API_AUTH_STRING"]
    assert prefect["PREFECT_SERVER_DOCKET_URL"] == "memory://"
