"""Whatever dies or hangs comes back, whatever stands in its way passes, and nothing ends that."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from psycopg.pq import Ping

from deployments.embedded import postgres, process_log, processes, supervised, supervisor
from deployments.embedded.object_stores import FakeGCS
from deployments.embedded.ports import free_port, is_free
from deployments.embedded.postgres import Postgres
from deployments.embedded.state import State
from deployments.embedded.supervised import Condition, Supervised
from deployments.embedded.supervisor import Supervisor
from tests.support.child_programs import as_root, python_program
from tests.support.client import wait_for

WAIT_S = 90.0
PAUSE = "import signal\nwhile True: signal.pause()"


class Watched:
    """A supervisor, and what it said."""

    def __init__(self, data_dir: Path) -> None:
        self.said: list[str] = []
        self.states = 0
        self.no_room = threading.Event()
        self.supervisor = Supervisor(data_dir / "logs", self._write_state, self.said.append)
        self.supervisor.start()

    def _write_state(self) -> None:
        if self.no_room.is_set():
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        self.states += 1

    def wait_for_words(self, words: str) -> None:
        wait_for(f"{words!r} in {self.said}", lambda: [t for t in self.said if words in t])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes half a minute, or a minute, takes a fraction of a second."""
    monkeypatch.setattr(supervised, "RESTART_DELAY_MIN_S", 0.05)
    monkeypatch.setattr(supervised, "RESTART_DELAY_MAX_S", 0.1)
    monkeypatch.setattr(processes, "ALIVE_POLL_S", 0.0)
    monkeypatch.setattr(supervised, "PROBE_PERIOD_S", 0.1)
    monkeypatch.setattr(supervised, "PROBES_MISSED_MAX", 2)
    monkeypatch.setattr(supervisor, "TIDY_PERIOD_S", 0.05)


@pytest.fixture
def watched(data_dir: Path) -> Iterator[Watched]:
    found = Watched(data_dir)
    yield found
    found.supervisor.stop()


def kill(server: Supervised) -> None:
    os.kill(pid := server.child.pid, signal.SIGKILL)
    wait_for("another one", lambda: server.child.pid != pid)


def test_a_server_that_dies_is_started_again_on_its_port(data_dir: Path) -> None:
    watched = Watched(data_dir)
    server = FakeGCS(data_dir, free_port())
    try:
        child = watched.supervisor.keep(server.program())
        child.wait_first_try()
        kill(child)
        assert child.wait_ready(WAIT_S)
        assert httpx.get(f"{server.endpoint_url}/storage/v1/b").is_success
        assert "fake-gcs-server died (exit -9); starting it again" in watched.said
    finally:
        watched.supervisor.stop()
    assert is_free(int(server.endpoint_url.rpartition(":")[2]))


def test_those_that_died_at_once_come_back_side_by_side(data_dir: Path, watched: Watched) -> None:
    held = data_dir / "held"
    late = python_program(data_dir, PAUSE, is_ready=lambda: not held.exists())
    other = python_program(data_dir, PAUSE, is_ready=lambda: True)
    first, second = watched.supervisor.keep(late), watched.supervisor.keep(other)
    first.wait_first_try()
    second.wait_first_try()
    held.touch()
    for server in (first, second):
        kill(server)
    assert second.wait_ready(WAIT_S)
    assert not first.is_ready
    held.unlink()
    assert first.wait_ready(WAIT_S)


def test_one_that_cannot_be_started_is_tried_again_without_end(
    data_dir: Path, watched: Watched
) -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(len(tries))
        if len(tries) < 12:
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    program = python_program(data_dir, PAUSE, prepare=fail, is_ready=lambda: True)
    server = watched.supervisor.keep(program)
    with pytest.raises(OSError, match="No space left"):
        server.wait_first_try()
    assert server.wait_ready(WAIT_S)
    assert len(tries) == 12
    assert any("No space left on device; tried again in" in text for text in watched.said)


def test_one_that_dies_at_each_start_ends_no_other(data_dir: Path, watched: Watched) -> None:
    broken = watched.supervisor.keep(python_program(data_dir, "raise SystemExit(3)"))
    other = watched.supervisor.keep(python_program(data_dir, PAUSE, is_ready=lambda: True))
    other.wait_first_try()
    pid = other.child.pid
    wait_for("ten tries", lambda: sum("exit code 3" in text for text in watched.said) >= 10)
    assert not broken.is_ready
    assert (other.is_ready, other.child.pid) == (True, pid)


@pytest.mark.parametrize("deaths, delay_s", [(1, 0.5), (2, 1), (3, 2), (7, 30), (1000, 30)])
def test_tries_become_rarer_until_there_is_one_in_thirty_seconds(
    deaths: int, delay_s: float, data_dir: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    server = watched.supervisor.keep(python_program(data_dir, PAUSE, is_ready=lambda: True))
    server._failures = deaths
    assert server._delay_s() == delay_s


def test_a_state_that_cannot_be_written_is_written_later(data_dir: Path, watched: Watched) -> None:
    program = python_program(data_dir, PAUSE, is_ready=lambda: True)
    watched.no_room.set()
    server = watched.supervisor.keep(program)
    server.wait_first_try()
    kill(server)
    assert server.wait_ready(WAIT_S)
    watched.wait_for_words("No space left")
    assert watched.states == 0
    watched.no_room.clear()
    wait_for("the state", lambda: watched.states)
    assert sum("No space left" in text for text in watched.said) == 1


def test_a_postgresql_that_hangs_is_started_again(data_dir: Path, watched: Watched) -> None:
    server = Postgres(data_dir, free_port(), durable=False)
    child = watched.supervisor.keep(server.program())
    child.wait_first_try()
    os.kill(child.child.pid, signal.SIGSTOP)
    watched.wait_for_words("PostgreSQL gave no answer")
    assert child.wait_ready(WAIT_S)
    psycopg.connect(server.url("postgres")).close()


def test_a_postgresql_that_turns_all_away_and_recovers_nothing_is_started_again(
    data_dir: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Postgres(data_dir, free_port(), durable=False)
    child = watched.supervisor.keep(server.program())
    child.wait_first_try()
    died = child.child.pid
    with monkeypatch.context() as turned_away:
        turned_away.setattr(postgres, "_ping", lambda _: Ping.REJECT)
        watched.wait_for_words("PostgreSQL gave no answer")
    wait_for("another one", lambda: child.child.pid != died)
    assert child.wait_ready(WAIT_S)
    psycopg.connect(server.url("postgres")).close()


def test_a_postgresql_that_recovers_for_long_is_left_alone(
    data_dir: Path, watched: Watched
) -> None:
    server = Postgres(data_dir, free_port(), durable=False)
    first = watched.supervisor.keep(server.program())
    first.wait_first_try()
    first.stop()
    # Recovers until somebody says that it is enough.
    (server._cluster / "standby.signal").touch()
    (server._cluster / "postgresql.auto.conf").write_text("hot_standby = off\n")
    # On a busy machine it takes a while until it recovers; until then it counts as alive.
    begun = threading.Event()
    program = replace(
        server.program(),
        is_alive=lambda: not begun.is_set() or server._is_alive(),
        start_timeout_s=0.2,
    )
    recovering = watched.supervisor.keep(program)
    wait_for("its process", server._is_recovering)
    begun.set()
    said, pid = list(watched.said), recovering.child.pid
    assert not recovering.wait_ready(1.0)
    assert (watched.said, recovering.child.pid) == (said, pid)
    server._run("pg_ctl", "promote", "-W", "-D", str(server._cluster))
    assert recovering.wait_ready(WAIT_S)


@pytest.mark.parametrize("is_alive", [None, lambda: True], ids=["not asked", "answers by another"])
def test_one_that_is_stopped_is_started_again_whatever_is_asked(
    is_alive: Callable[[], bool] | None, data_dir: Path, watched: Watched
) -> None:
    program = python_program(data_dir, PAUSE, is_ready=lambda: True, is_alive=is_alive)
    server = watched.supervisor.keep(program)
    server.wait_first_try()
    os.kill(pid := server.child.pid, signal.SIGSTOP)
    watched.wait_for_words("stand-in gave no answer")
    wait_for("another one", lambda: server.child.pid != pid)
    assert server.wait_ready(WAIT_S)


@as_root
def test_a_full_disk_is_survived_by_all_that_needs_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = data_dir / "small"
    small.mkdir()
    options = ["-t", "tmpfs", "-o", "size=100m,mode=711", "tmpfs"]
    if subprocess.run(["mount", *options, str(small)], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    said: list[str] = []
    state = State(small)
    keeper = Supervisor(small / "logs", lambda: state.write({}, keeper.children), said.append)
    try:
        (small / "logs").mkdir()
        keeper.start()
        server = Postgres(small, free_port())
        child = keeper.keep(server.program())
        child.wait_first_try()
        died = child.child.pid
        _fill(small / "filler")
        with pytest.raises(psycopg.OperationalError):
            _write_much(server)
        wait_for("tries in vain", lambda: _fill(small / "filler") and len(said) >= 6)
        assert any("state could not be written" in text for text in said)
        (small / "filler").unlink()
        assert child.wait_ready(WAIT_S)
        wait_for("the state", lambda: state.read()["processes"][0]["pid"] == child.child.pid)
        assert child.child.pid != died
        psycopg.connect(server.url("postgres")).close()
    finally:
        keeper.stop()
        subprocess.run(["umount", "-l", str(small)], check=True)


def _fill(path: Path) -> int:
    """To the last page, also what others have given up meanwhile."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path.stat().st_size


def _write_much(server: Postgres) -> None:
    """Until PostgreSQL needs another segment of its log, for which there is no room."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for _ in range(8):
            connection.execute("select pg_logical_emit_message(false, 'a', 'b'), pg_switch_wal()")


def test_one_that_answers_that_it_is_not_ready_is_left_alone(
    data_dir: Path, watched: Watched
) -> None:
    ready = data_dir / "ready"
    program = python_program(
        # Even at once is late enough for an answer: only a question that has none counts.
        data_dir,
        PAUSE,
        is_ready=ready.exists,
        is_alive=lambda: True,
        start_timeout_s=0.0,
    )
    server = watched.supervisor.keep(program)
    assert not server.wait_ready(0.5)
    assert watched.said == []
    ready.touch()
    assert server.wait_ready(WAIT_S)


def test_a_question_that_fails_ends_nothing(data_dir: Path, watched: Watched) -> None:
    asked: list[int] = []

    def fail_now_and_then() -> bool:
        asked.append(len(asked))
        if len(asked) % 3 == 1:
            raise ProcessLookupError("it ended while it was looked at")
        return True

    question = fail_now_and_then
    program = python_program(data_dir, PAUSE, is_ready=question, is_alive=question)
    server = watched.supervisor.keep(program)
    assert server.wait_ready(WAIT_S)
    pid, begun = server.child.pid, len(asked)
    wait_for("more questions", lambda: len(asked) > begun + 4)
    assert (server.is_ready, server.child.pid) == (True, pid)
    assert len(watched.said) == 1


def test_a_failure_names_the_error_of_the_last_question(data_dir: Path, watched: Watched) -> None:
    program = python_program(data_dir, PAUSE, is_ready=lambda: 1 / 0 > 0, start_timeout_s=0.0)
    watched.supervisor.keep(program)
    watched.wait_for_words("not ready within 0 s (ZeroDivisionError: division by zero)")


def test_an_error_of_ours_leaves_no_second_process(data_dir: Path, watched: Watched) -> None:
    program = python_program(data_dir, PAUSE, is_ready=lambda: True)
    server = watched.supervisor.keep(program)
    server.wait_first_try()
    first = server.child.pid
    server.child.spawn()
    assert not psutil.pid_exists(first)
    # The supervisor may have seen that the first one had gone, and just be starting it again.
    wait_for("a process", lambda: server.child.is_running)


def test_an_errand_is_done_until_it_succeeds_once(data_dir: Path, watched: Watched) -> None:
    code = "import sys, pathlib\np = pathlib.Path('tries')\np.open('a').write('.')\n"
    code += "sys.exit(p.stat().st_size < 3)"
    errand = watched.supervisor.finish(python_program(data_dir, code), None)
    assert errand.wait_ready(WAIT_S)
    assert (data_dir / "tries").read_text() == "..."
    assert watched.said[-1].startswith("stand-in is done")


def test_an_errand_waits_for_what_it_needs_and_is_left_out_where_it_is_done(
    data_dir: Path, watched: Watched
) -> None:
    ready = data_dir / "ready"
    asked: list[int] = []

    def is_done() -> bool:
        asked.append(len(asked))
        if len(asked) == 1:
            raise ConnectionError("not now")
        return True

    needed = watched.supervisor.keep(python_program(data_dir, PAUSE, is_ready=ready.exists))
    program = python_program(data_dir, "open('begun', 'w')")
    errand = watched.supervisor.finish(program, Condition(needed, is_done))
    assert not errand.wait_ready(0.3)
    ready.touch()
    assert errand.wait_ready(WAIT_S)
    assert any("not now; tried again" in text for text in watched.said)
    assert not (data_dir / "begun").exists()


# Logs


def test_a_log_is_made_shorter_while_its_process_writes(
    data_dir: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_log, "LOG_BYTES_MAX", 10_000)
    code = (
        "import os, time\n"
        "for n in range(20):\n"
        "    os.write(1, b'%d ' % n + b'x' * 2000 + b'\\n')\n"
        "    time.sleep(0.05)\n"
        "open('written', 'w')\n" + PAUSE
    )
    server = watched.supervisor.keep(python_program(data_dir, code, is_ready=lambda: True))
    log = server.child.log
    wait_for("the last line", (data_dir / "written").exists)
    previous = log.path.with_suffix(".log.1")
    assert log.path.stat().st_size + previous.stat().st_size < 30_000
    assert {path.stat().st_mode & 0o777 for path in (log.path, previous)} == {0o600}
    assert [path.name for path in (data_dir / "logs").iterdir() if path.suffix == ".new"] == []
