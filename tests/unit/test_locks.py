"""constraints.txt has all that Refinery runs on, constraints-dev.txt the rest, and both have hashes."""

import re
from importlib.metadata import distribution

import pytest
from packaging.utils import canonicalize_name

from deployments.registered import REPOSITORY
from tests.support.requirements import walk_requirements


def locked(name: str) -> dict[str, str]:
    """Return the entries of a lock by their packages' names."""
    entries = re.split(r"^(?=[a-z0-9])", (REPOSITORY / name).read_text(), flags=re.MULTILINE)[1:]
    return {canonicalize_name(re.split(r"[=\[]", entry)[0]): entry for entry in entries}


RUNS = locked("constraints.txt")
DEV = locked("constraints-dev.txt")


def needed(*extras: str) -> set[str]:
    """Return the packages that we need with these extras on this platform, and those that they need."""
    return set(walk_requirements(distribution, *extras))


def test_the_lock_of_what_runs_is_complete() -> None:
    assert needed("embedded", "redis", "otel", "checkout") <= RUNS.keys()


def test_what_runs_needs_no_package_of_development() -> None:
    assert needed("embedded", "redis", "otel", "checkout").isdisjoint(DEV)
    assert {"pytest", "mypy", "ruff", "hypothesis"} <= DEV.keys()


def test_both_locks_together_are_complete() -> None:
    assert needed("dev") <= RUNS.keys() | DEV.keys()


@pytest.mark.parametrize("lock", [RUNS, DEV], ids=["runs", "dev"])
def test_each_entry_has_a_version_a_hash_and_no_address(lock: dict[str, str]) -> None:
    for entry in lock.values():
        assert re.match(r"\S+==\S+ .*\\\n +--hash=sha256:[0-9a-f]{64}", entry), entry
        assert "://" not in entry
