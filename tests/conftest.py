"""Real servers for the tests, started once a session on free ports of 127.0.0.1."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from blocks.settings import Settings
from blocks.store.database import Database
from deployments.embedded.guard import Guard
from deployments.embedded.object_stores import FakeGCS, ObjectStoreAddress, SeaweedFS
from deployments.embedded.ports import Ports
from deployments.embedded.postgres import Postgres
from deployments.embedded.prefect_servers import NO_TELEMETRY
from deployments.embedded.processes import ChildProcess, Program
from tests.support.servers import KEY, DatabaseServer
from tests.support.stacks import OF_OPERATORS, stack_of

pytest_plugins = ["tests.support.whole_stack"]

MEMORY_BYTES_MIN = 8 * 2**30

# Hypothesis: a slow machine is no failure, no run depends on an earlier one. `--hypothesis-profile=long` looks for
# much longer, with another `--hypothesis-seed` elsewhere.
hypothesis.settings.register_profile("refinery", deadline=None, database=None)
hypothesis.settings.register_profile(
    "long", deadline=None, database=None, max_examples=2_000, stateful_step_count=60
)
hypothesis.settings.load_profile("refinery")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "injected faults, and a hostile neighbour (tests/e2e)")
    group.addoption("--faults-all", action="store_true", help="try all, not a drawn few")
    group.addoption("--faults-seed", type=int, default=1, help="what is drawn, and every instant")
    group.addoption(
        "--faults-patience",
        type=float,
        help="after so many seconds a human would help: 120 by default, 300 for the drawn few",
    )
    fuzz = parser.getgroup("fuzz", "requests made from the OpenAPI document (tests/integration)")
    fuzz.addoption("--fuzz-all", action="store_true", help="of all operations, and more of each")
    fuzz.addoption("--fuzz-seed", type=int, default=1, help="which operations are drawn")


class ByServer(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps tests that share a server which takes long to start in one of xdist's processes.

    Those are the two halves of tests/e2e, of which one has tests/browser with it, and the files that ask for
    Prefect's test server. The unit tests stay together as well: hypothesis forbids any thread to use
    `random`, as Prefect's clients do that other tests leave behind.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: Path = self.config.rootpath / nodeid.partition("::")[0]
        if file.parent.name == "e2e":
            return stack_of(file.stem)
        if file.parent.name == "browser":
            return OF_OPERATORS
        if file.parent.name != "integration":
            return file.parent.name
        return "prefect" if _asks_for_prefect(file) else file.name


@cache
def _asks_for_prefect(file: Path) -> bool:
    return re.search(r"\b(prefect_server|flow_shop)\b", file.read_text()) is not None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


def _memory() -> Path | None:
    """A file system in memory with enough room, which Docker's usual one of 64 MB is not."""
    found = Path("/dev/shm")
    if not found.is_dir() or not os.access(found, os.W_OK):
        return None
    return found if shutil.disk_usage(found).free > MEMORY_BYTES_MIN else None


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A folder for servers' data that PostgreSQL's own user can pass through; pytest's is not.

    In memory where there is enough: a database for each test is some 300 files made and deleted, which
    took a third of a second on ext4.
    """
    with tempfile.TemporaryDirectory(
        prefix="refinery-test-", dir=_memory(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def ports(server_dir: Path) -> Iterator[Ports]:
    found = Ports(server_dir / "ports.json")
    yield found
    found.release()


@pytest.fixture(scope="session")
def guard() -> Iterator[Guard]:
    """Kills what a killed test run leaves."""
    found = Guard()
    found.start()
    yield found
    found.stop()


@contextmanager
def _running(program: Program, folder: Path, guard: Guard) -> Iterator[None]:
    child = ChildProcess(program, folder, guard)
    child.start()
    try:
        yield
    finally:
        child.stop()


@pytest.fixture(scope="session")
def database_server(server_dir: Path, ports: Ports, guard: Guard) -> Iterator[DatabaseServer]:
    postgres = Postgres(server_dir, ports.port("postgres"), durable=False)
    with (
        _running(postgres.program(), server_dir, guard),
        closing(DatabaseServer(postgres)) as server,
    ):
        yield server


@pytest.fixture
def database_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database of the test's own, with the schema in it."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url, connections_max=8) as found:
        yield found


@pytest.fixture(scope="session")
def object_store(server_dir: Path, ports: Ports, guard: Guard) -> Iterator[ObjectStoreAddress]:
    """A SeaweedFS."""
    seaweedfs = SeaweedFS(server_dir, ports)
    with _running(seaweedfs.program(), server_dir, guard):
        yield seaweedfs.address


@pytest.fixture(scope="session")
def gcs_url(server_dir: Path, ports: Ports, guard: Guard) -> Iterator[str]:
    """A fake-gcs-server."""
    gcs = FakeGCS(server_dir, ports.port("gcs"))
    with _running(gcs.program(), server_dir, guard):
        yield gcs.endpoint_url


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings for a service on the test's own database, which may talk to 127.0.0.1."""
    return Settings(database_url=database_url, encryption_key=KEY, egress_allow="127.0.0.1")


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> None:
    for name in list(os.environ):
        if name.startswith(("REFINERY_", "ASG_", "AWS_", "PREFECT_", "GOOGLE_")):
            del os.environ[name]
    os.environ.update(NO_TELEMETRY)  # nothing that a test starts may call its makers
