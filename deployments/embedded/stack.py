"""Run all of Refinery on one machine: start it in the order of need, watch it, stop it together."""

import contextlib
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import NoReturn, Self
from urllib.parse import urlsplit

from blocks.settings import AnnotatorNames
from blocks.store.migrations import migrate
from deployments.embedded.environment import python_environment
from deployments.embedded.loopback_http import get_status
from deployments.embedded.object_stores import ObjectStoreAddress, SeaweedFS
from deployments.embedded.ports import LOOPBACK, Ports
from deployments.embedded.postgres import PREFECT_DATABASE, Postgres
from deployments.embedded.prefect_servers import PrefectServer
from deployments.embedded.private_files import FOLDER_MODE, load_or_make_secret, private_folder
from deployments.embedded.processes import Program
from deployments.embedded.state import DataDirectoryLock, State
from deployments.embedded.supervised import Condition, Supervised
from deployments.embedded.supervisor import Supervisor
from deployments.embedded.teller import Teller
from deployments.registered import REPOSITORY

# Others may pass through root's data directory, but not list it: PostgreSQL runs as another user.
ROOT_FOLDER_MODE = 0o711
KEY_BYTES = 32
API_START_TIMEOUT_S = 120.0
API_REQUESTS_FINISH_S = 5
API_STOP_TIMEOUT_S = 10.0
HTTP_OK = 200

OnStep = Callable[[str], None]


def default_data_dir() -> Path:
    """Return where everything is kept.

    That is `REFINERY_DATA_DIR`; without it `/var/lib/refinery` for root, else below `XDG_DATA_HOME`.
    """
    if given := os.environ.get("REFINERY_DATA_DIR"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/refinery")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "refinery"


def _silent(_: str) -> None:
    pass


class Stack:
    """Run PostgreSQL, Prefect, its worker, the API and, if asked for, an S3 store.

    `environment` is for the API and the worker. Without `durable` a power cut may lose everything: that
    is for tests. The attributes have their values once `start` has returned. As a context manager it
    starts nothing, and stops everything.
    """

    prefect_ui_url: str
    prefect_sign_in_url: str
    prefect_api_url: str
    prefect_auth_string: str
    api_url: str
    database_url: str
    encryption_key: str
    object_store: ObjectStoreAddress | None = None

    def __init__(
        self,
        data_dir: Path,
        *,
        object_store: bool = False,
        environment: Mapping[str, str] = MappingProxyType({}),
        durable: bool = True,
        first_api_port: int | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._wants_object_store = object_store
        self._extra = dict(environment)
        self._durable = durable
        self._first_api_port = first_api_port
        self._lock = DataDirectoryLock(self.data_dir)
        self._state = State(self.data_dir)
        self._ports = Ports(self.data_dir / "ports.json")
        self._teller = Teller()
        self._supervisor = Supervisor(self.log_folder, self._write_state, self._teller.say)
        self._rest: list[Supervised] = []

    @property
    def openapi_url(self) -> str:
        return f"{self.api_url}/schema"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of the API and the flows: URLs, keys, and those that the caller gave."""
        return {
            **self._extra,
            **self._egress(),
            "REFINERY_DATABASE_URL": self.database_url,
            "ASG_ENCRYPTION_KEY": self.encryption_key,
            **self.prefect_environment,
            **self._names(),
            "REFINERY_PUBLIC_URL": self._extra.get("REFINERY_PUBLIC_URL", self.api_url),
        }

    def _names(self) -> dict[str, str]:
        """Show customers all annotators' names: on one machine they work for the same people."""
        name = "REFINERY_ANNOTATOR_NAMES"
        return {name: self._extra.get(name, os.environ.get(name, AnnotatorNames.ALL))}

    def _egress(self) -> dict[str, str]:
        """Let customers' clients connect to the store, and to no other server of this machine."""
        if self.object_store is None:
            return {}
        name = "REFINERY_EGRESS_ALLOW"
        given = self._extra.get(name, os.environ.get(name, ""))
        port = urlsplit(self.object_store.endpoint_url).port
        return {name: ",".join(filter(None, [given, f"{LOOPBACK}:{port}"]))}

    @property
    def prefect_environment(self) -> dict[str, str]:
        """Return the variables that every client of Prefect's server needs."""
        return {
            "PREFECT_API_URL": self.prefect_api_url,
            "PREFECT_API_AUTH_STRING": self.prefect_auth_string,
        }

    @property
    def log_folder(self) -> Path:
        return self.data_dir / "logs"

    def start(self, on_step: OnStep = _silent) -> None:
        """Start everything, and return when all of it is ready; on an error, stop all of it.

        Raises:
            AlreadyRunning: another process has started from this data directory.
            ServerFailed: a server ended or was not ready in time.
            FolderUnreachable: PostgreSQL's user cannot reach the data directory.
        """
        self.start_api(on_step)
        with self.stops_on_error():
            for supervised in self._rest:
                supervised.wait_first_try()
        self._teller.flush()

    def start_api(self, on_step: OnStep = _silent) -> None:
        """Start everything, and return when the API answers; raises as `start` does.

        The rest gets ready meanwhile and afterwards, however many tries that takes. From now on a
        process that dies is started again, and `on_step` is told of it, from any thread.
        """
        _make_data_dir(self.data_dir)
        self._lock.acquire()
        self._teller.start(on_step)
        with self.stops_on_error():
            self._start()
        self._teller.flush()

    def wait_complete(self) -> None:
        """Return when the rest is ready as well."""
        with self.stops_on_error():
            for supervised in self._rest:
                supervised.wait_ready()
        self._teller.flush()

    def wait(self) -> None:
        """Return on SIGINT or SIGTERM."""
        with _signals_interrupt(), contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()

    @contextlib.contextmanager
    def stops_on_error(self) -> Iterator[None]:
        """Stop everything if the block fails, or if a signal ends it."""
        try:
            with _signals_interrupt():
                yield
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything; a second call does nothing."""
        if not self._lock.is_held:
            return
        self._supervisor.stop()
        self._teller.flush()
        self._rest.clear()
        self._ports.release()
        self._state.clear()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        if leftovers := self._state.stop_leftovers():
            self._teller.say(f"stopped what an earlier run left: {', '.join(leftovers)}")
        # Half-done files of a killed worker are of no use to anybody.
        shutil.rmtree(self.data_dir / "tmp", ignore_errors=True)
        private_folder(self.log_folder)
        postgres, prefect = self._configure()
        self._supervisor.start()
        keep = self._supervisor.keep

        is_new = postgres.is_new
        database = keep(postgres.program())
        # The server imports for seconds before it needs its database, for which it waits.
        server = keep(prefect.program())
        if self._wants_object_store:
            self._rest.append(keep(self._seaweedfs().program()))
        database.wait_first_try()
        postgres.create_databases()
        migrate(self.database_url)
        keep(self._api_program(postgres)).wait_first_try()

        # Registration and worker wait for Prefect by themselves, once they have imported their modules.
        registered = None if is_new else Condition(server, prefect.has_registration)
        registration = self._supervisor.finish(prefect.deploy_program(), registered)
        worker = keep(prefect.worker_program(self.environment))
        self._rest += [server, worker, registration]

    def _configure(self) -> tuple[Postgres, PrefectServer]:
        postgres = Postgres(self.data_dir, self._ports.port("postgres"), durable=self._durable)
        prefect = PrefectServer(
            self.data_dir,
            self._ports.port("prefect"),
            postgres.url(PREFECT_DATABASE, scheme="postgresql+asyncpg"),
        )
        self.database_url = postgres.url()
        self.prefect_ui_url, self.prefect_api_url = prefect.ui_url, prefect.api_url
        self.prefect_sign_in_url = prefect.sign_in_url
        self.prefect_auth_string = prefect.auth_string
        self.api_url = f"http://{LOOPBACK}:{self._ports.port('api', first=self._first_api_port)}"
        self.encryption_key = self._find_encryption_key()
        return postgres, prefect

    def _seaweedfs(self) -> SeaweedFS:
        seaweedfs = SeaweedFS(self.data_dir, self._ports)
        self.object_store = seaweedfs.address
        return seaweedfs

    def _find_encryption_key(self) -> str:
        given = self._extra.get("ASG_ENCRYPTION_KEY") or os.environ.get("ASG_ENCRYPTION_KEY")
        return given or load_or_make_secret(
            self.data_dir / "encryption.key", lambda: secrets.token_hex(KEY_BYTES)
        )

    def _api_program(self, postgres: Postgres) -> Program:
        def is_live() -> bool:
            return get_status(f"{self.api_url}/health/live") == HTTP_OK

        address = ["--host", LOOPBACK, "--port", str(self._ports.port("api"))]
        # Requests that stream must not hold up the stop.
        limits = ["--no-access-log", "--timeout-graceful-shutdown", str(API_REQUESTS_FINISH_S)]
        return Program(
            name="API",
            arguments=[sys.executable, "-m", "api", *address, *limits],
            # No balancer is before it, and it has seconds to end.
            environment=python_environment(self.environment | {"REFINERY_DRAIN_S": "0"}),
            folder=REPOSITORY,
            # Prefect is not asked: without it jobs are still accepted and labelled.
            is_ready=lambda: is_live() and postgres.has_database(),
            is_alive=is_live,
            port=self._ports.port("api"),
            start_timeout_s=API_START_TIMEOUT_S,
            stop_timeout_s=API_STOP_TIMEOUT_S,
        )

    def _write_state(self) -> None:
        urls = {
            "api": self.api_url,
            "openapi": self.openapi_url,
            "prefect_api": self.prefect_api_url,
            "prefect_ui": self.prefect_ui_url,
        }
        if self.object_store:
            urls["object_store"] = self.object_store.endpoint_url
        self._state.write(urls, self._supervisor.children)


def _make_data_dir(folder: Path) -> None:
    """Make the folder and its missing parents; folders that are there keep their modes."""
    mode = ROOT_FOLDER_MODE if os.geteuid() == 0 else FOLDER_MODE
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        # The mode is set again because the umask may have taken bits away.
        path.chmod(mode)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Have SIGTERM and a closed terminal end the block as Ctrl-C does, so that it can clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    # SIGINT is set too: a shell's background jobs start with it ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
