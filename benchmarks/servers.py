"""Run the servers that are measured: one PostgreSQL, one object store, our stack."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import s3fs
from psycopg import sql
from rich.console import Console

from deployments.embedded.stack import Stack
from deployments.embedded.state import State

BUCKET = "bench"
REGION = "us-east-1"
# Peers make their tables in the same server, away from ours.
PEERS_DATABASE = "peers"
# The tables that an ingestion fills; customers and their keys stay.
_INGESTED = ("pages", "bad_lines", "chunks")
# A flow's process ends some time after its last commit.
_FLOW_END_TIMEOUT_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Store:
    """Tell where the bucket of the manifests is, and with which keys it is read."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str

    def open(self) -> Any:
        """Return an s3fs file system."""
        return s3fs.S3FileSystem(
            key=self.access_key_id,
            secret=self.secret_access_key,
            endpoint_url=self.endpoint_url,
            client_kwargs={"region_name": REGION},
        )


@dataclass(frozen=True)
class Databases:
    """Use the PostgreSQL server of a running stack."""

    stack: Stack

    @property
    def database_url(self) -> str:
        return self.stack.database_url

    def database_url_of(self, name: str) -> str:
        """Return the URL of another database of the same server."""
        return urlunsplit(urlsplit(self.database_url)._replace(path=f"/{name}"))

    def pid(self, name: str) -> int:
        """Return the pid of one of the stack's servers."""
        processes = State(self.stack.data_dir).read()["processes"]
        return next(int(each["pid"]) for each in processes if each["name"] == name)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to our own database, in autocommit."""
        return psycopg.connect(self.database_url, autocommit=True)

    def connect_to(self, name: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to another database of the same server, in autocommit."""
        return psycopg.connect(self.database_url_of(name), autocommit=True)

    def make_database(self, name: str) -> None:
        """Make an empty database; drop one of that name first."""
        identifier = sql.Identifier(name)
        with self.connect() as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(identifier)
            )
            connection.execute(sql.SQL("create database {}").format(identifier))


@dataclass(frozen=True)
class Servers(Databases):
    """Use all of a running stack, with its object store."""

    store: Store

    @property
    def peers_database_url(self) -> str:
        return self.database_url_of(PEERS_DATABASE)

    def flow_processes(self) -> list[psutil.Process]:
        """Return the processes of all flow runs."""
        return [process for processes in self.flow_runs() for process in processes]

    def flow_runs(self) -> list[list[psutil.Process]]:
        """Return the processes of each flow run, which is a fork, and whatever that starts."""
        servers = _children(psutil.Process(self.pid("Prefect worker")))
        forks = [fork for server in servers for fork in _children(server)]
        return [[fork, *_children(fork, recursive=True)] for fork in forks]

    def clear(self) -> None:
        """Prepare for a measurement: remove rows of earlier ones, and flush everything.

        Autovacuum and a checkpoint for the rows of one measurement, and the end of its flow's process,
        would otherwise fall into the next.
        """
        deadline = time.monotonic() + _FLOW_END_TIMEOUT_S
        while self.flow_processes() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.make_database(PEERS_DATABASE)
        with self.connect() as connection:
            connection.execute(f"truncate {', '.join(_INGESTED)}")
            connection.execute("drop table if exists floor")
            connection.execute("checkpoint")


def _children(process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
    try:
        return process.children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """Make a folder that PostgreSQL's user can reach, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="refinery-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextlib.contextmanager
def running(
    folder: Path,
    console: Console,
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    durable: bool = True,
) -> Iterator[Servers]:
    """Run the stack on a data folder, with these settings; data of an earlier run is kept."""
    environment = {"REFINERY_EGRESS_ALLOW": "127.0.0.1", **settings}
    with Stack(folder, object_store=True, environment=environment, durable=durable) as stack:
        with console.status("Starting the stack"):
            stack.start()
        address = stack.object_store
        assert address is not None  # it was asked for
        store = Store(address.endpoint_url, address.access_key_id, address.secret_access_key)
        yield Servers(stack, store)
