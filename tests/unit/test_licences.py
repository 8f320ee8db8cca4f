"""Licences: of every package that Refinery runs on, each one that was looked at; and ours, in the wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deployments.registered import REPOSITORY
from tests.support.licences import PAGE, is_allowed, read_licences, render

_BUILT_FROM = ("api", "blocks", "flows", "deployments")
_FILES = ("LICENSE", "prefect.yaml", "pyproject.toml", ".gitignore")


def test_every_package_of_the_lock_has_a_licence_that_is_allowed() -> None:
    found = read_licences()
    assert len(found) > 100
    assert {name: licence for name, licence in found.items() if not is_allowed(licence)} == {}


@pytest.mark.parametrize(
    "licence, allowed",
    [
        ("MIT", True),
        ("", False),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("Other/Proprietary License", False),
    ],
)
def test_a_licence_is_allowed_if_one_may_choose_so(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) is allowed


def test_the_page_lists_them_all() -> None:
    assert PAGE.read_text() == render(), "make licences"


def build(folder: Path, *, umask: int, times: tuple[int, int]) -> Path:
    """Build the wheel from a copy of the checkout; its files have these times and permissions."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in _BUILT_FROM:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in _FILES:
        shutil.copy(REPOSITORY / name, source / name)
    for path in source.rglob("*"):
        path.chmod(0o777 & ~umask if path.is_dir() else 0o666 & ~umask)
        os.utime(path, times)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    environment = {name: text for name, text in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        [*command, str(folder / "built")], cwd=source, env=environment, umask=umask, check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = (folder / "built").glob("*.whl")
    return wheel


def test_a_wheel_is_the_same_bytes_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    one = build(tmp_path / "a", umask=0o022, times=(1_000_000_000, 1_000_000_000))
    other = build(
        tmp_path / "another" / "folder", umask=0o077, times=(1_700_000_000, 1_700_000_000)
    )
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as wheel:
        assert not [name for name in wheel.namelist() if "/.git" in f"/{name}"]
        (ours,) = (name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
        assert wheel.read(ours) == (REPOSITORY / "LICENSE").read_bytes()
