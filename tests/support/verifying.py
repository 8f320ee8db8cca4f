"""`refinery verify`, called in this process on a folder."""

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from deployments import cli


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """Check a folder in an environment of its own; return the exit code, and all that was said."""
    given = {"HOME": "/nonexistent", **environment}
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, given, clear=True),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        code = cli.run(["verify", *arguments])
    return code, said.getvalue()


def put(folder: Path, objects: dict[str, bytes]) -> None:
    for name, data in objects.items():
        (folder / name).write_bytes(data)
