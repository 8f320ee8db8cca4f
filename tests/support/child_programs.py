"""Child programs that stand in for servers."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from deployments.embedded.processes import Program

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def make_folder() -> Path:
    """A data directory that PostgreSQL's user can reach, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="refinery-test-"))
    folder.chmod(0o711)
    (folder / "logs").mkdir(mode=0o700)
    return folder


def python_program(data_dir: Path, code: str, **options: object) -> Program:
    """A stand-in for a server; its arguments are its code."""
    return Program(
        name="stand-in",
        arguments=[sys.executable, "-I", "-S", "-c", code],
        environment=dict(os.environ),
        folder=data_dir,
        **options,  # type: ignore[arg-type]
    )


def parent_of_another(data_dir: Path) -> Program:
    """A stand-in for the Prefect worker, whose flow runs are processes of its own group."""
    code = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    open('grandchild', 'w').close()\n"
        "    while True: signal.pause()\n"
        "while True: signal.pause()"
    )
    return python_program(data_dir, code, is_ready=(data_dir / "grandchild").exists)
