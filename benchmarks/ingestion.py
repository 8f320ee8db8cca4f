"""From POST /v1/jobs to the last task committed, against PostgreSQL's own COPY of the same rows."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import psycopg
import s3fs
from rich.console import Console
from rich.table import Table

from blocks.store import customers
from blocks.store.database import Database
from deployments.stack import Stack

LINES = 200_000
ROUNDS = 3
POLL_S = 0.1


def measure(console: Console) -> None:
    """Alternate the two for `ROUNDS` rounds on the embedded stack, and print medians."""
    with tempfile.TemporaryDirectory(prefix="refinery-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        stack = Stack(folder, object_store=True, environment={"REFINERY_EGRESS_ALLOW": "127.0.0.1"})
        try:
            stack.start(lambda step: console.print(f"[dim]{step}[/]"))
            put_manifest(stack)
            ours, flows, floors = [], [], []
            for _ in range(ROUNDS):
                whole_s, flow_s = ingest(stack)
                ours.append(whole_s)
                flows.append(flow_s)
                floors.append(copy_rows(stack))
        finally:
            stack.stop()
    show(console, ours, flows, floors)


def put_manifest(stack: Stack) -> None:
    """Lines of about 130 bytes, one in a hundred of them bad."""
    assert stack.object_store is not None
    lines = []
    for n in range(LINES):
        line = {
            "data_url": f"https://images.example.com/batch-7/{n:08d}.jpg",
            "metadata": {"sku": f"A-{n:08d}", "shelf": n % 40, "tags": ["new", "blue"]},
        }
        lines.append(json.dumps(line) if n % 100 else '{"data_url": "nowhere"}')
    store = stack.object_store
    bucket = s3fs.S3FileSystem(
        key=store.access_key_id,
        secret=store.secret_access_key,
        endpoint_url=store.endpoint_url,
    )
    bucket.mkdir("bench")
    bucket.pipe_file("bench/manifest.jsonl", "\n".join(lines).encode())


def ingest(stack: Stack) -> tuple[float, float]:
    """Seconds from the POST, and from the flow's first line, to the last commit."""
    assert stack.object_store is not None
    with Database(stack.database_url, connections_max=1) as database, database.transaction() as tx:
        key = customers.add_customer_key(tx, customers.add_customer(tx, "Bench"))
    body = {
        "manifest_url": "s3://bench/manifest.jsonl",
        "label_spec": {"question": "What is it?", "options": ["cat", "dog"]},
        "credentials": {
            "access_key_id": stack.object_store.access_key_id,
            "secret_access_key": stack.object_store.secret_access_key,
            "region": "us-east-1",
            "endpoint_url": stack.object_store.endpoint_url,
        },
    }
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{stack.api_url}/v1/jobs", json=body, headers=headers).raise_for_status()
    query = (
        "select extract(epoch from ingested_at - created_at)::float8, "
        "extract(epoch from ingested_at - started_at)::float8 from jobs where job_id = %s"
    )
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        while True:
            row = connection.execute(query, [answer.json()["job_id"]]).fetchone()
            if row and row[0] is not None:
                return row[0], row[1]
            time.sleep(POLL_S)


def copy_rows(stack: Stack) -> float:
    """Seconds that the server needs to COPY one job's tasks from its own disk into a like table."""
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("drop table if exists floor")
        connection.execute("create table floor (like tasks including all)")
        row = connection.execute("show data_directory").fetchone()
        assert row is not None
        path = f"{row[0]}/floor.bin"
        one_job = "(select * from tasks where job_no = (select max(job_no) from jobs))"
        connection.execute(f"copy {one_job} to '{path}' (format binary)")
        begin = time.perf_counter()
        connection.execute(f"copy floor from '{path}' (format binary)")
        return time.perf_counter() - begin


def show(console: Console, ours: list[float], flows: list[float], floors: list[float]) -> None:
    table = Table(title=f"Ingestion of {LINES:,} lines, medians of {ROUNDS} alternating rounds")
    for column in ("what", "s", "lines/s", "times the floor"):
        table.add_column(column, justify="left" if column == "what" else "right")
    floor_s = statistics.median(floors)
    for what, seconds in (
        ("POST to the last task committed", ours),
        ("the flow alone, without the start of its process", flows),
        ("floor: COPY of the same rows by the server", floors),
    ):
        median_s = statistics.median(seconds)
        table.add_row(
            what, f"{median_s:.2f}", f"{LINES / median_s:,.0f}", f"{median_s / floor_s:.1f}"
        )
    console.print(table)
