"""Run the Prefect server on our PostgreSQL, the registration with it, and the worker."""

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import certifi
import httpx

from blocks.prefect.auth import PrefectAuth
from deployments import registered
from deployments.embedded.environment import plain_environment, python_environment, without_proxy
from deployments.embedded.loopback_http import client, get_status
from deployments.embedded.ports import LOOPBACK
from deployments.embedded.prefect_hosts import HOSTS, SIGN_IN_PATH
from deployments.embedded.private_files import load_or_make_secret, private_folder, write_private
from deployments.embedded.processes import Program
from deployments.names import WORK_POOL
from deployments.registered import REPOSITORY
from deployments.worker_health import is_online

WORKER = "embedded"

SERVER_START_TIMEOUT_S = 120.0
# Asked to stop, it waits for its clients' websockets, and there is always one.
SERVER_STOP_TIMEOUT_S = 5.0
# The registration waits for Prefect, and on a busy machine it takes a minute itself.
DEPLOY_TIMEOUT_S = 300.0
WORKER_START_TIMEOUT_S = 120.0
WORKER_STOP_TIMEOUT_S = 10.0
# A worker that has missed three heartbeats is offline to Prefect. After another minute we kill it.
WORKER_HEARTBEAT_S = 10

HTTP_OK = 200

_APP = "deployments.embedded.prefect_app:create"
_SERVED = ["--factory", _APP, "--host", LOOPBACK, "--log-level", "warning"]

NO_TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

# The server writes 16 to 25 task runs a second one by one, and about 84 a second in batches.
BATCHES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    # A new listener, such as `--watch`, is told of events that are written already. With Prefect's 5 s
    # it may miss the end of a short run, and wait for ever.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
}

# Prefect would keep runs for ever. Most events are of task runs, whose states it keeps as well.
HISTORY_S = 30 * 24 * 3600
_SHORT_LIVED_S = 24 * 3600
_SHORT_LIVED_EVENTS = (
    *(f"prefect.task-run.{state}" for state in ("Pending", "Running", "Completed", "Retrying")),
    *(f"prefect.task-run.{state}" for state in ("AwaitingRetry", "Failed", "Crashed")),
    "prefect.flow-run.heartbeat",
    "prefect.artifact.created",
    "prefect.artifact-collection.created",
    "prefect.artifact-collection.updated",
)
HISTORY = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": json.dumps(
        dict.fromkeys(_SHORT_LIVED_EVENTS, _SHORT_LIVED_S)
    ),
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(HISTORY_S),
}

# A deployment with one run at a time holds its place by a lease. With leases in memory, Prefect's
# default, a restart of the server forgets the lease and not the place: every later slot would be
# cancelled.
LEASES = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"
}


class PrefectServer:
    """Run the API, the UI and the background services of Prefect in one process."""

    def __init__(self, data_dir: Path, port: int, database_url: str) -> None:
        """`database_url` names SQLAlchemy's driver: `postgresql+asyncpg://…`."""
        self.ui_url = f"http://{LOOPBACK}:{port}"
        self.api_url = f"{self.ui_url}/api"
        self._port = port
        self._database_url = database_url
        self._home = private_folder(data_dir / "prefect")
        # The worker keeps its files in a folder of a well-known name, which may be another user's in the
        # machine's own temporary folder.
        self._temporary = private_folder(data_dir / "tmp")
        # Each of Prefect's clients reads all certificate authorities: 30 ms, a dozen times a run. Our
        # server speaks http and needs none, so they get a file with one.
        self._authorities = data_dir / "prefect-api.pem"
        write_private(self._authorities, _first_certificate())
        # Without a key of ours, Prefect keeps the key to its block documents in the same database.
        self._encryption_key = load_or_make_secret(data_dir / "prefect-encryption.key", _fernet_key)
        # A client of Prefect's API can run any program as the worker, whose environment has the key to
        # customers' credentials. Other users of this machine reach the port, so it asks for a password.
        self.auth_string = load_or_make_secret(data_dir / "prefect-auth", _auth_string)
        self.sign_in_url = f"{self.ui_url}{SIGN_IN_PATH}#{self.auth_string}"
        self._auth = PrefectAuth(self.auth_string, self.api_url)

    def program(self) -> Program:
        """Return the server."""
        return Program(
            name="Prefect server",
            arguments=[sys.executable, "-m", "uvicorn", *_SERVED, "--port", str(self._port)],
            environment=self._environment(),
            folder=self._home,
            is_ready=self._is_ready,
            is_alive=self._is_alive,
            port=self._port,
            start_timeout_s=SERVER_START_TIMEOUT_S,
            stop_timeout_s=SERVER_STOP_TIMEOUT_S,
            stop_stage=1,
        )

    def _is_ready(self) -> bool:
        # This path asks the database too; /api/health does not.
        return get_status(f"{self.api_url}/ready") == HTTP_OK

    def _is_alive(self) -> bool:
        return get_status(f"{self.api_url}/health") == HTTP_OK

    def _environment(self) -> dict[str, str]:
        plain = plain_environment()
        return {
            **plain,
            **without_proxy(plain),
            **NO_TELEMETRY,
            **BATCHES,
            **HISTORY,
            **LEASES,
            "PYTHONUNBUFFERED": "1",
            "PREFECT_HOME": str(self._home),
            # With `--port` alone, the UI would ask port 4200.
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(self._port),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self._database_url,
            "PREFECT_SERVER_ENCRYPTION_KEY": self._encryption_key,
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_API_AUTH_STRING": self.auth_string,
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(
                f"http://{host}:{self._port}" for host in HOSTS
            ),
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        }

    def client_environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a program that talks to this server."""
        ours = {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self._home),
            "TMPDIR": str(self._temporary),
            "PREFECT_API_SSL_CERT_FILE": str(self._authorities),
            "PREFECT_API_AUTH_STRING": self.auth_string,
            # The check costs each run a request, and the server has our version.
            "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        }
        return python_environment({**NO_TELEMETRY, **ours, **extra})

    def deploy_program(self) -> Program:
        """Return the program that registers everything with Prefect, and ends by itself."""
        return Program(
            name="Registration",
            arguments=[sys.executable, "-m", "deployments", "deploy"],
            environment=self.client_environment({}),
            folder=REPOSITORY,
            start_timeout_s=DEPLOY_TIMEOUT_S,
        )

    def worker_program(self, extra: Mapping[str, str]) -> Program:
        """Return our worker; its flow runs inherit `extra`."""
        ours = {"PREFECT_WORKER_HEARTBEAT_SECONDS": str(WORKER_HEARTBEAT_S)}
        return Program(
            name="Prefect worker",
            arguments=[sys.executable, "-m", "deployments", "worker", "--name", WORKER],
            environment=self.client_environment({**ours, **extra}),
            folder=self._home,
            prepare=self._forget_worker,
            is_ready=lambda: self._worker_is_online() is True,
            # A worker whose Prefect is away waits for it, and is left alone.
            is_alive=lambda: self._worker_is_online() is not False,
            start_timeout_s=WORKER_START_TIMEOUT_S,
            stop_timeout_s=WORKER_STOP_TIMEOUT_S,
        )

    def _forget_worker(self) -> None:
        """Delete the worker in Prefect: a killed one would count as online for another 90 s."""
        try:
            with client(self._auth) as session:
                session.delete(f"{self.api_url}/work_pools/{WORK_POOL}/workers/{WORKER}")
        except httpx.TransportError:
            # The server is away, so the worker cannot come online either before it is back.
            return

    def _worker_is_online(self) -> bool | None:
        """Return whether the worker has sent a heartbeat lately; None if Prefect does not answer."""
        with client(self._auth) as session:
            return is_online(session, self.api_url, WORKER)

    def has_registration(self) -> bool:
        """Return whether everything is registered as it is now.

        Raises:
            httpx.HTTPError: Prefect cannot be asked.
        """
        with client(self._auth) as session:
            session.base_url = httpx.URL(f"{self.api_url}/")
            return registered.is_registered(session, WORK_POOL)


def _first_certificate() -> str:
    bundle = certifi.contents()
    end = "-----END CERTIFICATE-----\n"
    return bundle[bundle.index("-----BEGIN") : bundle.index(end) + len(end)]


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _auth_string() -> str:
    return f"refinery:{secrets.token_urlsafe(32)}"
