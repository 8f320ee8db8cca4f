"""The `refinery` command, called in this process."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from deployments.cli import main
from tests.support.api_world import JOB_BODY
from tests.support.store_shop import Shop, make_chunk

MANIFEST: str = JOB_BODY["manifest_url"]
ASKED = ["--question", "What is it?", "--option", "cat", "--option", "dog", "--option", "fox"]


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
    """Runs the command in an environment of its own; a call returns how it ended."""

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
        """Run a command that must succeed, and return what it printed."""
        ran = self(*arguments)
        assert ran.code == 0, ran.err
        return ran


def settle(shop: Shop) -> None:
    """Label every task, by three annotators who agree."""
    for annotator in shop.annotators(3):
        shop.answer(annotator, "cat", 1000)


def settled_job(shop: Shop, tasks: int = 10, **changes: Any) -> str:
    """Return the id of a job whose tasks are settled, and which has two bad lines."""
    job = shop.processing(make_chunk(tasks, bad=2), **changes)
    settle(shop)
    return job.job_id
