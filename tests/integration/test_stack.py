"""The embedded servers as real processes: they refuse strangers, and nothing outlives them."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import s3fs

from deployments.embedded.guard import Guard
from deployments.embedded.object_stores import FakeGCS, SeaweedFS
from deployments.embedded.ports import LOOPBACK, Ports, free_port, is_free
from deployments.embedded.postgres import Postgres
from deployments.embedded.postgres_programs import (
    find_closed_parent,
    unprivileged_user,
    wheel_folder,
)
from deployments.embedded.processes import ChildProcess, Program
from deployments.embedded.stack import Stack, default_data_dir
from deployments.embedded.state import State
from deployments.embedded.wait_for_exit import wait_ended
from deployments.errors import AlreadyRunning, FolderUnreachable, ServerFailed
from deployments.registered import REPOSITORY
from tests.support.child_programs import as_root, make_folder, parent_of_another, python_program

GONE_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def shared_dir() -> Iterator[Path]:
    folder = make_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    guard = Guard()
    guard.start()
    yield guard
    guard.stop()


@pytest.fixture(scope="module")
def database(shared_dir: Path, guard: Guard) -> Iterator[tuple[Postgres, ChildProcess]]:
    server = Postgres(shared_dir, free_port(), durable=False)
    child = ChildProcess(server.program(), shared_dir / "logs", guard)
    child.start()
    server.create_databases()
    yield server, child
    child.stop()


@pytest.fixture(scope="module")
def store(shared_dir: Path, guard: Guard) -> Iterator[tuple[SeaweedFS, ChildProcess]]:
    server = SeaweedFS(shared_dir, Ports(shared_dir / "ports.json"))
    child = ChildProcess(server.program(), shared_dir / "logs", guard)
    child.start()
    yield server, child
    child.stop()


# PostgreSQL


def test_postgresql_has_both_databases(database: tuple[Postgres, ChildProcess]) -> None:
    server, _ = database
    for name in ("refinery", "prefect"):
        with psycopg.connect(server.url(name)) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (name,)


def test_postgresql_has_the_extension_that_prefect_needs(
    database: tuple[Postgres, ChildProcess],
) -> None:
    server, _ = database
    with psycopg.connect(server.url("prefect"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")


def test_postgresql_refuses_a_wrong_password(database: tuple[Postgres, ChildProcess]) -> None:
    server, _ = database
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url(), password="wrong")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(server.url(), password="", passfile="/dev/null")


def test_postgresql_does_not_run_as_root(database: tuple[Postgres, ChildProcess]) -> None:
    postmaster = psutil.Process(database[1].pid)
    seen = 0
    for process in [postmaster, *postmaster.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # one of its workers has ended
            uids = process.uids()
            assert 0 not in {uids.real, uids.effective, uids.saved}
            seen += 1
    assert seen > 1


def test_postgresql_listens_on_loopback_only(database: tuple[Postgres, ChildProcess]) -> None:
    sockets = psutil.Process(database[1].pid).net_connections("all")
    listening = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN]
    assert listening == [(LOOPBACK, database[0].port)]


def test_postgresql_keeps_rows_over_a_kill_of_its_postmaster(data_dir: Path, guard: Guard) -> None:
    server = Postgres(data_dir, free_port())
    child = ChildProcess(server.program(), data_dir / "logs", guard)
    child.start()
    try:
        with closing(psycopg.connect(server.url("postgres"), autocommit=True)) as busy:
            busy.execute("CREATE TABLE kept AS SELECT 1 AS n")
            # A backend that computes does not notice the death of its postmaster by itself.
            busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 10000000000)")
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait_exit(GONE_TIMEOUT_S)
            child.start()
        with psycopg.connect(server.url("postgres")) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
    finally:
        child.stop()


def test_an_orphaned_postgresql_is_stopped_before_ours_starts(data_dir: Path, guard: Guard) -> None:
    server = Postgres(data_dir, free_port(), durable=False)
    orphan = ChildProcess(server.program(), data_dir / "logs", guard)
    orphan.start()
    ours = ChildProcess(server.program(), data_dir / "logs", guard)
    ours.start()
    try:
        assert not orphan.is_running
        assert ours.is_running
    finally:
        ours.stop()
        orphan.stop()


def test_a_lock_file_with_the_number_of_another_process_is_no_obstacle(
    data_dir: Path, guard: Guard
) -> None:
    server = Postgres(data_dir, free_port(), durable=False)
    child = ChildProcess(server.program(), data_dir / "logs", guard)
    child.start()
    lock = data_dir / "postgres" / "data" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    child.stop()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    child.start()
    child.stop()


@as_root
def test_a_data_directory_that_postgresql_cannot_reach_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "data").mkdir(mode=0o711)
    with pytest.raises(FolderUnreachable, match=r"chmod o\+x") as caught:
        Postgres(closed / "data", free_port()).program()
    user = unprivileged_user()
    assert user is not None
    assert caught.value.parent == find_closed_parent(closed / "data", user)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_programs_that_postgresql_cannot_reach_are_copied(
    data_dir: Path, tmp_path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_folder()
    tmp_path.chmod(0o700)
    for folder in (wheel, wheel.with_suffix(".libs"), *wheel.parent.glob(f"{wheel.name}-*")):
        shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.syspath_prepend(tmp_path)
    server = Postgres(data_dir, free_port(), durable=False)
    program = server.program()
    assert Path(program.arguments[0]).is_relative_to(data_dir)
    child = ChildProcess(program, data_dir / "logs", guard)
    child.start()
    child.stop()


# Object stores


def s3(store: SeaweedFS, secret: str | None = None) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key=store.address.access_key_id,
        secret=secret or store.address.secret_access_key,
        endpoint_url=store.address.endpoint_url,
        skip_instance_cache=True,
    )


def test_seaweedfs_stores_what_a_signed_request_brings(
    store: tuple[SeaweedFS, ChildProcess],
) -> None:
    files = s3(store[0])
    files.call_s3("create_bucket", Bucket="greetings")
    files.pipe_file("greetings/hello", b"hello")
    assert files.cat_file("greetings/hello") == b"hello"


def test_seaweedfs_refuses_a_wrong_secret(store: tuple[SeaweedFS, ChildProcess]) -> None:
    with pytest.raises(PermissionError):
        s3(store[0], secret="wrong").call_s3("list_buckets")
    assert httpx.get(store[0].address.endpoint_url).status_code == httpx.codes.FORBIDDEN


def test_seaweedfs_listens_on_loopback_only(store: tuple[SeaweedFS, ChildProcess]) -> None:
    sockets = psutil.Process(store[1].pid).net_connections("inet")
    assert {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN} == {LOOPBACK}


def test_a_resumable_upload_stays_with_the_gcs_emulator(data_dir: Path, guard: Guard) -> None:
    server = FakeGCS(data_dir, free_port())
    child = ChildProcess(server.program(), data_dir / "logs", guard)
    child.start()
    try:
        bucket = f"{server.endpoint_url}/storage/v1/b"
        upload = f"{server.endpoint_url}/upload/storage/v1/b/parts/o"
        with httpx.Client(trust_env=False) as client:
            client.post(bucket, json={"name": "parts"}).raise_for_status()
            begun = client.post(upload, params={"uploadType": "resumable", "name": "part"}, json={})
            assert begun.headers["location"].startswith(server.endpoint_url)
            client.put(begun.headers["location"], content=b"part").raise_for_status()
            read = client.get(f"{bucket}/parts/o/part", params={"alt": "media"})
        assert read.content == b"part"
    finally:
        child.stop()


# Secrets


def test_no_secret_is_in_any_arguments_or_log(
    shared_dir: Path,
    database: tuple[Postgres, ChildProcess],
    store: tuple[SeaweedFS, ChildProcess],
) -> None:
    secrets = [
        (shared_dir / name).read_text().strip()
        for name in ("postgres.password", "object-store.secret-access-key")
    ]
    processes = [psutil.Process(child.pid) for child in (database[1], store[1])]
    processes += [child for parent in processes for child in parent.children(recursive=True)]
    arguments = [" ".join(process.cmdline()) for process in processes]
    logs = [path.read_text(errors="replace") for path in (shared_dir / "logs").iterdir()]
    assert len(logs) >= 2
    assert not [text for text in arguments + logs if any(secret in text for secret in secrets)]


def test_files_are_for_their_owner_only(
    shared_dir: Path,
    database: tuple[Postgres, ChildProcess],
    store: tuple[SeaweedFS, ChildProcess],
) -> None:
    for path in shared_dir.iterdir():
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


# Processes


def test_a_server_that_ends_is_reported_at_once_with_its_last_words(
    data_dir: Path, guard: Guard
) -> None:
    program = python_program(data_dir, "print('no such thing'); raise SystemExit(3)")
    child = ChildProcess(program, data_dir / "logs", guard)
    with pytest.raises(ServerFailed, match=r"exit code 3 before it was ready(?s:.*)no such thing"):
        child.start()


def test_a_server_that_is_not_ready_in_time_is_ended(data_dir: Path, guard: Guard) -> None:
    program = python_program(data_dir, "input_ = open('/dev/zero')\nwhile True: input_.read(1)")
    child = ChildProcess(_replace(program, start_timeout_s=0.2), data_dir / "logs", guard)
    with pytest.raises(ServerFailed, match="was not ready within"):
        child.start()
    assert not child.is_running


def test_a_server_that_ignores_sigterm_is_killed(data_dir: Path, guard: Guard) -> None:
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('deaf', 'w').close()\n"
        "while True: signal.pause()"
    )
    program = python_program(
        data_dir, code, is_ready=(data_dir / "deaf").exists, stop_timeout_s=0.2
    )
    child = ChildProcess(program, data_dir / "logs", guard)
    child.start()
    child.stop()
    assert child.exit_code == -signal.SIGKILL


def test_what_a_server_started_ends_with_it(data_dir: Path, guard: Guard) -> None:
    child = ChildProcess(parent_of_another(data_dir), data_dir / "logs", guard)
    child.start()
    grandchildren = psutil.Process(child.pid).children()
    child.stop()
    assert grandchildren
    assert not wait_ended(grandchildren, GONE_TIMEOUT_S)


# The supervisor's own life

SUPERVISOR = """
import json, signal, sys
from pathlib import Path
from deployments.embedded.ports import Ports
from deployments.embedded.postgres import Postgres
from deployments.embedded.object_stores import SeaweedFS
from deployments.embedded.state import DataDirectoryLock, State
from deployments.embedded.supervisor import Supervisor
from tests.support.child_programs import parent_of_another

data_dir = Path(sys.argv[1])
lock, state, ports = DataDirectoryLock(data_dir), State(data_dir), Ports(data_dir / "ports.json")
lock.acquire()
urls = {"api": "http://127.0.0.1:1"}
supervisor = Supervisor(data_dir / "logs", lambda: state.write(urls, supervisor.children), id)
supervisor.start()
programs = [parent_of_another(data_dir)]
if "servers" in sys.argv:
    postgres = Postgres(data_dir, ports.port("postgres"), durable=False)
    programs += [postgres.program(), SeaweedFS(data_dir, ports).program()]
for each in [supervisor.keep(program) for program in programs]:
    each.wait_first_try()
print(json.dumps([ports.port("postgres"), ports.port("seaweedfs.s3.port")]), flush=True)
signal.sigwait({signal.SIGTERM})
supervisor.stop()
"""


def _replace(program: Program, **changes: object) -> Program:
    return Program(**(vars(program) | changes))


class Started:
    """A supervisor in its own process, with a worker's stand-in and maybe two real servers."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, str(data_dir), *options],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        assert self.process.stdout is not None
        self.ports: list[int] = json.loads(self.process.stdout.readline())
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(READ_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_a_second_start_is_refused_and_a_killed_supervisor_leaves_nothing(data_dir: Path) -> None:
    started = Started(data_dir, "servers")
    names = {child.name() for child in started.children}
    assert {"postgres", "weed"} <= names

    with pytest.raises(AlreadyRunning) as refused:
        Stack(data_dir).start()
    assert refused.value.pid == started.process.pid
    assert refused.value.urls == {"api": "http://127.0.0.1:1"}

    started.end(signal.SIGKILL)
    assert not wait_ended(started.children, GONE_TIMEOUT_S)
    assert not [port for port in started.ports if not is_free(port)]

    # Its state is stale now: nothing in it runs any more, and the lock is free.
    assert State(data_dir).read()["pid"] == started.process.pid
    again = Started(data_dir, "servers")
    assert again.ports == started.ports

    again.end(signal.SIGTERM)
    assert again.process.returncode == 0
    assert not wait_ended(again.children, 0)
    assert not [port for port in again.ports if not is_free(port)]


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_servers_die_with_their_supervisor_even_without_the_guard(data_dir: Path) -> None:
    started = Started(data_dir)
    guards = [child for child in started.children if "guard_child.py" in " ".join(child.cmdline())]
    assert len(guards) == 1
    guards[0].kill()
    worker_stand_in = psutil.Process(State(data_dir).read()["processes"][0]["pid"])
    orphans = worker_stand_in.children()
    started.end(signal.SIGKILL)
    try:
        assert not wait_ended([worker_stand_in], GONE_TIMEOUT_S)
        assert orphans[0].is_running()
    finally:
        orphans[0].kill()


def test_leftovers_are_stopped_but_not_a_later_process_of_the_same_number(data_dir: Path) -> None:
    code = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    leftover, stranger = subprocess.Popen(code), subprocess.Popen(code)
    entries = [
        {
            "name": "leftover",
            "pid": leftover.pid,
            "create_time": psutil.Process(leftover.pid).create_time(),
            "stop_signal": int(signal.SIGTERM),
        },
        {
            "name": "stranger",
            "pid": stranger.pid,
            "create_time": psutil.Process(stranger.pid).create_time() - 60,
            "stop_signal": int(signal.SIGTERM),
        },
    ]
    (data_dir / "state.json").write_text(json.dumps({"pid": 1, "processes": entries}))
    try:
        assert State(data_dir).stop_leftovers() == ["leftover"]
        assert leftover.poll() is not None
        assert stranger.poll() is None
        assert State(data_dir).read() == {}
    finally:
        stranger.kill()
        stranger.wait()


# Ports and places


def test_a_server_is_not_ready_while_another_program_answers_at_its_port(
    data_dir: Path, guard: Guard
) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as strangers:
        port = strangers.getsockname()[1]
        code = f"import socket; socket.create_server(('{LOOPBACK}', {port})).accept()"
        program = python_program(data_dir, code, is_ready=lambda: True, port=port)
        child = ChildProcess(program, data_dir / "logs", guard)
        with pytest.raises(ServerFailed, match="Address already in use"):
            child.start()
    child.start()
    assert child.is_alive()
    child.stop()


def test_a_port_is_kept_while_it_is_free_and_replaced_when_it_is_not(data_dir: Path) -> None:
    path = data_dir / "ports.json"
    ports = Ports(path)
    kept = ports.port("api")
    ports.release()
    assert Ports(path).port("api") == kept
    ports.release()
    with socket.create_server((LOOPBACK, kept)):
        Ports(path).release()
        assert Ports(path).port("api") != kept


def test_a_port_is_none_that_connections_get_and_no_two_processes_are_given_the_same(
    data_dir: Path,
) -> None:
    first_of_connections = int(
        Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    )
    mine = [Ports(data_dir / "ports.json").port("api"), free_port()]
    assert all(port < first_of_connections for port in mine)
    code = (
        "import sys; from pathlib import Path; from deployments.embedded.ports import Ports\n"
        f"print(*(Ports(Path('theirs.json')).port(str(n), first=n) for n in {mine}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=data_dir, check=True, capture_output=True, text=True
    )
    assert set(mine).isdisjoint(map(int, found.stdout.split()))


def test_a_wished_port_is_given_or_the_next_free_one_and_kept(data_dir: Path) -> None:
    path = data_dir / "ports.json"
    with socket.create_server((LOOPBACK, 0)) as taken:
        wished = taken.getsockname()[1]
        ports = Ports(path)
        kept = ports.port("api", first=wished)
        assert wished < kept
        assert ports.port("other", first=wished) > kept
        ports.release()
    again = Ports(path)
    assert again.port("api", first=wished) == kept
    again.release()


def test_the_data_directory_of_an_ordinary_user_follows_xdg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "refinery"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / ".local" / "share" / "refinery"
