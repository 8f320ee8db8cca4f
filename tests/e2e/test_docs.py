"""Whatever `README.md` and the pages for users and operators have a reader type, typed; some of `api.md`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deployments.embedded.operator_environment import keep_environment
from deployments.embedded.stack import Stack
from deployments.registered import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(540)]

# So many seconds after which what the commands have printed until then is shown.
COMMANDS_S_MAX = 480

# What the fixture has run already: `refinery up` is a Stack, and deploys by the same command.
DONE = {"make demo", "make test", "make up ARGS=--store", "refinery deploy"}
ENDLESS = {"refinery worker"}
LAST = "prefect deployment delete"
# What a reader of docs/backup.md has chosen.
PLACES = 'BACKUP=$PWD\nNEW_DATABASE_URL="${REFINERY_DATABASE_URL}_restored"'
# For machines without one.
CURL = """command -v curl >/dev/null || curl() {
    python -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[-1]).read().decode())' "$@"
}"""


def commands(page: str) -> list[str]:
    """The shell blocks of a page, in their order."""
    text = (REPOSITORY / page).read_text()
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a reader works in; what the commands write stays out of the real one."""
    programs = tmp_path / ".venv" / "bin"
    programs.parent.mkdir()
    programs.symlink_to(Path(sys.executable).parent)
    return tmp_path


def typed(blocks: list[str], stack: Stack, checkout: Path) -> str:
    """What a shell says to whom all of them are typed; it has to like each."""
    lines = [line for block in blocks for line in block.splitlines()]
    wanted = [line for line in lines if line.split("   ")[0] not in DONE | ENDLESS]
    inherited = ("PATH", "HOME", "LANG", "TMPDIR")
    # Says how many seconds had gone by at each command.
    script = "\n".join(["PS4='+ $SECONDS '", CURL, *wanted])
    output = checkout / "output"
    with keep_environment(stack), output.open("wb") as file:
        done = subprocess.run(
            ["timeout", str(COMMANDS_S_MAX), "bash", "-euo", "pipefail", "-x", "-c", script],
            cwd=checkout,
            env={
                **{name: os.environ[name] for name in inherited if name in os.environ},
                "REFINERY_DATA_DIR": str(stack.data_dir),
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = output.read_text()
    assert done.returncode == 0, said[-6000:]
    return said


def test_the_readme_takes_a_reader_from_nothing_to_results(stack: Stack, checkout: Path) -> None:
    wanted = ("$JOB", "/v1/jobs/events")
    about_jobs = [
        block for block in commands("docs/api.md") if any(word in block for word in wanted)
    ]
    assert about_jobs
    said = typed(
        [
            *commands("README.md"),
            *about_jobs,
            *commands("docs/leads.md"),
            *commands("docs/annotation.md"),
            *commands("docs/gold.md"),
            *commands("docs/review.md"),
        ],
        stack,
        checkout,
    )
    for words in (
        ": whole (2 objects, 1,000 rows",
        ", 1,000 results computed again)",
        '"recomputed": 1000',
        '"metadata":{"sku": "A-2"}',
        '"inference":{"method":"one_coin"',
        "s/label",
        '"disagreements":[]',
    ):
        assert words in said, said
    # Nothing that holds a key is left where somebody may commit it.
    assert {path.name for path in checkout.iterdir()} == {".venv", "output"}


def test_every_command_does_what_the_page_says(
    stack: Stack, checkout: Path, prefect: httpx.Client
) -> None:
    etl = commands("docs/etl.md")
    assert LAST in etl[-1]
    dump, restore, *_ = commands(
        "docs/backup.md"
    )  # tests/integration/test_backup.py types the rest
    operators = [*commands("docs/operators.md"), PLACES, dump, restore]
    said = typed([*etl[:-1], *operators, etl[-1]], stack, checkout)
    assert len((checkout / "animals" / "results.jsonl").read_bytes().splitlines()) == 10
    for words in (": whole (2 objects, 10 rows", "is completed; nothing to do", "refinery_jobs{"):
        assert words in said, said
    runs = prefect.post(
        "/flow_runs/filter", json={"flow_runs": {"name": {"like_": "submit manifests of animals"}}}
    )
    messages = {run["state"]["message"] for run in runs.raise_for_status().json()}
    assert {"1 submitted.", "Dry run: no new manifests.", "no new manifests."} <= messages
