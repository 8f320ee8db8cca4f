"""docs/architecture.md names files that are there, and every room has a text of its own."""

import re
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
