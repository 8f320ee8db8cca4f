"""Measure export and delivery of results, beside their floors and Label Studio's export."""

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import label_studio, row_tasks
from benchmarks.annotation_jobs import OPTIONS, make_job, settle_all
from benchmarks.environments import NotInstalled
from benchmarks.memory import Watch
from benchmarks.servers import BUCKET, REGION, Servers
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks.store import customers
from blocks.store.database import Database

_THRESHOLD = 3
_TIMEOUT_S = 900
_POLL_S = 0.02
_ROWS_MIN = 1_000  # fewer take no memory
_EXPORT_GOAL = 1.6
_DELIVERY_GOAL = 0.9


class ResultsFailed(Exception):
    """The results are not those of the tasks that went in."""


@dataclass
class _Row:
    """Measure one thing: collect the seconds of each round, and to the first byte where it counts."""

    what: str
    rows: int
    run: Callable[[], tuple[float, int, float | None]]
    seconds: list[float] = field(default_factory=list)
    first_byte_s: list[float] = field(default_factory=list)
    size: int = 0

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Return rows a second."""
        return self.rows / self.median_s

    def measure(self) -> None:
        seconds, self.size, first_byte_s = self.run()
        self.seconds.append(seconds)
        if first_byte_s is not None:
            self.first_byte_s.append(first_byte_s)


def measure(
    chosen: Collection[str], stacks: Stacks, sizes: Sizes, console: Console
) -> Iterator[Table]:
    """Yield tables of rates and of memory.

    Raises:
        ResultsFailed: rows are missing.
    """
    tasks, rounds = sizes.lines, sizes.rounds
    with stacks.whole() as servers, contextlib.ExitStack() as stack:
        with console.status(f"Making {tasks:,} settled tasks"):
            shop = _Shop(servers, tasks)
        rows = [
            _Row("export over HTTP", tasks, shop.export),
            _Row("export over HTTP, gzip", tasks, lambda: shop.export("gzip")),
            _Row("floor: COPY of the same lines to a file", tasks, shop.copy_to_file),
            _Row("floor: COPY of the columns alone to a file", tasks, shop.copy_columns),
            _Row("delivery: POST …/deliver until it is done", tasks, shop.deliver),
            _Row("floor: s3fs put_file of the same bytes", tasks, shop.upload),
        ]
        if "label-studio-results" in chosen:
            try:
                folder = servers.stack.data_dir
                client = stack.enter_context(label_studio.running(servers, folder, console))
                peer = _LabelStudio(client, sizes.label_studio_lines)
                rows.append(_Row("Label Studio: export", sizes.label_studio_lines, peer.export))
            except (NotInstalled, label_studio.LabelStudioFailed) as error:
                console.print(f"Label Studio is left out: {error}", markup=False)
        for number in range(1, rounds + 1):
            for row in rows:
                with console.status(f"Round {number} of {rounds}: {row.what}"):
                    row.measure()
                console.print(f"[dim]round {number}: {row.what} {row.seconds[-1]:.2f} s[/]")
        yield _rates(rows, rounds)
        stack.close()  # Label Studio must not slow down the next measurements
        yield _memory(servers, tasks, console)


def _rates(rows: list[_Row], rounds: int) -> Table:
    title = f"Results, medians of {rounds} interleaved rounds, {os.cpu_count()} cores"
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in (
        "rows",
        "MB",
        "s",
        "rows/s",
        "MB/s",
        "first byte, ms",
        "export ÷ it",
        "delivery ÷ it",
        "goal",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    by_name = {row.what.partition(":")[0]: row for row in reversed(rows)}
    export, delivery = by_name["export over HTTP"], by_name["delivery"]
    upload = next(row for row in rows if "put_file" in row.what)
    copy = next(row for row in rows if "same lines" in row.what)
    for row in rows:
        is_other = row not in (export, delivery)
        goals = [f"export ≥ {_EXPORT_GOAL:g}"] if row is copy else []
        goals += [f"delivery ≥ {_DELIVERY_GOAL:g}"] if row is upload else []
        table.add_row(
            row.what,
            f"{row.rows:,}",
            f"{row.size / 1e6:.0f}",
            f"{row.median_s:.2f}",
            f"{row.rate:,.0f}",
            f"{row.size / 1e6 / row.median_s:.0f}",
            f"{statistics.median(row.first_byte_s) * 1000:.0f}" if row.first_byte_s else "",
            f"{export.rate / row.rate:.2f}" if is_other else "",
            f"{delivery.rate / row.rate:.2f}" if is_other else "",
            ", ".join(goals),
        )
    return table


def _memory(servers: Servers, tasks: int, console: Console) -> Table:
    table = Table(title="Peak memory (VmHWM)", title_justify="left")
    for column in ("rows", "API while it exports, MiB", "flow that delivers, MiB"):
        table.add_column(column, justify="right")
    for size in sorted({max(_ROWS_MIN, tasks // 100), max(_ROWS_MIN, tasks // 10), tasks}):
        with console.status(f"Memory: {size:,} rows"):
            shop = _Shop(servers, size)
            with Watch(servers) as exporting:
                shop.export()
            with Watch(servers) as delivering:
                shop.deliver()
        mib = 1024 * 1024
        table.add_row(
            f"{size:,}", f"{exporting.api_bytes / mib:.0f}", f"{delivering.flow_bytes / mib:.0f}"
        )
    return table


class _Shop:
    """Make a completed job with that many settled tasks, and act as its customer."""

    def __init__(self, servers: Servers, tasks: int) -> None:
        self._servers = servers
        self._tasks = tasks
        self._job = make_job(servers, tasks, _THRESHOLD)
        settle_all(servers, self._job)
        row_tasks.make(servers, self._job.job_no)
        self._deliveries = 0
        self._lines = servers.stack.data_dir / "results.jsonl"
        with (
            Database(servers.database_url, connections_max=1) as database,
            database.transaction() as tx,
        ):
            key = customers.add_customer_key(tx, self._job.customer_id)
        self._http = httpx.Client(
            base_url=f"{servers.stack.api_url}/v1/jobs/{self._job.job_id}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_S,
        )

    def export(self, encoding: str = "identity") -> tuple[float, int, float | None]:
        """Export to nowhere; return the seconds, the bytes, and the seconds to the first byte."""
        size = lines = 0
        first_byte_s = None
        begin_s = time.perf_counter()
        with self._http.stream("GET", "/export", headers={"Accept-Encoding": encoding}) as answer:
            answer.raise_for_status()
            for block in answer.iter_raw():
                first_byte_s = first_byte_s or time.perf_counter() - begin_s
                size += len(block)
                lines += block.count(b"\n")
        seconds = time.perf_counter() - begin_s
        if encoding == "identity" and lines != self._tasks:
            raise ResultsFailed(f"{lines} lines of {self._tasks}")
        return seconds, size, first_byte_s

    def copy_to_file(self) -> tuple[float, int, float | None]:
        """Have PostgreSQL compose the same lines from a row for each task, to a file on its disk."""
        values = {"job_no": self._job.job_no, "after": 0}
        with self._servers.connect() as connection:
            for setting in ("nestloop", "hashjoin", "sort"):  # else it would sort the lines
                connection.execute(f"set enable_{setting} = off")
            return self._copy(connection, row_tasks.build_export(len(OPTIONS)), values)

    def copy_columns(self) -> tuple[float, int, float | None]:
        """Copy the columns of the lines without making JSON: no export could be faster."""
        statement = """
            copy (
                select task_no, t.data_url, t.metadata, y.outcome, y.votes, y.labelled_at
                from task_rows t join tallies y using (job_no, task_no)
                where job_no = %(job_no)s and y.outcome > 0 order by task_no
            ) to stdout (format csv)
        """
        with self._servers.connect() as connection:
            return self._copy(connection, statement, {"job_no": self._job.job_no})

    def deliver(self) -> tuple[float, int, float | None]:
        """Ask for a delivery as a customer does, and wait until its flow's last commit."""
        self._deliveries += 1
        prefix = f"out-{self._deliveries}"
        store = self._servers.store
        body = {
            "delivery": {"type": "s3", "bucket": BUCKET, "prefix": prefix},
            "credentials": {
                "access_key_id": store.access_key_id,
                "secret_access_key": store.secret_access_key,
                "region": REGION,
                "endpoint_url": store.endpoint_url,
            },
        }
        bucket = store.open()
        with contextlib.suppress(FileExistsError):
            bucket.mkdir(BUCKET)
        with self._servers.connect() as connection:
            # Only a failed delivery may be repeated.
            connection.execute(
                "update jobs set delivery_status = 'failed' where job_no = %s", [self._job.job_no]
            )
            begin_s = time.time()
            self._http.post("/deliver", json=body).raise_for_status()
            seconds = self._wait_delivered(connection) - begin_s
        folder = f"{BUCKET}/{prefix}/{self._job.job_id}"
        manifest = json.loads(bucket.cat_file(f"{folder}/manifest.json"))
        if sum(each["rows"] for each in manifest["objects"]) != self._tasks:
            raise ResultsFailed(f"{manifest}")
        size = sum(each["bytes"] for each in manifest["objects"])
        bucket.rm(folder, recursive=True)
        return seconds, size, None

    def _wait_delivered(self, connection: psycopg.Connection[tuple[object, ...]]) -> float:
        query = (
            "select delivery_status, delivery_error_message, extract(epoch from delivered_at)::float8 "
            "from jobs where job_no = %s"
        )
        while True:
            row = connection.execute(query, [self._job.job_no]).fetchone()
            assert row is not None  # it is there
            status, message, at = row
            if status == "delivered":
                return float(str(at))
            if status == "failed":
                raise ResultsFailed(str(message))
            time.sleep(_POLL_S)

    def upload(self) -> tuple[float, int, float | None]:
        """Upload the file that COPY wrote, by s3fs with its defaults: ten parts of 50 MiB at once."""
        bucket = self._servers.store.open()
        begin_s = time.perf_counter()
        bucket.put_file(str(self._lines), f"{BUCKET}/floor.jsonl")
        seconds = time.perf_counter() - begin_s
        size = self._lines.stat().st_size
        bucket.rm(f"{BUCKET}/floor.jsonl")
        return seconds, size, None

    def _copy(
        self, connection: psycopg.Connection[Any], statement: str, values: dict[str, int]
    ) -> tuple[float, int, float | None]:
        row = connection.execute("select current_setting('data_directory')").fetchone()
        assert row is not None  # a setting always has a value
        folder = next(iter(row.values())) if isinstance(row, dict) else row[0]
        path = Path(folder) / "floor.csv"
        query = statement.replace("to stdout", f"to '{path}'")
        begin_s = time.perf_counter()
        copied = psycopg.ClientCursor(connection).execute(query, values).rowcount
        seconds = time.perf_counter() - begin_s
        if copied != self._tasks:
            raise ResultsFailed(f"{copied} rows of {self._tasks}")
        size = path.stat().st_size
        path.replace(self._lines) if "csv, delimiter" in query else path.unlink()
        return seconds, size, None


class _LabelStudio:
    """Make a project in Label Studio with tasks of three annotations each, and export it."""

    def __init__(self, client: httpx.Client, tasks: int) -> None:
        self._client = client
        self._tasks = tasks
        self._project = label_studio.make_project(client)
        choice = {
            "from_name": "choice",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [OPTIONS[0]]},
        }
        url = "https://images.example.com/batch-7/{:08d}.jpg"
        annotations = [{"result": [choice]}] * _THRESHOLD
        body = [
            {"data": {"data_url": url.format(n)}, "annotations": annotations} for n in range(tasks)
        ]
        client.post(f"/api/projects/{self._project}/import", json=body).raise_for_status()

    def export(self) -> tuple[float, int, float | None]:
        begin_s = time.perf_counter()
        path = f"/api/projects/{self._project}/export"
        answer = self._client.get(path, params={"exportType": "JSON"}).raise_for_status()
        seconds = time.perf_counter() - begin_s
        found = len(answer.json())
        if found != self._tasks:
            raise ResultsFailed(f"Label Studio exported {found} tasks of {self._tasks}.")
        return seconds, len(answer.content), None
