"""What lists of jobs, customers and work touch where there are many: pages are counted, not seconds."""

from collections.abc import Iterator
from typing import cast

import pytest

from blocks.domain.model import JobStatus
from blocks.store import customers, job_lists, loads, operations
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from tests.support.plans import Explained
from tests.support.servers import DatabaseServer
from tests.support.store_shop import Shop, open_shop

pytestmark = pytest.mark.integration

MANY = 20_000


@pytest.fixture(scope="module")
def crowded(database_server: DatabaseServer) -> Iterator[tuple[Shop, Job]]:
    """Many jobs like the first one, and work of theirs for Prefect; half are accepted, half completed.

    Half are of its customer, and half of one each.
    """
    with open_shop(database_server) as shop:
        job = shop.submit()
        # An ANALYZE that PostgreSQL begins by itself would change the plans.
        shop.run("alter table jobs set (autovacuum_enabled = false)")
        shop.run("alter table runs set (autovacuum_enabled = false)")
        shop.run(
            "insert into customers (customer_id, name) "
            "select 'cust_' || n, n from generate_series(1, %s) n",
            MANY // 2,
        )
        shop.run(
            """
            insert into jobs (job_id, task_key, customer_id, manifest_url, question, options, consensus_threshold,
                              task_type, priority, stop_early, failure_threshold_percent, status)
            select 'job_' || n, n, case when n > %s then customer_id else 'cust_' || n end, manifest_url, question, options, consensus_threshold,
                   task_type, priority, stop_early, failure_threshold_percent,
                   case n & 1 when 0 then 'accepted' else 'completed' end
            from jobs cross join generate_series(1, %s) n where job_no = %s
            """,
            MANY // 2,
            MANY,
            job.job_no,
        )
        yield shop, job


def test_a_look_reads_little_where_there_are_many_jobs(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    with shop.held() as tx:
        explained = Explained(tx)
        found = job_lists.list_followed(
            cast(Transaction, explained), [shop.customer_id], [job.job_no], limit=100
        )
        searched = job_lists.search(
            cast(Transaction, explained), shop.customer_id, "nowhere", limit=20
        )
    assert len(found) == 101
    assert searched is not None
    assert not searched.jobs
    explained.check(1000)  # the newest, and not all of several thousands


def test_jobs_of_a_stream_are_looked_up_one_by_one(crowded: tuple[Shop, Job]) -> None:
    shop, _ = crowded
    with shop.held() as tx:
        tx.execute(
            "insert into streams (customer_id, stream) values (%s, 'daily')", [shop.customer_id]
        )
        tx.execute(
            "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no) "
            "select customer_id, 'daily', job_id, '1', job_no from jobs where customer_id = %s",
            [shop.customer_id],
        )
        for stream, jobs in (("daily", 20), ("weekly", 0)):
            explained = Explained(tx)
            found = job_lists.search(
                cast(Transaction, explained), shop.customer_id, None, stream=stream, limit=20
            )
            assert found is not None
            assert len(found.jobs) == jobs
            explained.check(5000)  # 1,000 jobs, each by an index
        tx.rollback()


@pytest.mark.parametrize("is_operator", [True, False])
def test_jobs_of_a_rare_status_are_found_without_a_look_at_the_others(
    crowded: tuple[Shop, Job], is_operator: bool
) -> None:
    shop, job = crowded
    with shop.given_up() as tx:
        tx.execute("update jobs set status = 'failed' where job_no = %s", [job.job_no])
        explained = Explained(tx)
        found = job_lists.list_page(
            cast(Transaction, explained),
            None if is_operator else shop.customer_id,
            limit=20,
            status=JobStatus.FAILED,
        )
    assert found is not None
    assert [each.job_id for each in found.jobs] == [job.job_id]
    explained.check(30)


def test_work_in_trouble_is_found_without_a_look_at_what_waits(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    assert shop.value("select count(*) from runs") > MANY / 3
    with shop.given_up() as tx:
        tx.execute("update runs set tries = 1 where job_no = %s", [job.job_no + MANY])
        tx.execute("update runs set launched_at = now() where job_no = %s", [job.job_no])
        explained = Explained(tx)
        found = operations.list_runs(cast(Transaction, explained))
    assert [run.tries for run in found] == [0, 1]
    explained.check(30)


def test_lists_for_operators_read_a_page_however_much_there_is(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    with shop.held() as tx:
        for read, pages_max in (
            (lambda t: loads.list_customers(t, after="", limit=20), 600),
            (lambda t: loads.list_customers(t, after=job.customer_id[:-1], limit=1), 2500),
            (lambda t: loads.list_streams(t, None, after=("", ""), limit=20), 50),
            (lambda t: loads.list_work(t, None, None, after=0, limit=20), 500),
            (lambda t: loads.list_work(t, None, loads.WorkStatus.STOPPED, after=0, limit=20), 500),
        ):
            explained = Explained(tx)
            read(cast(Transaction, explained))
            explained.check(pages_max)


def test_the_keys_of_all_customers_are_counted_in_one_pass(shop: Shop) -> None:
    shop.run(
        "insert into customers (customer_id, name) select 'cust_' || n, n from generate_series(1, 500) n"
    )
    shop.run(
        "insert into api_keys (key_hash, customer_id, revoked_at) "
        "select int4send(n), 'cust_' || 1 + n / 4, case when n & 3 = 0 then now() end "
        "from generate_series(0, 1999) n"
    )
    with shop.held() as tx:
        explained = Explained(tx)
        found = customers.list_customers(cast(Transaction, explained))
    assert {each.keys for each in found if each.customer_id != shop.customer_id} == {3}
    assert [each.keys for each in found if each.customer_id == shop.customer_id] == [0]
    keys = [n for n in explained.nodes() if n.get("Relation Name") == "api_keys"]
    assert [node["Actual Loops"] for node in keys] == [1]
