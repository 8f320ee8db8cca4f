"""Read what compose.yaml runs: commands, variables and secrets of its services."""

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from deployments.registered import REPOSITORY

FILE = REPOSITORY / "deployments" / "compose.yaml"
FOLDER = REPOSITORY / "deployments" / "compose"
# `${NAME:-value}` and `${NAME}`.
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_DECLARATION = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
_ENVIRONMENTS = {
    "refinery-environment": "refinery.env",
    "prefect-environment": "prefect.env",
}


@dataclass(frozen=True)
class Service:
    """Give the command of a service, and its variables, secret ones included."""

    command: list[str]
    environment: dict[str, str]


class Compose:
    """Give services as they are with these variables, and with the secrets of `secrets.sh`."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        """`folder` gets the secrets, and whatever else `secrets.sh` makes."""
        self.secrets = folder / "secrets"
        script = ["sh", str(FOLDER / "secrets.sh"), str(self.secrets), str(folder / "state")]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
        self._variables = variables
        self._services = YAML(typ="safe").load(FILE.read_text())["services"]

    def service(self, name: str) -> Service:
        """Return a service by its name in the file."""
        found = self._services[name]
        environment = {
            key: self._fill_in(str(value)) for key, value in found.get("environment", {}).items()
        }
        for secret in found.get("secrets", ()):
            source = secret if isinstance(secret, str) else secret["source"]
            if source in _ENVIRONMENTS:
                environment |= self.secret_variables(source)
        return Service([self._fill_in(str(word)) for word in found["command"]], environment)

    def secret_variables(self, source: str) -> dict[str, str]:
        """Return what a file of secrets says."""
        text = (self.secrets / _ENVIRONMENTS[source]).read_text()
        return {name: shlex.split(value)[0] for name, value in _DECLARATION.findall(text)}

    def _fill_in(self, text: str) -> str:
        return _VARIABLE.sub(lambda m: self._variables.get(m[1]) or m[2] or "", text)
