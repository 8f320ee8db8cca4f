"""Measure Refinery itself, from POST /v1/jobs to the last task committed."""

import time
from dataclasses import dataclass

import httpx
from psycopg.rows import class_row

from benchmarks.contender import OURS, Contender
from benchmarks.manifest import Manifest
from benchmarks.servers import REGION, Servers, Store
from blocks.store import customers
from blocks.store.database import Database

_POLL_S = 0.1
_STATE = """
select status, error_message, total_tasks,
       extract(epoch from started_at)::float8 as started_s,
       extract(epoch from ingested_at)::float8 as ingested_s
from jobs
left join lateral (
    select coalesce(sum(tasks), 0)::bigint as total_tasks
    from chunks where chunks.job_no = jobs.job_no
) as counted on true
where job_id = %s
"""


class IngestionFailed(Exception):
    """The job failed, or has not as many tasks as its manifest has good lines."""


@dataclass(frozen=True)
class Ingestion:
    """Give the seconds from the POST, and from the flow's first line, to the last commit."""

    whole_s: float
    flow_s: float


@dataclass(frozen=True)
class _State:
    status: str
    error_message: str | None
    total_tasks: int
    started_s: float | None
    ingested_s: float | None


def contender(servers: Servers, manifest: Manifest) -> Contender:
    def measure() -> dict[str, float]:
        ingestion = ingest(servers, manifest)
        return {
            "ours: POST /v1/jobs to the last task committed": ingestion.whole_s,
            "ours: the flow alone, its process having started": ingestion.flow_s,
        }

    settings = "as shipped; bad lines are recorded too; tasks on pages of 256"
    return Contender(OURS, settings, manifest.good_lines, measure)


def ingest(servers: Servers, manifest: Manifest) -> Ingestion:
    """Submit a job as a customer would, and wait until its last line is committed.

    The end is PostgreSQL's time and the beginning ours; both are of the same clock.
    """
    headers = {"Authorization": f"Bearer {new_customer_key(servers.database_url)}"}
    begin_s = time.time()
    answer = httpx.post(
        f"{servers.stack.api_url}/v1/jobs",
        json=job_body(servers.store, manifest),
        headers=headers,
    )
    job_id = answer.raise_for_status().json()["job_id"]
    with servers.connect() as connection:
        cursor = connection.cursor(row_factory=class_row(_State))
        while True:
            state = cursor.execute(_STATE, [job_id]).fetchone()
            assert state is not None  # it was accepted
            if state.status == "failed":
                raise IngestionFailed(state.error_message)
            if state.ingested_s is not None and state.started_s is not None:
                break
            time.sleep(_POLL_S)
    if state.total_tasks != manifest.good_lines:
        raise IngestionFailed(f"{state.total_tasks} tasks of {manifest.good_lines} good lines")
    return Ingestion(state.ingested_s - begin_s, state.ingested_s - state.started_s)


def new_customer_key(database_url: str) -> str:
    """Return the key of a new customer."""
    with (
        Database(database_url, connections_max=1) as database,
        database.transaction() as tx,
    ):
        return customers.add_customer_key(tx, customers.add_customer(tx, "Bench"))


def job_body(store: Store, manifest: Manifest) -> dict[str, object]:
    """Return the body of POST /v1/jobs."""
    return {
        "manifest_url": manifest.url,
        "label_spec": {"question": "What is it?", "options": ["cat", "dog"]},
        "credentials": {
            "access_key_id": store.access_key_id,
            "secret_access_key": store.secret_access_key,
            "region": REGION,
            "endpoint_url": store.endpoint_url,
        },
    }
