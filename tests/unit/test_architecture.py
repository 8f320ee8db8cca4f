"""docs/architecture.md names files that are there, rooms have texts of their own, and files are short."""

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("blocks", "flows", "api", "deployments")
NAMED = sorted(
    set(
        re.findall(
            r"`((?:blocks|flows|api|deployments)/[a-z_/.]+)`",
            (ROOT / "docs/architecture.md").read_text(),
        )
    )
)
ROOMS = sorted(
    path.parent for package in PACKAGES for path in ROOT.glob(f"{package}/**/__init__.py")
)


def test_the_journey_names_files() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize("name", NAMED)
def test_what_it_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_says_what_is_in_it(room: Path) -> None:
    text = (room / "__init__.py").read_text()
    assert re.match(r'"""[A-Z][^\n]{20,}', text)


def test_no_test_file_is_imported() -> None:
    """What tests share is in tests/support, so that no layer of tests rests on another."""
    importers = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in ROOT.glob("tests/**/*.py")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import) tests\b(?!\.support\b)", line)
    ]
    assert importers == []


LINES_MAX = 400
# Read as a whole: the schema, and the migration that is the same text.
WHOLE = {"schema.sql", "0001_initial.sql"}
# Files that were longer when the limit came. Take a name off when its file is short; never add one: split the file.
STILL_LONG = {
    "annotation.sql",
    "fault_kinds.py",
    "test_api_errors.py",
    "test_api_jobs.py",
    "test_api_tasks.py",
    "test_bodies.py",
    "test_cli_client.py",
    "test_delivery.py",
    "test_flows_waiting.py",
    "test_launcher.py",
    "test_lines.py",
    "test_stack.py",
    "test_store_annotation.py",
    "test_store_answers.py",
    "test_store_jobs.py",
    "test_store_tasks.py",
    "test_submit_manifests.py",
    "test_webhooks.py",
}


def test_no_file_is_over_400_lines() -> None:
    files = chain.from_iterable(
        ROOT.glob(f"{folder}/**/*.{kind}")
        for folder in (*PACKAGES, "benchmarks", "tests")
        for kind in ("py", "sql")
    )
    long = {path.name for path in files if len(path.read_text().splitlines()) > LINES_MAX}
    assert long - WHOLE == STILL_LONG
