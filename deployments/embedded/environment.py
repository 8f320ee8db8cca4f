"""Choose what a child process inherits of our environment: as little as it needs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.embedded.ports import LOOPBACK

# Enough to find programs, folders and the language. Anything else, above all a secret, is given by name.
PLAIN_NAMES = frozenset(
    {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"}
)
# Settings that an operator made for another Prefect must not reach ours.
FOREIGN_PREFIX = "PREFECT_"


def plain_environment() -> dict[str, str]:
    """Return an environment for servers that are no part of Refinery's own code."""
    return {name: os.environ[name] for name in PLAIN_NAMES if name in os.environ}


def python_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return one for Refinery's own programs: ours, without another Prefect's settings, and `extra`."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIX)
    }
    # A pool's command is `python -m prefect.engine`, which must mean this interpreter. The path is not
    # resolved, because the python of a virtual environment is a link to another one.
    programs = str(Path(sys.executable).parent)
    inherited["PATH"] = os.pathsep.join([programs, inherited.get("PATH", os.defpath)])
    # Logs are read while the server runs.
    inherited["PYTHONUNBUFFERED"] = "1"
    return inherited | without_proxy(inherited) | dict(extra)


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that keep requests to our own servers away from a proxy."""
    hosts = [environment.get("NO_PROXY", environment.get("no_proxy", "")), LOOPBACK, "localhost"]
    value = ",".join(filter(None, hosts))
    return {"NO_PROXY": value, "no_proxy": value}
