"""Run Label Studio on the same PostgreSQL, and measure its import over HTTP."""

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import psutil
from rich.console import Console

from benchmarks.contender import Contender
from benchmarks.environments import interpreter
from benchmarks.manifest import Manifest
from benchmarks.servers import Databases, Servers
from deployments.embedded.ports import LOOPBACK, free_port

DATABASE = "label_studio"
_START_TIMEOUT_S = 240
_STOP_TIMEOUT_S = 10
_IMPORT_TIMEOUT_S = 900
_LABEL_CONFIG = (
    '<View><Image name="image" value="$data_url"/><Choices name="choice" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)


class LabelStudioFailed(Exception):
    """Label Studio did not start or import everything; the last lines of its log say why."""


@contextlib.contextmanager
def running(servers: Databases, folder: Path, console: Console) -> Iterator[httpx.Client]:
    """Run Label Studio's server with a database of its own, and yield a client that is logged in.

    Raises:
        NotInstalled: pip could not install it.
        LabelStudioFailed: it did not start.
    """
    python = interpreter("label-studio", console)
    servers.make_database(DATABASE)
    token = secrets.token_hex(20)
    port = free_port()
    log = folder / "label-studio.log"
    with log.open("w") as output, console.status("Starting Label Studio: it makes its tables"):
        process = subprocess.Popen(
            [
                *(str(python.with_name("label-studio")), "start", "--no-browser"),
                *("--internal-host", LOOPBACK, "--port", str(port)),
            ],
            env=_environment(servers, folder, token),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            client = httpx.Client(
                base_url=f"http://{LOOPBACK}:{port}",
                headers={"Authorization": f"Token {token}"},
                timeout=_IMPORT_TIMEOUT_S,
                trust_env=False,
            )
            _wait_ready(client, process, log)
        except BaseException:
            _stop(process)
            raise
    try:
        with contextlib.closing(client):
            yield client
    finally:
        _stop(process)


def make_project(client: httpx.Client) -> int:
    """Make a project of pictures of cats and dogs, and return its number."""
    project = {"title": "bench", "label_config": _LABEL_CONFIG}
    return int(client.post("/api/projects", json=project).raise_for_status().json()["id"])


def contender(
    servers: Servers, client: httpx.Client, manifest: Manifest, console: Console
) -> Contender:
    """Return a contender that imports a manifest of good lines into a new project."""
    with console.status("Reading the lines for Label Studio"):
        text = servers.store.open().cat_file(manifest.path)
    body = json.dumps([{"data": json.loads(line)} for line in text.splitlines()]).encode()

    def measure() -> dict[str, float]:
        number = make_project(client)
        begin = time.perf_counter()
        answer = client.post(
            f"/api/projects/{number}/import",
            content=body,
            headers={"Content-Type": "application/json"},
        )
        seconds = time.perf_counter() - begin
        if answer.raise_for_status().json()["task_count"] != manifest.good_lines:
            raise LabelStudioFailed(answer.text)
        return {"Label Studio: import": seconds}

    settings = (
        "Label Studio 1.23.2 on the same PostgreSQL: one POST /api/projects/{id}/import of JSON that "
        "was parsed and built before; a manifest of its own, rates compared; good lines only"
    )
    return Contender("label-studio", settings, manifest.good_lines, measure, goal=100)


def _environment(servers: Databases, folder: Path, token: str) -> dict[str, str]:
    database = urlsplit(servers.database_url)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DJANGO_DB": "default",
        "POSTGRE_NAME": DATABASE,
        "POSTGRE_USER": unquote(database.username or ""),
        "POSTGRE_PASSWORD": unquote(database.password or ""),
        "POSTGRE_HOST": str(database.hostname),
        "POSTGRE_PORT": str(database.port),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "label-studio"),
        "LABEL_STUDIO_USERNAME": "bench@example.com",
        "LABEL_STUDIO_PASSWORD": secrets.token_urlsafe(16),
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "DEBUG": "false",
        "LOG_LEVEL": "WARNING",
        # Label Studio must talk to nobody but us.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health").is_success:
                return
        time.sleep(0.5)
    raise LabelStudioFailed(log.read_text()[-2000:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
