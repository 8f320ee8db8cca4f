"""Record in Prefect what was registered with it, so that a start need not register it again."""

import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).resolve().parents[1]
"""Where our packages are: the checkout, or the site-packages that a wheel was installed into."""

_IN_WHEEL = Path(__file__).with_name("prefect.yaml")
PREFECT_YAML = _IN_WHEEL if _IN_WHEEL.exists() else REPOSITORY / "prefect.yaml"

VARIABLE = "refinery_registered"
"""A variable of Prefect, with the names of what is registered and the digest of its sources."""

_SOURCES = ("api", "blocks", "deployments", "flows")
# Prefect returns no more at a time.
_PAGE = 200

_FILTERS: Mapping[str, Callable[[list[str]], dict[str, Any]]] = {
    "deployments": lambda names: {"deployments": {"name": {"any_": names}}},
    "automations": lambda names: {"automations": {"name": {"any_": names}}},
    "block_types": lambda names: {"block_types": {"slug": {"any_": names}}},
}


def digest(pool: str) -> str:
    """Return the SHA-256 of all that a registration is made of.

    That is `prefect.yaml`, the automations, and our code, from which the forms of deployments and
    blocks are made; the folder of the code; and the version of Prefect.
    """
    found = hashlib.sha256(f"{pool}\n{REPOSITORY}\n{version('prefect')}\n".encode())
    files = [path for name in _SOURCES for path in (REPOSITORY / name).rglob("*")]
    for path in sorted({PREFECT_YAML, *files}):
        if path.suffix in (".py", ".yaml"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(REPOSITORY)} {content}\n".encode())
    return found.hexdigest()


def is_registered(client: httpx.Client, pool: str) -> bool:
    """Return whether this very version is registered, and all of it is still there.

    `client` has the URL of Prefect's API as its base.

    Raises:
        httpx.HTTPError: Prefect cannot be asked.
    """
    answer = client.get(f"variables/name/{VARIABLE}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return False
    record = answer.raise_for_status().json()["value"]
    if not isinstance(record, dict) or record.get("digest") != digest(pool):
        return False
    return all(_are_there(client, kind, record.get(kind)) for kind in _FILTERS)


def _are_there(client: httpx.Client, kind: str, names: Any) -> bool:
    if not isinstance(names, list):
        return False
    body = {**_FILTERS[kind](names), "limit": _PAGE}
    found = client.post(f"{kind}/filter", json=body).raise_for_status().json()
    return {each["slug" if kind == "block_types" else "name"] for each in found} >= set(names)


def record(pool: str, names: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a value for the variable; `names` has those of deployments, automations, block_types."""
    assert names.keys() == _FILTERS.keys()
    return {"digest": digest(pool), **names}
