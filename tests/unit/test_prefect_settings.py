"""Prefect takes a setting whose name it does not know without a word."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields

from deployments.embedded.prefect_servers import HISTORY, PrefectServer
from tests.support.deployed import DEPLOYMENTS, read_yaml

# The server reads it from the environment itself.
NO_FIELD = "PREFECT_SERVER_ENCRYPTION_KEY"


def test_prefect_knows_every_setting_that_its_server_and_clients_are_given(tmp_path: Path) -> None:
    known = {setting.name for setting in _get_settings_fields(Settings).values()} | {NO_FIELD}
    server = PrefectServer(tmp_path, 4200, "postgresql+asyncpg://")
    given = {**server.program().environment, **server.client_environment({})}
    ours = {name for name in given if name.startswith("PREFECT_")}
    assert ours - known == set()
    assert {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"} <= ours


@pytest.mark.parametrize("file", ["compose.yaml", "kubernetes/prefect/prefect.yaml"])
def test_every_server_forgets_as_early_as_ours(file: str) -> None:
    servers = [
        each
        for document in read_yaml(DEPLOYMENTS / file)
        for each in mappings(document)
        if "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED" in each
    ]
    assert servers
    for given in servers:
        for variable, value in HISTORY.items():
            assert parsed(given[variable]) == parsed(value)


def parsed(value: str) -> Any:
    return json.loads(value) if value.startswith("{") else value


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    """All mappings of a document, whatever they lie in."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from mappings(child)
