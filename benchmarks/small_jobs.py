"""Measure many small jobs at once, from first POST to last delivery, and their cost to Prefect."""

import json
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from benchmarks import manifest, ours
from benchmarks.annotation_jobs import OPTIONS, add_annotators
from benchmarks.manifest import Manifest
from benchmarks.servers import BUCKET, Servers
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from deployments.embedded.postgres import PREFECT_DATABASE

_LINES = 11  # the first of them would be bad, and is left out
_SUBMITTERS = 8
_ANNOTATORS = 2
_CLAIM_TASKS = 500
_POLL_S = 0.5
_TIMEOUT_S = 1800.0
_FLOOR_JOBS = 50

_KB = 1000
GOAL_JOBS_PER_S = 1000 / 300
GOAL_KB = 100
GOAL_IDLE_MB_PER_DAY = 5
_DONE = """
select count(*) filter (where status = 'completed') as completed,
       count(*) filter (where status in ('failed', 'cancelled') or delivery_status = 'failed') as failed
from jobs where customer_id = (select customer_id from jobs where job_id = %s)
"""


class SmallJobsFailed(Exception):
    """Jobs failed, or were not completed in time."""


@dataclass(frozen=True)
class _Burst:
    """Give the figures of a burst of jobs."""

    seconds: float
    flow_runs: int
    """Runs of Prefect for all of them."""
    processes_max: int
    """The most processes of flow runs at one time."""
    prefect_bytes: int


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Post many jobs at once, then single ones, then nothing for `idle_seconds`.

    Raises:
        SmallJobsFailed: some failed, or were not completed within half an hour.
    """
    with stacks.whole() as servers:
        return _measure(servers, sizes, console)


def _measure(servers: Servers, sizes: Sizes, console: Console) -> Table:
    ten_lines = manifest.put(servers.store, _LINES, bad=False)
    with _Shop(servers, ten_lines, sizes.settle_seconds) as shop:
        shop.run(1)  # the first one warms everything
        with console.status(f"{sizes.jobs:,} jobs of {ten_lines.lines} lines at once"):
            burst = shop.run(sizes.jobs)
        with console.status("Single jobs, one after the other"):
            single = [shop.run(1) for _ in range(sizes.single_jobs)]
        with console.status(f"Nothing for {sizes.idle_seconds:.0f} s"):
            idle_bytes = shop.rest(sizes.idle_seconds)
    with console.status("The floor"):
        floor_s = _floor(servers, ten_lines)
    return _table(sizes.jobs, burst, single, floor_s, idle_bytes * 86400 / sizes.idle_seconds)


def _table(
    jobs: int, burst: _Burst, single: Sequence[_Burst], floor_s: float, idle_bytes_per_day: float
) -> Table:
    title = f"Jobs of ten lines, POST to delivered, {_ANNOTATORS} annotators at work"
    table = Table(title=title, title_justify="left")
    columns = (
        "what",
        "s",
        "jobs/s",
        "÷ floor",
        "flow runs",
        "processes at once",
        "kB in Prefect a job",
        "goal",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "what" else "right")
    rate = jobs / burst.seconds
    table.add_row(
        f"{jobs:,} at once",
        f"{burst.seconds:.1f}",
        f"{rate:.2f}",
        f"{burst.seconds / jobs / floor_s:.1f}",
        str(burst.flow_runs),
        str(burst.processes_max),
        f"{burst.prefect_bytes / jobs / _KB:.0f}",
        f"≥ {GOAL_JOBS_PER_S:.1f} jobs/s, ≤ {GOAL_KB} kB",
    )
    one_s = statistics.median(each.seconds for each in single)
    table.add_row(
        f"one alone, median of {len(single)}",
        f"{one_s:.2f}",
        "",
        f"{one_s / floor_s:.0f}",
        f"{statistics.median(each.flow_runs for each in single):.0f}",
        "",
        f"{statistics.mean(each.prefect_bytes for each in single) / _KB:.0f}",
        f"≤ {GOAL_KB} kB",
    )
    what = "floor: GET, COPY, three PUTs, one after the other"
    table.add_row(what, f"{floor_s:.3f}", f"{1 / floor_s:.1f}", "1.0", "", "", "", "")
    per_day = f"{idle_bytes_per_day / 1e6:.1f} MB"
    table.add_row("idle, a day", "", "", "", "", "", per_day, f"≤ {GOAL_IDLE_MB_PER_DAY} MB")
    return table


class _Shop:
    """Act as a customer with jobs of ten lines and as their annotators; look into Prefect's database."""

    def __init__(self, servers: Servers, ten_lines: Manifest, settle_s: float) -> None:
        self._servers = servers
        self._settle_s = settle_s
        self._http = httpx.Client(
            base_url=servers.stack.api_url,
            headers={"Authorization": f"Bearer {ours.new_customer_key(servers.database_url)}"},
            timeout=60,
        )
        self._body = ours.job_body(servers.store, ten_lines) | {
            "consensus_threshold": _ANNOTATORS,
            "delivery": {"type": "s3", "bucket": BUCKET, "prefix": "small"},
        }
        self._stopping = threading.Event()
        self._annotators = [
            threading.Thread(target=self._annotate, args=(key,), daemon=True)
            for key in add_annotators(servers, _ANNOTATORS, "small jobs")
        ]
        self._posted = 0

    def __enter__(self) -> Self:
        for thread in self._annotators:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._annotators:
            thread.join()
        self._http.close()

    def run(self, jobs: int) -> _Burst:
        """Post so many jobs at once, and return when the last of them is delivered."""
        runs, size = self._flow_runs(), self._prefect_bytes()
        begin_s = time.monotonic()
        with ThreadPoolExecutor(_SUBMITTERS) as pool:
            job_ids = list(pool.map(lambda _: self._post(), range(jobs)))
        self._posted += jobs
        processes = 0
        while self._completed(job_ids[0]) < self._posted:
            processes = max(processes, len(self._flow_processes()))
            if time.monotonic() - begin_s > _TIMEOUT_S:
                raise SmallJobsFailed(f"Not completed within {_TIMEOUT_S:.0f} s.")
            time.sleep(_POLL_S if jobs > 1 else 0.02)
        seconds = time.monotonic() - begin_s
        time.sleep(self._settle_s)
        return _Burst(seconds, self._flow_runs() - runs, processes, self._prefect_bytes() - size)

    def rest(self, seconds: float) -> int:
        """Return by how many bytes Prefect's database grows while only annotators ask for tasks."""
        self._prefect("vacuum (analyze)")  # else autovacuum's work for the jobs would be counted
        size = self._prefect_bytes()
        time.sleep(seconds)
        self._prefect("vacuum (analyze)")
        return self._prefect_bytes() - size

    def _post(self) -> str:
        answer = self._http.post("/v1/jobs", json=self._body).raise_for_status()
        return str(answer.json()["job_id"])

    def _completed(self, job_id: str) -> int:
        with self._servers.connect() as connection:
            row = connection.execute(_DONE, [job_id]).fetchone()
        assert row is not None  # an aggregate returns one row
        if row[1]:
            raise SmallJobsFailed(f"{row[1]} jobs failed.")
        return int(row[0])

    def _flow_runs(self) -> int:
        return int(self._prefect("select count(*) from flow_run where start_time is not null"))

    def _prefect_bytes(self) -> int:
        """Return the size of the whole database on the disk."""
        return int(self._prefect("select pg_database_size(current_database())"))

    def _prefect(self, query: str) -> Any:
        url = self._servers.database_url_of(PREFECT_DATABASE)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query)
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _flow_processes(self) -> list[psutil.Process]:
        try:
            return self._servers.flow_processes()
        except psutil.NoSuchProcess:
            return []

    def _annotate(self, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(
            base_url=self._servers.stack.api_url, headers=headers, timeout=60
        ) as http:
            while not self._stopping.is_set():
                claimed = http.post("/v1/annotation/claim", json={"limit": _CLAIM_TASKS})
                tasks = claimed.raise_for_status().json()["tasks"]
                labels = [{"task_id": each["task_id"], "label": OPTIONS[0]} for each in tasks]
                if labels:
                    http.post("/v1/annotation/labels", json={"labels": labels}).raise_for_status()
                else:
                    self._stopping.wait(_POLL_S)


def _floor(servers: Servers, ten_lines: Manifest) -> float:
    """Return the seconds a job of a loop that does the same reads and writes and nothing else."""
    bucket = servers.store.open()
    copy = sql.SQL("copy floor (data_url, metadata) from stdin")
    with servers.connect() as connection:
        connection.execute("create temporary table floor (data_url text, metadata text)")
        begin_s = time.perf_counter()
        for number in range(_FLOOR_JOBS):
            bucket.invalidate_cache()
            rows = [json.loads(line) for line in bucket.cat_file(ten_lines.path).splitlines()]
            with connection.cursor() as cursor, cursor.copy(copy) as rows_in:
                for row in rows:
                    rows_in.write_row((row["data_url"], json.dumps(row["metadata"])))
            results = "".join(json.dumps(row | {"label": OPTIONS[0]}) + "\n" for row in rows)
            for name, content in (("part", results), ("errors", ""), ("manifest", "{}")):
                bucket.pipe_file(f"{BUCKET}/floor/{number}/{name}", content.encode())
        return (time.perf_counter() - begin_s) / _FLOOR_JOBS
