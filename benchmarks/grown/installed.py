"""Install the wheel of this checkout on machines, each in a folder of its own."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

from deployments.embedded.environment import plain_environment
from deployments.registered import REPOSITORY

_PIP = (sys.executable, "-m", "pip")
_QUIET = ("--quiet", "--no-deps", "--disable-pip-version-check")


def build_wheel(folder: Path) -> Path:
    """Build the wheel, and return its path."""
    options = (*_QUIET, "--no-build-isolation", "--wheel-dir", str(folder))
    subprocess.run([*_PIP, "wheel", *options, str(REPOSITORY)], check=True)
    (wheel,) = folder.glob("refinery_jobs-*.whl")
    return wheel


class Installed:
    """Use a virtual environment that has the wheel, and the packages of ours that it stands on."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        # A path in a .pth file brings the packages, and not the .pth files there, one of which leads to
        # the checkout.
        (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        options = ("--no-index", "--no-compile", "--ignore-installed")
        python = ("--python", str(folder / "bin" / "python"))
        subprocess.run([*_PIP, *python, "install", *_QUIET, *options, str(wheel)], check=True)
        self._folder = folder

    def command(self, words: list[str]) -> list[str]:
        """Return a command of the image as this environment has it."""
        program, *rest = words
        if program == "python":
            return [self._bin("python"), *rest]
        if program == "refinery":
            return [self._bin("refinery"), *rest]
        return [self._bin("python"), "-m", program, *rest]

    def environment(self, home: Path, extra: Mapping[str, str]) -> dict[str, str]:
        """Return variables for a program whose home and temporary folder this is."""
        temporary = home / "tmp"
        temporary.mkdir(exist_ok=True)
        path = os.pathsep.join([str(self._folder / "bin"), os.environ.get("PATH", os.defpath)])
        return plain_environment() | {
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONUNBUFFERED": "1",
            **extra,
            # Folders of a container are below that of its machine.
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
            "PATH": path,
        }

    def _bin(self, name: str) -> str:
        return str(self._folder / "bin" / name)
