"""Measure from POST /v1/jobs of ten lines to the first claim, by our worker and by Prefect's own."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks import manifest, ours
from benchmarks.annotation_jobs import add_annotators
from benchmarks.latencies import Latency
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks.prefect.auth import PrefectAuth
from deployments.embedded.environment import python_environment
from deployments.names import PROCESS_JOB, WORK_POOL
from deployments.registered import REPOSITORY
from deployments.registration import read_work_pools
from deployments.worker import QUERY_S

_LINES = 10
_SUBMITTERS = 8
_POLL_S = 0.01
_TIMEOUT_S = 120.0


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Measure each worker in turn, then ours with many jobs of another customer waiting."""
    with stacks.whole() as servers:
        return _measure(servers, sizes, console)


def _measure(servers: Servers, sizes: Sizes, console: Console) -> Table:
    ten_lines = manifest.put(servers.store, _LINES, bad=False)
    theirs = read_work_pools()["process"]
    seconds: dict[str, list[float]] = {WORK_POOL: [], theirs["name"]: []}
    with _Customer(servers, ten_lines) as customer:

        def turn(number: int, pool: str, variables: Mapping[str, object]) -> None:
            with console.status(f"Round {number} of {sizes.rounds}: {pool}"):
                _move(servers, pool, variables)
                customer.start_one()  # the first one warms everything
                found = [customer.start_one() for _ in range(sizes.start_jobs)]
            seconds[pool] += found
            console.print(f"[dim]round {number}: {pool} {statistics.median(found):.2f} s[/]")

        for number in range(1, sizes.rounds + 1):
            turn(number, WORK_POOL, {})
            with _process_worker(servers, theirs["name"]):
                turn(number, theirs["name"], theirs["job_variables"])
        _move(servers, WORK_POOL, {})
    with (
        _Customer(servers, ten_lines) as many,
        _Customer(servers, ten_lines) as single,
        console.status(f"{sizes.waiting_jobs} jobs of another customer"),
    ):
        many.submit(sizes.waiting_jobs)
        behind_s = single.start_one()
    return _table(seconds, behind_s, sizes)


def _table(seconds: Mapping[str, list[float]], behind_s: float, sizes: Sizes) -> Table:
    title = (
        f"POST /v1/jobs of {_LINES} lines to the first claim, {sizes.rounds} interleaved rounds of "
        f"{sizes.start_jobs}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("worker", "jobs", "p50 / p95 / p99 ms", "p50 ÷ ours", "goal"):
        table.add_column(column, justify="right" if column != "worker" else "left")
    own = Latency.of(seconds[WORK_POOL])
    for pool, found in seconds.items():
        latency = Latency.of(found)
        goal = "p50 ≤ 450, p95 ≤ 800" if pool == WORK_POOL else ""
        ratio = f"{latency.p50_ms / own.p50_ms:.2f}"
        table.add_row(pool, str(len(found)), str(latency), ratio, goal)
    ratio = f"{behind_s * 1000 / own.p50_ms:.2f}"
    what = f"{WORK_POOL}, {sizes.waiting_jobs} jobs of another customer waiting"
    table.add_row(what, "1", f"{behind_s * 1000:.0f}", ratio, "≤ 10000")
    return table


class _Customer:
    """Act as a customer, and as an annotator who waits for the customer's tasks."""

    def __init__(self, servers: Servers, ten_lines: manifest.Manifest) -> None:
        (annotator,) = add_annotators(servers, 1)
        self._http = httpx.Client(base_url=servers.stack.api_url, timeout=_TIMEOUT_S)
        self._as_customer = {
            "Authorization": f"Bearer {ours.new_customer_key(servers.database_url)}"
        }
        self._as_annotator = {"Authorization": f"Bearer {annotator}"}
        self._job = ours.job_body(servers.store, ten_lines)

    def __enter__(self) -> "_Customer":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def start_one(self) -> float:
        """Return the seconds from before the POST to the answer of the first claim with a task of it."""
        began_s = time.monotonic()
        claim = {
            "limit": 1,
            "job_id": self._post("/v1/jobs", self._job, self._as_customer)["job_id"],
        }
        while not self._post("/v1/annotation/claim", claim, self._as_annotator)["tasks"]:
            if time.monotonic() - began_s > _TIMEOUT_S:
                raise TimeoutError("The job's tasks cannot be claimed.")
            time.sleep(_POLL_S)
        return time.monotonic() - began_s

    def submit(self, jobs: int) -> None:
        """Post so many jobs at once."""
        with ThreadPoolExecutor(_SUBMITTERS) as pool:
            list(
                pool.map(
                    lambda _: self._post("/v1/jobs", self._job, self._as_customer), range(jobs)
                )
            )

    def _post(self, path: str, body: object, headers: Mapping[str, str]) -> dict[str, str]:
        answer = self._http.post(path, json=body, headers=headers).raise_for_status()
        found: dict[str, str] = answer.json()
        return found


def _prefect(servers: Servers) -> httpx.Client:
    url = servers.stack.prefect_api_url
    auth = PrefectAuth(servers.stack.prefect_auth_string, url)
    return httpx.Client(base_url=url, auth=auth, timeout=_TIMEOUT_S)


def _move(servers: Servers, pool: str, variables: Mapping[str, object]) -> None:
    """Have the deployment's runs go to another pool."""
    with _prefect(servers) as prefect:
        found = prefect.get(f"/deployments/name/{PROCESS_JOB}").raise_for_status().json()
        body = {"work_pool_name": pool, "job_variables": variables}
        prefect.patch(f"/deployments/{found['id']}", json=body).raise_for_status()


@contextlib.contextmanager
def _process_worker(servers: Servers, pool: str) -> Iterator[None]:
    """Run Prefect's own worker for its turn; it polls as often as ours."""
    environment = python_environment(
        {
            **servers.stack.environment,
            "PREFECT_WORKER_QUERY_SECONDS": str(QUERY_S),
            "PREFECT_LOGGING_LEVEL": "ERROR",
        }
    )
    command = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    worker = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = f"/work_pools/{pool}/workers/filter"
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        with _prefect(servers) as prefect:
            while not (answer := prefect.post(path, json={})).is_success or not answer.json():
                if time.monotonic() > deadline:
                    raise TimeoutError("Prefect's worker does not come online.")
                time.sleep(_POLL_S)
        yield
    finally:
        worker.kill()  # it does not always react to SIGTERM
        worker.wait()
