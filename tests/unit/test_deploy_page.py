"""docs/deploy.md: what a reader types names files, services, units and commands that are there."""

import re
import shlex
from collections.abc import Iterator

import pytest

from deployments.registered import REPOSITORY
from tests.support.deployed import DEPLOYMENTS, accept_command, project, read_yaml

PAGE = (REPOSITORY / "docs/deploy.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(COMPOSE,) = read_yaml(DEPLOYMENTS / "compose.yaml")


def commands() -> Iterator[list[str]]:
    """The words of each command, without what goes into files."""
    for block in BLOCKS:
        text = re.sub(r"<<'END'\n.*?^END$", "", block, flags=re.MULTILINE | re.DOTALL)
        for line in text.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


COMMANDS = [words for words in commands() if words]
COMPOSED = [words[2:] for words in COMMANDS if words[:2] == ["docker", "compose"]]


def test_the_page_has_commands_of_each_way() -> None:
    programs = {words[0] for words in COMMANDS}
    assert {"docker", "kubectl", "systemctl", "sudo"} <= programs
    assert len(COMPOSED) > 8


def test_files_that_a_command_names_are_there() -> None:
    named = {word for words in COMMANDS for word in words if word.startswith("deployments/")}
    assert len(named) > 4
    for each in named:
        assert list(REPOSITORY.glob(each)), each


@pytest.mark.parametrize("words", COMPOSED, ids=range(len(COMPOSED)))
def test_services_and_commands_for_containers_are_there(words: list[str]) -> None:
    assert words[:2] == ["-f", "deployments/compose.yaml"]
    given = [word for word in words[2:] if not word.startswith("-") and "/" not in word]
    verb, *rest = given
    assert verb in {"build", "up", "run"}
    if verb == "run":
        service, *command = rest
        assert service in COMPOSE["services"]
        if command:
            accept_command(words[words.index(service) + 1 :])
    else:
        assert set(rest) <= COMPOSE["services"].keys()


def test_our_own_commands_are_there() -> None:
    ours = [words[words.index("refinery") :] for words in COMMANDS if "refinery" in words]
    typed = [words for words in ours if len(words) > 2 and not words[1].startswith("-")]
    assert len(typed) >= 5
    for words in typed:
        if words[1] not in {"create", "wait", "exec", "port-forward"}:
            accept_command(words)
        elif "--" in words:
            accept_command(words[words.index("--") + 1 :])


def test_units_that_are_started_are_there() -> None:
    units = [
        word
        for words in COMMANDS
        if words[0] == "systemctl"
        for word in words[1:]
        if word.startswith("refinery")
    ]
    assert units
    for unit in units:
        name = re.sub(r"@\w+", "@", unit)
        assert any((DEPLOYMENTS / "systemd" / each).is_file() for each in (name, f"{name}.service"))


def test_the_image_is_that_of_this_version() -> None:
    named = re.findall(r"refinery-jobs:(\S+)", PAGE)
    assert set(named) == {project()["version"]}


def test_links_lead_to_files_and_headings_that_are_there() -> None:
    for target, anchor in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", PAGE):
        if "://" in target:
            continue
        path = REPOSITORY / "docs" / target
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert anchor in {each.lower().replace(" ", "-") for each in heads}, (target, anchor)
