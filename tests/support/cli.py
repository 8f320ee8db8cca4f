"""The `refinery` command, called in this process."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from deployments.cli import main


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """The command, with an environment of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture

    def say(self, **environment: str | None) -> None:
        """Set variables, or take them away."""
        for name, value in environment.items():
            if value is None:
                self._patch.delenv(name, raising=False)
            else:
                self._patch.setenv(name, value)

    def __call__(self, *arguments: str) -> Ran:
        self._patch.setattr(sys, "argv", ["refinery", *arguments])
        self._capture.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self._capture.readouterr()
        return Ran(code, out, err)

    def done(self, *arguments: str) -> Ran:
        """What it printed, of a command that must succeed."""
        ran = self(*arguments)
        assert ran.code == 0, ran.err
        return ran
