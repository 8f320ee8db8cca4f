"""Every kind of fault, and how it is injected; each function returns when its fault is over."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from deployments import names
from tests.support.client import cancel, quick_run, retry, runs_of
from tests.support.fault_trial import Trial
from tests.support.installation import API, POSTGRES, PREFECT, SERVERS, STORE, WORKER, any_of, send

NOTICE_S_MAX = 150.0  # a hung server is to be noticed within a minute
DIES_AGAIN_S = 60.0
LOCKED_S = 30.0
CONNECTIONS_S = 20.0
FULL_S = 40.0
WAIT_S_MAX = 30.0
LOOK_S = 0.01
MORE_JOBS = 4
CONNECTIONS_MAX = 400
BLOCK_BYTES = 1024 * 1024
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

Inject = Callable[[Trial], str | None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault; `make faults` injects it `tries` times. A `short` one is over at once."""

    name: str
    inject: Inject
    tries: int = 1
    short: bool = False
    on_small_disk: bool = False


def nothing(_: Trial) -> None:
    """For comparison."""


def find(trial: Trial, what: str) -> list[psutil.Process]:
    """The processes of that name, as many as there are at the moment."""
    installation = trial.installation
    if what == "flow":
        return any_of(installation.flows(), trial.dice)
    if what == "flows":
        return installation.flows()
    if what == "fork server":
        return [found] if (found := installation.fork_server()) else []
    if what == "backend":
        return any_of(installation.backends(), trial.dice)
    if what == "postmaster":
        return find(trial, POSTGRES)
    if what == "all of PostgreSQL":
        return installation.postgres()
    return [found] if (found := installation.find(what)) else []


def kill(*what: str) -> Inject:
    """Kill all of them in one instant: what is stopped first cannot see the others die."""

    def inject(trial: Trial) -> str | None:
        processes = await_found(trial, *what)
        if len(processes) > 1:
            send(signal.SIGSTOP, processes)
        send(signal.SIGKILL, processes)
        return None if processes else "there was none"

    return inject


def kill_two(trial: Trial) -> str:
    """Kill any two servers."""
    pair = trial.dice.sample(SERVERS, 2)
    kill(*pair)(trial)
    return " and ".join(pair)


def kill_again(trial: Trial) -> str:
    """Kill a server, and what came in its place before it is ready."""
    name = trial.dice.choice(SERVERS)
    for _ in range(3):
        process = trial.installation.await_server(name)
        time.sleep(trial.dice.uniform(0, 1.5))
        send(signal.SIGKILL, [process])
        trial.installation.await_server(name, other_than=process)
    return name


def stop(what: str) -> Inject:
    """Stop them for a while, and let them go on."""

    def inject(trial: Trial) -> str | None:
        processes = await_found(trial, what)
        with _stopped(processes):
            time.sleep(trial.site.stop_s)
        return None if processes else "there was none"

    return inject


def hang(what: str) -> Inject:
    """Stop a server for good: somebody has to notice."""

    def inject(trial: Trial) -> str:
        (process,) = await_found(trial, what)
        began_s = time.monotonic()
        with _stopped([process]):
            while trial.installation.find(what) == process:
                if time.monotonic() - began_s > NOTICE_S_MAX:
                    trial.outcome.human = "nobody noticed"
                    return trial.outcome.human
                time.sleep(LOOK_S)
        return f"noticed after {time.monotonic() - began_s:.0f} s"

    return inject


@contextlib.contextmanager
def _stopped(processes: list[psutil.Process]) -> Iterator[None]:
    send(signal.SIGSTOP, processes)
    try:
        yield
    finally:
        send(signal.SIGCONT, processes)


def stop_supervisor(trial: Trial) -> None:
    """Stop `refinery up` while a server dies that it watches over."""
    with _stopped([psutil.Process(trial.installation.pid)]):
        kill(API)(trial)
        time.sleep(trial.site.stop_s / 2)


def await_found(trial: Trial, *what: str) -> list[psutil.Process]:
    """All processes of those names; each is waited for, since some come and go."""
    deadline = time.monotonic() + WAIT_S_MAX
    found = []
    for each in what:
        while not (processes := find(trial, each)) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        found += processes
    return found


def kill_worker_with_pending(trial: Trial) -> str:
    """Kill the worker between its taking of a run and the start of the run's process."""
    trial.add_orders(MORE_JOBS)
    pending = {"flow_runs": {"state": {"type": {"any_": ["PENDING"]}}}}
    deadline = time.monotonic() + WAIT_S_MAX
    with trial.installation.prefect() as prefect:
        while not (found := prefect.post("/flow_runs/filter", json=pending).json()):
            if time.monotonic() > deadline:
                break
        kill(WORKER)(trial)
        found = prefect.post("/flow_runs/filter", json=pending).json()
    return f"{len(found)} Pending"


def kill_up(trial: Trial) -> str:
    """Kill `refinery up` itself; whoever runs it starts it again."""
    trial.installation.kill()
    return f"up again after {trial.installation.start():.0f} s"


def dies_at_each_start(name: str) -> Inject:
    """Kill a server whenever it starts, for a while."""

    def inject(trial: Trial) -> str:
        kills, deadline = 0, time.monotonic() + DIES_AGAIN_S
        while time.monotonic() < deadline and trial.installation.is_running:
            if processes := find(trial, name):
                send(signal.SIGKILL, processes)
                kills += 1
                psutil.wait_procs(processes, timeout=WAIT_S_MAX)
            time.sleep(LOOK_S)
        return f"{kills} deaths"

    return inject


def lock(statement: str) -> Inject:
    """Somebody leaves a transaction open that holds locks; `statement` is given the jobs' ids."""

    def inject(trial: Trial) -> None:
        job_ids = [order.job_id for order in trial.orders.values() if order.job_id]
        with psycopg.connect(trial.installation.database_url) as connection:
            connection.execute(statement.encode(), [job_ids] if "%s" in statement else None)
            time.sleep(LOCKED_S)
            connection.rollback()

    return inject


def use_up_connections(trial: Trial) -> str:
    """Somebody opens connections until there are none left."""
    with contextlib.ExitStack() as opened:
        count = 0
        with contextlib.suppress(psycopg.OperationalError):
            while count < CONNECTIONS_MAX:
                opened.enter_context(psycopg.connect(trial.installation.database_url))
                count += 1
        time.sleep(CONNECTIONS_S)
    return f"{count} connections"


def end_backends(trial: Trial) -> None:
    """An operator ends every session of PostgreSQL."""
    with psycopg.connect(trial.installation.database_url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )


def restart_postgres(trial: Trial) -> None:
    """An operator has PostgreSQL end in good order."""
    send(signal.SIGINT, find(trial, POSTGRES))


def fill_disk(*, needs_segment: bool) -> Inject:
    """Leave no byte on the data directory's disk for a while."""

    def inject(trial: Trial) -> None:
        ballast = trial.installation.data_dir / "ballast"
        try:
            _fill(ballast)
            deadline = time.monotonic() + FULL_S
            while time.monotonic() < deadline:
                if needs_segment:
                    with contextlib.suppress(psycopg.Error):
                        _switch_segment(trial)
                _fill(ballast)
                time.sleep(1)
        finally:
            ballast.unlink()

    return inject


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        for size in (BLOCK_BYTES, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


def _switch_segment(trial: Trial) -> None:
    with psycopg.connect(
        trial.installation.database_url, autocommit=True, connect_timeout=2
    ) as connection:
        connection.execute("select pg_logical_emit_message(false, 'fault', 'needs a segment')")
        connection.execute("select pg_switch_wal()")


# What an operator does in Prefect's UI.


def start_twins(trial: Trial) -> None:
    """Start two more runs of everything."""
    with trial.installation.prefect() as prefect:
        for deployment, name in ((names.PROCESS_JOB, "A"), (names.DELIVER_JOB, "C")):
            job_id = trial.orders[name].job_id
            for _ in range(2):
                quick_run(prefect, deployment, {"parameters": {"job_id": job_id}, "tags": [job_id]})


def retry_running(trial: Trial) -> str:
    """Press Retry of a run that is under way."""
    with trial.installation.prefect() as prefect:
        run = _running_run(trial, prefect)
        if run:
            retry(prefect, run["id"])
    return run["name"].partition(" ")[0] if run else "there was none"


def cancel_and_retry(trial: Trial) -> str:
    """Press Cancel of a run that is under way, and a while after its end Retry."""
    with trial.installation.prefect() as prefect:
        run = _running_run(trial, prefect)
        if run is None:
            return "there was none"
        cancel(prefect, run["id"])
        deadline = time.monotonic() + WAIT_S_MAX
        while (state := prefect.get(f"/flow_runs/{run['id']}").json()["state"])[
            "type"
        ] not in ENDED:
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        if state["type"] == "CANCELLED":
            time.sleep(trial.dice.choice([0, 2, 10, 30]) * trial.dice.random())
            retry(prefect, run["id"])
        return f"{run['name'].partition(' ')[0]} was {state['name']}"


def delete_run(trial: Trial) -> str:
    """Delete a run that is under way."""
    with trial.installation.prefect() as prefect:
        run = _running_run(trial, prefect)
        if run:
            prefect.delete(f"/flow_runs/{run['id']}").raise_for_status()
    return run["name"].partition(" ")[0] if run else "there was none"


def retry_completed(trial: Trial) -> None:
    """Press Retry of every run of a job that is completed: nothing changes."""
    c = trial.orders["C"]
    deadline = time.monotonic() + 4 * WAIT_S_MAX
    while c.completed_at is None and time.monotonic() < deadline:
        c.look(trial.customer.http)
        time.sleep(LOOK_S)
    assert c.completed_at, c.seen
    c.look(trial.customer.http)
    before = c.seen
    with trial.installation.prefect() as prefect:
        _await_ends(prefect, c.job_id)
        for run in runs_of(prefect, c.job_id):
            retry(prefect, run["id"])
        _await_ends(prefect, c.job_id)
    c.look(trial.customer.http)
    if c.seen != before:
        trial.outcome.wrong.append(f"a retry after the end changed {before} to {c.seen}")


def _await_ends(prefect: httpx.Client, job_id: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while {run["state"]["type"] for run in runs_of(prefect, job_id)} - ENDED:
        if time.monotonic() > deadline:
            return
        time.sleep(LOOK_S)


def _running_run(trial: Trial, prefect: httpx.Client) -> dict[str, Any] | None:
    deadline = time.monotonic() + WAIT_S_MAX
    job_ids = [order.job_id for order in trial.orders.values() if order.job_id]
    body = {"flow_runs": {"tags": {"any_": job_ids}, "state": {"type": {"any_": ["RUNNING"]}}}}
    while time.monotonic() < deadline:
        found: list[dict[str, Any]] = prefect.post("/flow_runs/filter", json=body).json()
        if found:
            return trial.dice.choice(found)
        time.sleep(LOOK_S)
    return None


MACHINE = (WORKER, "fork server", "flows")
JOBS_LOCK = "select * from jobs where job_id = any (%s) for update"
CHUNKS_LOCK = """
    select * from chunks where job_no in (select job_no from jobs where job_id = any (%s)) for update
"""

FAULTS = [
    Fault("none", nothing, tries=2),
    Fault("kill -9 a flow's process", kill("flow"), tries=2, short=True),
    Fault("kill -9 all flows", kill("flows"), short=True),
    Fault("kill -9 worker", kill(WORKER), tries=2, short=True),
    Fault("kill -9 worker with runs Pending", kill_worker_with_pending, tries=3),
    Fault("kill -9 fork server", kill("fork server"), tries=2),
    Fault("kill -9 worker, fork server and flows", kill(*MACHINE), tries=2),
    Fault("kill -9 API", kill(API), tries=2, short=True),
    Fault("kill -9 postmaster", kill("postmaster"), tries=2, short=True),
    Fault("kill -9 a backend", kill("backend"), tries=2, short=True),
    Fault("kill -9 Prefect server", kill(PREFECT), tries=2, short=True),
    Fault("kill -9 SeaweedFS", kill(STORE), tries=2, short=True),
    Fault("kill -9 API and Prefect", kill(API, PREFECT)),
    Fault("kill -9 API and PostgreSQL", kill(API, POSTGRES)),
    Fault("kill -9 Prefect and worker", kill(PREFECT, WORKER)),
    Fault("kill -9 any two servers", kill_two, tries=3),
    Fault("kill -9 all five", kill(*SERVERS), tries=2),
    Fault("kill -9 a server three times in a row", kill_again, tries=2),
    Fault("kill -9 refinery up, then up again", kill_up, tries=2),
    Fault("SIGSTOP a flow's process", stop("flow")),
    Fault("SIGSTOP worker", stop(WORKER)),
    Fault("SIGSTOP fork server", stop("fork server")),
    Fault("SIGSTOP API", stop(API)),
    Fault("SIGSTOP all of PostgreSQL", stop("all of PostgreSQL")),
    Fault("SIGSTOP postmaster", stop("postmaster")),
    Fault("SIGSTOP Prefect server", stop(PREFECT)),
    Fault("SIGSTOP SeaweedFS", stop(STORE)),
    Fault("SIGSTOP refinery up, kill -9 API", stop_supervisor),
    Fault("API hangs", hang(API)),
    Fault("Prefect server hangs", hang(PREFECT)),
    Fault("Prefect server dies at each start, 60 s", dies_at_each_start(PREFECT)),
    Fault("worker dies at each start, 60 s", dies_at_each_start(WORKER)),
    Fault("lock table tasks, 30 s", lock("lock table tasks in access exclusive mode")),
    Fault("rows of jobs locked, 30 s", lock(JOBS_LOCK)),
    Fault("rows of chunks locked, 30 s", lock(CHUNKS_LOCK)),
    Fault("connections used up, 20 s", use_up_connections),
    Fault("every session ended", end_backends, tries=2, short=True),
    Fault("PostgreSQL ended in good order", restart_postgres, short=True),
    Fault("two twins of each run", start_twins, tries=2, short=True),
    Fault("Retry of a run under way", retry_running, tries=2),
    Fault("Retry of all runs of a completed job", retry_completed),
    Fault("Cancel, then Retry", cancel_and_retry, tries=4),
    Fault("a run under way is deleted", delete_run),
    Fault("disk full, 40 s", fill_disk(needs_segment=False), on_small_disk=True),
    Fault("disk full, a WAL segment needed", fill_disk(needs_segment=True), on_small_disk=True),
]

CAN_MOUNT = os.geteuid() == 0
"""A disk of the trial's own needs a file system of its own."""
