"""Prefect takes a setting whose name it does not know without a word."""

from pathlib import Path

from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields

from deployments.embedded.prefect_servers import PrefectServer

# The server reads it from the environment itself.
NO_FIELD = "PREFECT_SERVER_ENCRYPTION_KEY"


def test_prefect_knows_every_setting_that_its_server_and_clients_are_given(tmp_path: Path) -> None:
    known = {setting.name for setting in _get_settings_fields(Settings).values()} | {NO_FIELD}
    server = PrefectServer(tmp_path, 4200, "postgresql+asyncpg://")
    given = {**server.program().environment, **server.client_environment({})}
    ours = {name for name in given if name.startswith("PREFECT_")}
    assert ours - known == set()
    assert {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"} <= ours
