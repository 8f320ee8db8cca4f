"""A store with a customer in it, and the shortest way to every state of a job."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from litestar.testing import TestClient

from api.cli import client, export
from blocks.prefect.api import PrefectApi
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import customers
from blocks.store.database import Database
from deployments.embedded.object_stores import ObjectStoreAddress
from deployments.embedded.ports import free_port
from tests.support.api_world import Api, make_app, serve
from tests.support.child_programs import make_folder
from tests.support.cli import Cli
from tests.support.fake_prefect import FakePrefect
from tests.support.faulty_store import FaultyStore
from tests.support.servers import DatabaseServer
from tests.support.store_shop import LastingShop, Shop

if TYPE_CHECKING:
    from tests.support.flow_world import FlowShop


@pytest.fixture
def prefect() -> Iterator[FakePrefect]:
    """Prefect's server, as far as the API needs it."""
    server = FakePrefect()
    yield server
    server.stop()


@pytest.fixture
def prefect_api(settings: Settings, prefect: FakePrefect) -> Iterator[PrefectApi]:
    """The API's client of it."""
    with PrefectApi(msgspec.structs.replace(settings, prefect_api_url=prefect.url)) as found:
        yield found


@pytest.fixture
def empty_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database with nothing in it."""
    url = database_server.make_empty()
    yield url
    database_server.drop(url)


@pytest.fixture
def vault(settings: Settings) -> Vault:
    return settings.vault()


@pytest.fixture
def shop(database: Database, database_url: str, vault: Vault) -> Shop:
    return Shop(database, database_url, vault)


@pytest.fixture
def lasting_shop(database: Database, database_url: str, vault: Vault) -> Iterator[LastingShop]:
    with closing(LastingShop(database, database_url, vault)) as found:
        yield found


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's test server, for the flows that tests call. Imported late, like `make_app`."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # The heartbeat thread makes every run a second longer.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), prefect_test_harness(120):
        yield


@pytest.fixture
def flow_shop(
    prefect_server: None,
    database: Database,
    database_url: str,
    object_store: ObjectStoreAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator["FlowShop"]:
    """A shop whose flows are called by the test. Imported late: with flows comes Prefect's client."""
    from tests.support.flow_world import FlowShop, flow_settings

    with flow_settings(monkeypatch, database_url):
        yield FlowShop(database, object_store)


@pytest.fixture
def api_settings(settings: Settings) -> Settings:
    """Settings with a Prefect that is not there."""
    return msgspec.structs.replace(settings, prefect_api_url=f"http://127.0.0.1:{free_port()}/api")


@pytest.fixture
def api(api_settings: Settings, shop: Shop) -> Iterator[Api]:
    with TestClient(make_app(api_settings)) as client:
        yield Api(client, shop)


@pytest.fixture
def server(api_settings: Settings) -> Iterator[str]:
    """The API behind a real HTTP server."""
    with serve(api_settings) as url:
        yield url


@pytest.fixture
def cli(
    server: str,
    shop: Shop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    monkeypatch.setattr(client, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(export, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(export, "_BACKOFF_S_MAX", 0.05)
    found = Cli(monkeypatch, capsys)
    found.say(
        REFINERY_API_URL=server,
        REFINERY_API_KEY=shop.do(customers.add_customer_key, shop.customer_id),
        REFINERY_PROFILE=None,
        REFINERY_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",  # a client has no need of it
        HOME=str(tmp_path),
        XDG_CONFIG_HOME=str(tmp_path / "config"),
        XDG_DATA_HOME=str(tmp_path / "data"),
        COLUMNS="200",
    )
    return found


@pytest.fixture
def proxy(cli: Cli, server: str) -> Iterator[FaultyStore]:
    """Between the command and the API."""
    with FaultyStore(server) as found:
        cli.say(REFINERY_API_URL=found.url)
        yield found


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = make_folder()
    yield folder
    shutil.rmtree(folder)
