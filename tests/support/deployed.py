"""What the files in `deployments/` say, and what the code knows of it: variables, commands, paths."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources, util
from pathlib import Path
from typing import Any

import uvicorn
import yaml  # type: ignore[import-untyped]  # it comes with Prefect, and its types do not
from prefect.cli.server import server_app
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_settings_fields
from prefect_redis.client import RedisMessagingSettings

from api.__main__ import ARGUMENTS
from blocks.settings import _FIXED_NAMES, Settings
from deployments.cli import build
from deployments.registered import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"
USER = 10001
SECRETS = {"REFINERY_DATABASE_URL", "ASG_ENCRYPTION_KEY", "PREFECT_API_AUTH_STRING"}
PREFECT_SECRETS = {
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_ENCRYPTION_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
}
OURS = re.compile(r"^(?:REFINERY|ASG|PREFECT)_")
# Read by uvicorn, by everybody's telemetry, by Python, and for traces.
OTHERS = {
    "FORWARDED_ALLOW_IPS",
    "DO_NOT_TRACK",
    "PYTHONUNBUFFERED",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
}


def read_yaml(path: Path) -> list[Any]:
    """Return the documents of a file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def project() -> dict[str, Any]:
    text = (REPOSITORY / "pyproject.toml").read_text()
    return {
        "name": re.findall(r'^name = "(.+)"$', text, re.MULTILINE)[0],
        "version": re.findall(r'^version = "(.+)"$', text, re.MULTILINE)[0],
    }


def known_variables() -> set[str]:
    """Return the names of settings: ours, Prefect's, and those of its bridge to Redis."""
    ours = {
        _FIXED_NAMES.get(field, f"REFINERY_{field.upper()}") for field in Settings.__struct_fields__
    }
    prefects = {setting.name for setting in _get_settings_fields(PrefectSettings).values()}
    redis = {
        f"PREFECT_REDIS_MESSAGING_{field.upper()}" for field in RedisMessagingSettings.model_fields
    }
    # Prefect's server reads this one from the environment itself.
    return ours | prefects | redis | {"PREFECT_SERVER_ENCRYPTION_KEY"}


def unknown_variables(names: Sequence[str] | Mapping[str, Any]) -> set[str]:
    """Return those of ours and Prefect's that no setting reads."""
    return {name for name in names if OURS.match(name)} - known_variables()


def accept_command(words: Sequence[str]) -> None:
    """Pass if the program would take these arguments.

    Raises:
        Exception: of the parser of the program, or an AssertionError.
    """
    program, *rest = words
    if Path(program).name == "refinery":
        build().parse_args(rest, exit_on_error=False, print_error=False)
    elif program == "prefect":
        assert rest[0] == "server", words
        server_app.parse_args(rest[1:], exit_on_error=False, print_error=False)
    elif Path(program).name == "python" and rest[:2] == ["-m", "api"]:
        uvicorn.main.make_context("python -m api", [*ARGUMENTS, *rest[2:]])
    else:
        assert Path(program).name == "python", words
        assert rest[0] == "-m", words
        assert util.find_spec(rest[1]), words


def option(words: Sequence[str], name: str) -> str:
    """Return the value of an option, given as one word or as two."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    raise AssertionError(f"{words} has no --{name}")


def scalars(value: object) -> Iterator[str]:
    """Yield every key and value, however deep, as text."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from scalars(each)
    else:
        yield str(value)


def looks_secret(text: str) -> bool:
    """Return whether a value may be a key or a password, or a URL with one."""
    return bool(
        re.search(r"[0-9a-fA-F]{32}|[A-Za-z0-9_-]{43}=", text)
        or re.search(r"://[^/\s]*:[^/\s]*@", text)
    )


def compose_schema() -> Path:
    """Return the file of the official schema of compose files."""
    folder = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return Path(str(folder / "compose-spec.json"))
