"""Run PostgreSQL 18 from a wheel: never as root, with a password only, on the loopback only."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from deployments.embedded.environment import plain_environment
from deployments.embedded.ports import LOOPBACK
from deployments.embedded.postgres_programs import (
    find_closed_parent,
    reachable_installation,
    unprivileged_user,
)
from deployments.embedded.private_files import FILE_MODE, FOLDER_MODE, load_or_make_secret
from deployments.embedded.processes import Program
from deployments.embedded.wait_for_exit import kill_and_wait, wait_ended
from deployments.errors import FolderUnreachable, StackError

SUPERUSER = "refinery"
DATABASE = "refinery"
PREFECT_DATABASE = "prefect"

CONNECT_TIMEOUT_S = 2
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
ORPHAN_STOP_TIMEOUT_S = 15.0
ORPHAN_KILL_TIMEOUT_S = 5.0
TOOL_TIMEOUT_S = 120.0

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # No socket file: TCP is the only way in, and it asks for the password.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    # For the API, Prefect's pool, every chunk in flight, and some operators' sessions.
    "max_connections": "200",
    # The working set of chunks and open tasks stays in memory; more helps little on a small machine.
    "shared_buffers": "256MB",
    # The table of tasks is indexed and vacuumed in one pass.
    "maintenance_work_mem": "128MB",
    # A manifest is written in bursts; checkpoints every few seconds would write each page twice.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # Page images after a checkpoint compress well and are most of the WAL of a bulk load.
    "wal_compression": "on",
    # SSDs read random pages at nearly the cost of sequential ones; the default of 4 is for disks.
    "random_page_cost": "1.1",
    # Our statements take milliseconds; compiling them takes tens.
    "jit": "off",
    # DETAIL lines are left out: they quote rows and keys, and logs must not hold customers' data.
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# For tests only: a power cut may lose or damage everything.
SETTINGS_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

HBA = f"""\
# Nobody gets in without the password, and nobody from another machine; `replication` is for backups.
host all all {LOOPBACK}/32 scram-sha-256
host replication all {LOOPBACK}/32 scram-sha-256
"""


class Postgres:
    """Run one PostgreSQL server with its databases below `<data_dir>/postgres`."""

    def __init__(self, data_dir: Path, port: int, *, durable: bool = True) -> None:
        self.port = port
        self._data_dir = data_dir
        self._durable = durable
        self._folder = data_dir / "postgres"
        self._cluster = self._folder / "data"
        self._user = unprivileged_user()
        self._password = load_or_make_secret(
            data_dir / "postgres.password", lambda: secrets.token_urlsafe(32)
        )
        self._installation = Path()

    def url(self, database: str = DATABASE, scheme: str = "postgresql") -> str:
        """Return where to connect, with the password: not for logs."""
        password = quote(self._password, safe="")
        return f"{scheme}://{SUPERUSER}:{password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def is_new(self) -> bool:
        """Return whether there is no cluster yet."""
        return not self._cluster.exists()

    def program(self) -> Program:
        """Return the server; its preparation makes the cluster if there is none."""
        self._make_folder()
        self._installation = reachable_installation(self._data_dir, self._user)
        return Program(
            name="PostgreSQL",
            arguments=[str(self._tool("postgres")), "-D", str(self._cluster)],
            environment=plain_environment(),
            folder=self._folder,
            is_ready=self._answers,
            is_alive=self._is_alive,
            prepare=self._prepare,
            user=self._user,
            # A "fast" stop rolls open transactions back; SIGTERM would wait for clients to leave.
            stop_signal=signal.SIGINT,
            start_timeout_s=START_TIMEOUT_S,
            stop_timeout_s=STOP_TIMEOUT_S,
            stop_stage=2,
        )

    def create_databases(self) -> None:
        """Make the databases that are missing."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
            present = {name for (name,) in rows}
            for name in (DATABASE, PREFECT_DATABASE):
                if name not in present:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _answers(self, database: str = "postgres") -> bool:
        try:
            psycopg.connect(self.url(database), connect_timeout=CONNECT_TIMEOUT_S).close()
        except psycopg.OperationalError:
            return False
        return True

    def has_database(self) -> bool:
        """Return whether our own database can be used now."""
        return self._answers(DATABASE)

    def _is_alive(self) -> bool:
        """Return whether the server takes connections, has none left, or is recovering.

        Killed in the middle of a long recovery, it would begin again, for ever. But a postmaster (18.6)
        whose recovery fails on a full disk sometimes stays, and rejects everybody for ever.
        """
        said = _ping(self.url("postgres"))
        return said == Ping.OK or (said == Ping.REJECT and self._is_recovering())

    def _is_recovering(self) -> bool:
        return any(
            "postgres: startup" in " ".join(each.info["cmdline"] or ())
            for each in self._processes()
        )

    def _prepare(self) -> None:
        self._stop_orphans()
        if not self._cluster.exists():
            self._initialise()
        settings = SETTINGS | {"port": str(self.port)}
        if not self._durable:
            settings |= SETTINGS_NOT_DURABLE
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        self._write("postgresql.conf", "# Written at every start.\n" + "".join(lines))
        self._write("pg_hba.conf", HBA)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        if self._user is not None:
            os.chown(self._folder, self._user.uid, self._user.gid)
            if parent := find_closed_parent(self._folder, self._user):
                raise FolderUnreachable(self._folder, parent, self._user.name)

    def _initialise(self) -> None:
        """Make the cluster under another name first, so that half of one is never taken for a whole."""
        unfinished = self._folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self._folder / "initial-password"
        self._write(password_file.name, self._password, folder=self._folder)
        try:
            self._run(
                *("initdb", "-D", str(unfinished), f"--pwfile={password_file}"),
                *("--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8"),
                # PostgreSQL's own collation: the same order on every machine, whatever its libc.
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                *(() if self._durable else ("--no-sync",)),
            )
        finally:
            password_file.unlink()
        unfinished.rename(self._cluster)

    def _write(self, name: str, text: str, folder: Path | None = None) -> None:
        """Write a file that PostgreSQL's user owns, with mode 600.

        A file that has this text already is left alone: on a full disk there is no room for another.
        """
        path = (folder or self._cluster) / name
        if path.is_file() and path.read_text("utf-8") == text:
            return
        new = path.with_name(f".{name}.new")
        new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(new, flags, FILE_MODE), "w") as file:
            if self._user is not None:
                os.fchown(file.fileno(), self._user.uid, self._user.gid)
            file.write(text)
        new.replace(path)

    def _stop_orphans(self) -> None:
        """Stop processes that a killed supervisor or postmaster left running on this cluster.

        PostgreSQL's processes are known by their working folder, the cluster's: the pid in
        `postmaster.pid` alone may be another process's by now.
        """
        orphans = list(self._processes())
        if not orphans:
            # Remove the lock file of a dead postmaster: its pid may be another process's by now.
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)
            return
        postmaster = self._postmaster_pid()
        if any(orphan.pid == postmaster for orphan in orphans):
            wait = ("-w", "-t", f"{ORPHAN_STOP_TIMEOUT_S:.0f}")
            self._run("pg_ctl", "stop", "-D", str(self._cluster), "-m", "fast", *wait, check=False)
            orphans = wait_ended(orphans, ORPHAN_KILL_TIMEOUT_S)
        # Without a postmaster nobody ends its backends, and a busy one does not notice. A new postmaster
        # refuses to start while they are there; work that they have not committed is lost anyway.
        kill_and_wait(orphans, ORPHAN_KILL_TIMEOUT_S)

    def _postmaster_pid(self) -> int | None:
        try:
            return int((self._cluster / "postmaster.pid").read_text("utf-8").split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None

    def _processes(self) -> Iterator[psutil.Process]:
        cluster = str(self._cluster.resolve())
        # All is read in one go, since a process may end at any time: each of our questions starts one.
        for process in psutil.process_iter(["name", "cwd", "cmdline"]):
            if process.info["cwd"] == cluster and process.info["name"].startswith("postgres"):
                yield process

    def _tool(self, name: str) -> Path:
        return self._installation / "bin" / name

    def _run(self, tool: str, *arguments: str, check: bool = True) -> None:
        user = self._user
        finished = subprocess.run(
            [str(self._tool(tool)), *arguments],
            env=plain_environment(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        if check and finished.returncode != 0:
            raise StackError(f"{tool} failed:\n{finished.stdout.strip()}")


def _ping(url: str) -> Ping:
    conninfo = make_conninfo(url, connect_timeout=CONNECT_TIMEOUT_S)
    return Ping(PGconn.ping(conninfo.encode()))
