"""Run the services of compose.yaml, each on a machine of its own."""

import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import httpx
import psycopg

from benchmarks.grown.compose import Compose
from benchmarks.grown.cpu_groups import open_groups
from benchmarks.grown.installed import Installed, build_wheel
from benchmarks.grown.machines import OPERATOR_ADDRESS, Machine, MachineFailed, Network, Process
from benchmarks.grown.programs import (
    STORE_PORT,
    CaddyMachine,
    PostgresMachine,
    store_command,
    store_of,
)
from benchmarks.servers import BUCKET, REGION, Store
from blocks.prefect.auth import PrefectAuth
from deployments.embedded.environment import plain_environment
from deployments.worker_health import is_online

DOMAIN = "refinery.test"
_HTTPS_PORT = 8443
_API_PORT, _DASK_PORT = 8000, 8786
_READY_S_MAX = 180.0
_POLL_S = 0.1
_TIMEOUT_S = 2.0
_DASK_TIMEOUT_S = 15.0


class Site:
    """Run PostgreSQL, a store, Prefect, APIs behind Caddy, workers and a Dask cluster.

    `settings` are variables for the APIs and the workers. As a context manager it stops everything.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] = MappingProxyType({}), *, apis: int = 2
    ) -> None:
        self.groups = open_groups(folder.name)
        self.network = Network(folder, self.groups)
        self._folder = folder
        self._settings = {"REFINERY_PUBLIC_URL": self.api_url, **settings}
        self._apis = [f"api-{n}" for n in range(1, apis + 1)]
        allowed = f"store:{STORE_PORT},{OPERATOR_ADDRESS}"
        self._compose = Compose(folder, {"DOMAIN": DOMAIN, "EGRESS_ALLOW": allowed})
        # databases.sql reads secrets where the container has them.
        Path("/run/secrets").symlink_to(self._compose.secrets)
        self._wheel = build_wheel(folder)
        self._installed: dict[str, Installed] = {}
        self._starts: dict[str, Callable[[], Process]] = {}
        self._processes: dict[str, Process] = {}

    @property
    def api_url(self) -> str:
        return f"https://{DOMAIN}:{_HTTPS_PORT}"

    @property
    def database_url(self) -> str:
        return self._secrets["REFINERY_DATABASE_URL"]

    @property
    def encryption_key(self) -> str:
        return self._secrets["ASG_ENCRYPTION_KEY"]

    @property
    def _secrets(self) -> dict[str, str]:
        return self._compose.secret_variables("refinery-environment")

    @property
    def store(self) -> Store:
        return store_of(self._compose.secrets)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of a shell that uses the store."""
        store = self.store
        return {
            "AWS_ACCESS_KEY_ID": store.access_key_id,
            "AWS_SECRET_ACCESS_KEY": store.secret_access_key,
            "AWS_ENDPOINT_URL": store.endpoint_url,
            "AWS_REGION": REGION,
        }

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to our own database, in autocommit."""
        return psycopg.connect(self.database_url, autocommit=True)

    def start(self) -> None:
        """Start all servers; workers are added later.

        Raises:
            MachineFailed: a program ended, or was not ready in time.
        """
        for name in ("postgres", "store", "prefect", *self._apis, "caddy"):
            self.network.add(name)
        self._start_postgres()
        self._add("store", self._start_store)
        self._add("prefect", lambda: self._run("prefect", "prefect"))
        self._run(self._apis[0], "migrate").wait(_READY_S_MAX)
        for name in self._apis:
            self._add(name, functools.partial(self._run, name, name))
        self._start_caddy()
        self._await("store", self._can_write)
        self._await("prefect", lambda: _status(f"{self._prefect_url}/ready", self._auth) == 200)
        self._run(self._apis[0], "deploy").wait(_READY_S_MAX)
        for name in self._apis:
            self.await_api(name)

    def add_worker(self, name: str, *arguments: str, **extra: str) -> Machine:
        """Add a machine with a worker, and return it when Prefect has heard of it."""
        self.network.add(name)
        self._add(name, lambda: self._run_worker(name, arguments, extra))
        self.await_worker(name)
        return self.network.machines[name]

    def await_worker(self, name: str) -> None:
        self._await(name, lambda: self._is_online(name))

    def await_api(self, name: str) -> None:
        self._await(name, lambda: _status(f"http://{name}:{_API_PORT}/health/ready") == 200)

    def add_dask(self, name: str, *, scheduler: str = "") -> Machine:
        """Add a machine with a Dask worker, or with the scheduler where none is named."""
        self.network.add(name)
        address = f"tcp://{scheduler}:{_DASK_PORT}"
        if scheduler:
            # One thread, as each chunk keeps a core busy; no nanny, as nobody restarts a dead machine.
            words = ["worker", address, "--nthreads", "1", "--no-nanny", "--name", name]
        else:
            words = ["scheduler", "--host", name, "--port", str(_DASK_PORT)]
        words = ["dask", *words, "--no-dashboard"]
        variables = self._variables("worker-1") | {"REFINERY_DASK_ADDRESS": address}
        self._add(name, lambda: self._start(name, words, variables))
        return self.network.machines[name]

    def await_dask(self, workers: int) -> None:
        """Return when the scheduler knows so many workers."""
        self._await("dask", lambda: _dask_workers() == workers)

    def crash(self, name: str) -> None:
        """Switch a machine off, as a power cut does."""
        self.network.machines[name].crash()

    def boot(self, name: str) -> None:
        """Switch a machine on again."""
        self.network.machines[name].mend()
        self._processes[name] = self._starts[name]()

    def stop(self, name: str) -> float:
        """Ask a machine's program to end, and return how many seconds that took."""
        return self._processes[name].stop()

    def said(self, name: str) -> str:
        """Return the end of what a machine's program has printed."""
        return self._processes[name].said()

    def is_running(self, name: str) -> bool:
        return self._processes[name].is_running

    def prefect(self) -> httpx.Client:
        """Return a client of Prefect's API, with the operator's password."""
        return httpx.Client(base_url=self._prefect_url, auth=self._auth, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for machine in self.network.machines.values():
            machine.crash()

    # How each program is started

    def _add(self, name: str, start: Callable[[], Process]) -> None:
        self._starts[name] = start
        self._processes[name] = start()

    def _start_postgres(self) -> None:
        service = self._compose.service("postgres")
        postgres = PostgresMachine(
            self.network.machines["postgres"], service, self._compose.secrets
        )
        self._add("postgres", postgres.start)
        self._await("postgres", postgres.answers)
        postgres.create_databases()

    def _start_store(self) -> Process:
        machine = self.network.machines["store"]
        service = self._compose.service("store")
        command = store_command(machine, service, self._compose.secrets)
        return machine.start(command, plain_environment() | service.environment)

    def _start_caddy(self) -> None:
        caddy = CaddyMachine(self.network.machines["caddy"], self._compose.service("caddy"))
        self.network.name(DOMAIN, "caddy")
        self._add("caddy", caddy.start)
        self._await("caddy", lambda: _status("http://caddy:8081/health") == 200)
        # Every client of this process trusts it from now on.
        os.environ["SSL_CERT_FILE"] = str(caddy.root_certificate)

    def _run_worker(
        self, name: str, arguments: tuple[str, ...], extra: Mapping[str, str]
    ) -> Process:
        words = ["refinery", "worker", "--name", name, *arguments]
        return self._start(name, words, {**self._variables("worker-1"), **extra})

    def _run(self, machine: str, service: str) -> Process:
        """Start a service on a machine."""
        command = self._compose.service(service).command
        return self._start(machine, command, self._variables(service), service)

    def _variables(self, service: str) -> dict[str, str]:
        found = self._compose.service(service).environment
        return found | self._settings

    def _start(
        self, name: str, words: list[str], variables: Mapping[str, str], log: str = ""
    ) -> Process:
        machine = self.network.machines[name]
        if name not in self._installed:
            self._installed[name] = Installed(machine.folder / "installed", self._wheel)
        installed = self._installed[name]
        environment = installed.environment(machine.folder, variables)
        return machine.start(installed.command(words), environment, name=log)

    # What has to be there

    @property
    def _prefect_url(self) -> str:
        return self._compose.service("worker-1").environment["PREFECT_API_URL"]

    @property
    def _auth(self) -> PrefectAuth:
        return PrefectAuth(self._secrets["PREFECT_API_AUTH_STRING"], self._prefect_url)

    def _can_write(self) -> bool:
        # It says that it is well before it has a place for objects.
        if _status(f"{self.store.endpoint_url}/healthz") != 200:
            return False
        bucket = self.store.open()
        try:
            bucket.makedirs(BUCKET, exist_ok=True)
            bucket.pipe_file(f"{BUCKET}/probe", b"probe")
        except OSError:
            return False
        return True

    def _is_online(self, name: str) -> bool:
        with httpx.Client(auth=self._auth, timeout=_TIMEOUT_S, trust_env=False) as session:
            return is_online(session, self._prefect_url, name) is True

    def _await(self, name: str, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_S_MAX
        while not is_ready():
            if not self.is_running(name):
                raise MachineFailed(f"{name} has ended:\n{self.said(name)}")
            if time.monotonic() > deadline:
                raise MachineFailed(f"{name} is not ready:\n{self.said(name)}")
            time.sleep(_POLL_S)


def _status(url: str, auth: httpx.Auth | None = None) -> int | None:
    try:
        return httpx.get(url, auth=auth, timeout=_TIMEOUT_S, trust_env=False).status_code
    except httpx.TransportError:
        return None


def _dask_workers() -> int | None:
    """Return how many workers the scheduler knows; None if it does not answer."""
    from distributed import Client

    try:
        with Client(f"tcp://dask:{_DASK_PORT}", timeout=_DASK_TIMEOUT_S) as client:  # type: ignore[no-untyped-call]
            return len(client.scheduler_info(n_workers=-1)["workers"])
    except OSError:
        return None
