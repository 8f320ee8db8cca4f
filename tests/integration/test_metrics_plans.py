"""What a scrape touches where there are many jobs, chunks and manifests: pages are counted, not seconds."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from blocks.store import counts, passes
from blocks.store.counts import CHUNKS_MAX, STREAMS_MAX
from blocks.store.database import Transaction
from tests.support.plans import Explained
from tests.support.servers import DatabaseServer
from tests.support.store_shop import DELIVERY, Shop, make_chunk, open_shop

pytestmark = pytest.mark.integration

JOBS = 3000
CHUNKS_EACH = 12
STREAMS = 300
MANIFESTS_EACH = 50
# 10,000 chunks, each on a page of its own where it comes to the worst; and two pages of an index for each of 1,000 jobs.
PAGES_FOR_OPEN_TASKS = CHUNKS_MAX + 2000
# The rows of 1,000 jobs in `runs`, two pages of an index and one of the table each; and a few look-ups.
PAGES_FOR_OPEN_WORK = PAGES_FOR_OPEN_TASKS + 3200
# 100 streams, and the latest manifest of each.
PAGES_FOR_STREAMS = 700


@pytest.fixture(scope="module")
def crowded(database_server: DatabaseServer) -> Iterator[Shop]:
    """A shop with many jobs under way, half of them undelivered, chunks of theirs, and streams."""
    with open_shop(database_server) as shop:
        labelled = shop.processing(make_chunk(3))
        undelivered = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
        # An ANALYZE that PostgreSQL begins by itself would change the plans.
        for table in ("jobs", "runs", "chunks", "streams", "stream_manifests"):
            shop.run(f"alter table {table} set (autovacuum_enabled = false)")
        shop.run(
            """
            insert into jobs (job_id, task_key, customer_id, manifest_url, question, options, consensus_threshold,
                              task_type, priority, stop_early, failure_threshold_percent, status, ingested_at,
                              delivery_type, delivery_bucket, delivery_prefix, delivery_format, delivery_status)
            select 'job_' || n, n, customer_id, manifest_url, question, options, consensus_threshold,
                   task_type, priority, stop_early, failure_threshold_percent, status, ingested_at,
                   delivery_type, delivery_bucket, delivery_prefix, delivery_format, delivery_status
            from jobs cross join generate_series(1, %s) n
            where job_no = case n & 1 when 0 then %s else %s end
            """,
            JOBS,
            labelled.job_no,
            undelivered.job_no,
        )
        shop.run(
            "insert into chunks (job_no, chunk_no, lines, tasks, bad_lines) "
            "select job_no, n, 10, 10, 0 from jobs, generate_series(1, %s) n where job_no > %s",
            CHUNKS_EACH,
            undelivered.job_no,
        )
        shop.run(
            "insert into streams (customer_id, stream) "
            "select customer_id, to_char(n, 'FM000') from customers, generate_series(1, %s) n",
            STREAMS,
        )
        shop.run(
            "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no) "
            "select customer_id, stream, 's3://manifests/' || n, '1', %s "
            "from streams, generate_series(1, %s) n",
            labelled.job_no,
            MANIFESTS_EACH,
        )
        yield shop


def explain(shop: Shop, read: Callable[[Transaction], Any]) -> tuple[Any, Explained]:
    with shop.held() as tx:
        explained = Explained(tx)
        return read(cast(Transaction, explained)), explained


def test_open_work_is_read_from_a_bounded_number_of_jobs_and_chunks(crowded: Shop) -> None:
    work, explained = explain(crowded, counts.read_open_work)
    assert JOBS * CHUNKS_EACH > 3 * CHUNKS_MAX
    assert work.tasks == pytest.approx(10 * CHUNKS_MAX, rel=0.01)
    assert work.oldest_s.keys() == {"open", "unread", "undelivered"}
    assert work.oldest_s["undelivered"] is not None
    explained.check(PAGES_FOR_OPEN_WORK)
    read = {node["Relation Name"] for node in explained.nodes() if "Relation Name" in node}
    assert {"jobs", "runs", "chunks"} <= read


def test_the_latest_manifest_of_each_stream_is_found_by_index(crowded: Shop) -> None:
    found, explained = explain(crowded, counts.read_streams)
    assert [each.stream for each in found] == [f"{n:03}" for n in range(1, STREAMS_MAX + 1)]
    explained.check(PAGES_FOR_STREAMS)
    rows = [
        node["Actual Rows"] * node["Actual Loops"]
        for node in explained.nodes()
        if node.get("Relation Name") == "stream_manifests"
    ]
    assert sum(rows) == STREAMS_MAX


def test_the_ends_of_passes_are_two_rows(crowded: Shop) -> None:
    found, explained = explain(crowded, passes.read)
    assert len(found) == 2
    explained.check(5)
