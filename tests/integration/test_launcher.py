"""What the API asks of Prefect, and when: whose turn it is, and what must not be lost."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import cast
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from litestar.testing import TestClient

from api.background.launcher import Launcher
from api.metrics import Metrics
from blocks.prefect import reconciler
from blocks.prefect.api import PrefectApi
from blocks.prefect.reconciler import Reconciled
from blocks.settings import Settings
from blocks.store import customers, jobs, outbox, runs, waits
from blocks.store.database import Transaction
from blocks.store.jobs import Idempotency
from deployments.embedded.ports import free_port
from tests.support.api_world import CANARY, CREDENTIALS, JOB_BODY, Api, make_app
from tests.support.blockades import stopped_postgresql
from tests.support.fake_prefect import FakePrefect
from tests.support.plans import Explained
from tests.support.servers import KEY
from tests.support.side import Side, at_once, wait_until
from tests.support.store_shop import DELIVERY, Shop, make_chunk, take

pytestmark = pytest.mark.integration

reconcile = partial(reconciler.reconcile, settings=Settings(database_url="", encryption_key=KEY))

# The last three are of a proxy that has something of its own to say.
OUT_ANSWERS = [(503, {}), (200, {}), (200, ["welcome"]), (200, None)]

UNDONE = """
    select (select count(*) from outbox)
         + (select count(*) from runs where launched_at is null or flow_run_id is null)
"""


@pytest.fixture
def with_prefect(
    settings: Settings, shop: Shop, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Api]:
    monkeypatch.setattr("api.background.listener._POLL_S", 0.1)
    settings = msgspec.structs.replace(
        settings, prefect_api_url=prefect.url, prefect_api_auth_string="admin:pass:word"
    )
    with TestClient(make_app(settings)) as client:
        yield Api(client, shop)


def wait_empty(shop: Shop) -> None:
    """Until everything is said, and asked for."""
    gone = threading.Event()
    for _ in range(500):
        if shop.value(UNDONE) == 0:
            return
        gone.wait(0.01)
    raise AssertionError("the outbox does not empty")


def test_a_posted_job_is_started_by_the_name_of_its_deployment(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    response = with_prefect.submit(JOB_BODY | {"credentials": CREDENTIALS})
    job_id = response.json()["job_id"]
    run = prefect.run()
    assert run["deployment"] == "id-process"
    assert run["parameters"] == {"job_id": job_id}
    assert job_id in run["idempotency_key"]
    assert job_id in run["tags"]
    assert run["authorization"] == "Basic YWRtaW46cGFzczp3b3Jk"
    assert CANARY not in json.dumps(run)
    wait_empty(with_prefect.shop)
    assert prefect.runs.empty()


def test_a_run_continues_the_trace_of_its_job_also_where_the_launcher_has_none(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with_prefect.shop.submit(traceparent=traceparent)
    assert prefect.run()["labels"] == {"__OTEL_TRACEPARENT": traceparent}
    with_prefect.shop.submit()
    assert "labels" not in prefect.run()


def test_a_settled_job_has_its_delivery_started(with_prefect: Api, prefect: FakePrefect) -> None:
    job = with_prefect.shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    while (run := prefect.run())["deployment"] != "id-deliver":
        pass  # its manifest was read before its run had begun, or after
    assert run["parameters"] == {"job_id": job.job_id}


def test_the_runs_of_a_cancelled_job_are_stopped(with_prefect: Api, prefect: FakePrefect) -> None:
    job_id = with_prefect.submit().json()["job_id"]
    prefect.run()
    prefect.under_way = {"ours": job_id, "another": "job_x"}
    assert with_prefect.post(f"/v1/jobs/{job_id}/cancel", None).status_code == 202
    assert prefect.states.get(timeout=15) == ("ours", "CANCELLING")
    wait_empty(with_prefect.shop)
    assert prefect.states.empty()


def test_jobs_that_no_run_was_asked_for_are_cancelled_without_prefect(
    shop: Shop,
) -> None:
    """One request to Prefect for each would hold up the runs of everybody else."""
    job = shop.submit()
    with shop.database.transaction() as tx:
        assert jobs.cancel(tx, job.job_no)
        assert not jobs.cancel(tx, job.job_no)
    assert shop.outbox(job).count("cancel_job") == 0


def test_what_is_said_to_prefect_holds_up_no_run(
    settings: Settings, shop: Shop, prefect: FakePrefect
) -> None:
    settings = msgspec.structs.replace(settings, prefect_api_url=prefect.url)
    for job in [shop.submit() for _ in range(12)]:
        with shop.database.transaction() as tx:
            jobs.cancel(tx, job.job_no)
    launcher = Launcher(settings, shop.database, Metrics())
    said = []
    while launcher._take_turn():
        said.append(prefect.pages.qsize())
    assert said == [4, 8, 12]


def test_what_was_cancelled_while_prefect_was_out_is_not_started_any_more(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    prefect.out.set()
    job_id = with_prefect.submit().json()["job_id"]
    prefect.refusals.get(timeout=15)
    assert with_prefect.post(f"/v1/jobs/{job_id}/cancel", None).status_code == 202
    prefect.out.clear()
    wait_empty(with_prefect.shop)
    assert prefect.runs.empty()


def test_nothing_is_started_before_the_commit(with_prefect: Api, prefect: FakePrefect) -> None:
    shop = with_prefect.shop
    with shop.held() as tx:
        job_id, _ = jobs.submit(tx, shop.new_job(), shop.vault)
        with_prefect.submit()
        assert prefect.run()["parameters"] != {"job_id": job_id}
        assert prefect.runs.empty()
    assert prefect.run()["parameters"] == {"job_id": job_id}


@pytest.mark.parametrize("answer", OUT_ANSWERS)
def test_a_job_waits_while_prefect_is_out_and_starts_when_it_is_back(
    with_prefect: Api, prefect: FakePrefect, answer: tuple[int, object]
) -> None:
    prefect.out_answer = answer
    prefect.out.set()
    response = with_prefect.submit()
    assert response.status_code == 202
    prefect.refusals.get(timeout=15)
    prefect.refusals.get(timeout=15)
    assert with_prefect.get(response.headers["location"]).json()["status"] == "accepted"
    prefect.out.clear()
    run = prefect.run()
    assert run["parameters"] == {"job_id": response.json()["job_id"]}
    wait_empty(with_prefect.shop)


def test_a_job_waits_for_a_deployment_that_is_not_there_yet(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    there = prefect.deployments.copy()
    prefect.deployments.clear()
    job_id = with_prefect.submit().json()["job_id"]
    prefect.refusals.get(timeout=15)
    prefect.deployments.update(there)
    assert prefect.run()["parameters"] == {"job_id": job_id}


@pytest.mark.parametrize("is_there", [False, True])
def test_what_waits_for_prefect_goes_on_within_seconds_of_its_coming(
    settings: Settings, shop: Shop, prefect: FakePrefect, is_there: bool
) -> None:
    """However long it was away; and one is asked for meanwhile, not all that wait."""
    prefect.deployments.clear()
    url = prefect.url if is_there else f"http://127.0.0.1:{free_port()}/api"
    settings = msgspec.structs.replace(settings, prefect_api_url=url)
    for _ in range(3):
        shop.submit()
    shop.run("update runs set failures = 9")
    launcher = Launcher(settings, shop.database, Metrics())
    launcher._take_turn()
    assert shop.value("select count(*) from runs where failures > 9") == 1
    assert shop.value("select count(*) from runs where not_before < now() + interval '2 s'") == 3


def test_a_deployment_that_was_made_again_is_found_again(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    with_prefect.submit()
    assert prefect.run()["deployment"] == "id-process"
    prefect.deployments["process-job/process-job"] = "id-new"
    with_prefect.submit()
    assert prefect.run()["deployment"] == "id-new"


def test_a_run_that_is_asked_for_again_is_one_run(with_prefect: Api, prefect: FakePrefect) -> None:
    shop = with_prefect.shop
    with_prefect.submit()
    first = prefect.run()
    wait_empty(shop)
    # As after a kill before Prefect's answer was noted: the launch is given back, and taken again.
    shop.run("update runs set launched_at = null, launches = launches - 1")
    shop.do(outbox.wake)
    assert prefect.run()["idempotency_key"] == first["idempotency_key"]
    wait_empty(shop)
    assert len(prefect.made) == 1


def launched_and_lost(api: Api, prefect: FakePrefect) -> str:
    """Be as when the database went away before a launcher could note Prefect's answer.

    Returns the key that the run was asked for with.
    """
    api.submit()
    key: str = prefect.run()["idempotency_key"]
    wait_empty(api.shop)
    api.shop.run("update runs set flow_run_id = null, launched_at = now()")
    return key


def test_a_launcher_that_lost_the_database_asks_at_once_for_what_it_does_not_know(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    key, shop = launched_and_lost(with_prefect, prefect), with_prefect.shop
    shop.run(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and query ilike 'listen%%outbox%%'"
    )
    assert prefect.run()["idempotency_key"] == key
    wait_empty(shop)
    assert len(prefect.made) == 1
    assert shop.value("select launches from runs") == 1


def test_a_launcher_goes_on_when_its_database_has_hung(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    with_prefect.submit()
    prefect.run()
    with stopped_postgresql(with_prefect.shop):
        asked = Side(with_prefect.submit)
        assert not asked.wait(0.5)  # so that the launcher has looked as well
    job_id = asked.join().json()["job_id"]
    assert prefect.run()["parameters"] == {"job_id": job_id}
    wait_empty(with_prefect.shop)


def test_what_another_launcher_has_asked_for_and_died_is_asked_for_soon(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    key, shop = launched_and_lost(with_prefect, prefect), with_prefect.shop
    shop.run("update runs set launched_at = now() - interval '16 seconds'")
    assert prefect.run()["idempotency_key"] == key
    wait_empty(shop)


def test_a_prefect_that_is_away_is_asked_for_one_thing_and_not_for_all_that_waits(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    cancel_runs = PrefectApi.cancel_runs

    def noted(prefect: PrefectApi, tag: str) -> list[str]:
        asked.append(tag)
        return cancel_runs(prefect, tag)

    monkeypatch.setattr(PrefectApi, "cancel_runs", noted)
    shop = api.shop
    made = [shop.submit() for _ in range(5)]
    # Under way: what was never asked for need not be cancelled, and a launcher must not give it back.
    shop.run("update runs set launched_at = now(), launches = 1, flow_run_id = gen_random_uuid()")
    with shop.held() as tx:  # so that one pass finds all of them
        for job in made:
            jobs.cancel(tx, job.job_no)
    wait_until(
        lambda: shop.value("select count(*) from outbox where event is null and tries > 0") == 5
    )
    assert len(asked) < shop.value("select sum(tries) from outbox where event is null")


def test_two_processes_start_each_job_once(
    settings: Settings, shop: Shop, prefect: FakePrefect
) -> None:
    settings = msgspec.structs.replace(
        settings, prefect_api_url=prefect.url, runs_max=20, runs_per_customer_max=20
    )
    with TestClient(make_app(settings)) as one, TestClient(make_app(settings)) as two:
        apis = [Api(one, shop), Api(two, shop)]
        made = {apis[n % 2].submit().json()["job_id"] for n in range(20)}
        started = [prefect.run()["parameters"]["job_id"] for _ in made]
        wait_empty(shop)
    assert sorted(started) == sorted(made)
    assert prefect.runs.empty()


def test_an_entry_that_prefect_refuses_holds_nobody_up(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    shop = with_prefect.shop
    del prefect.deployments["deliver-job/deliver-job"]
    shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    prefect.refusals.get(timeout=15)
    job_id = with_prefect.submit().json()["job_id"]
    while prefect.run()["parameters"] != {"job_id": job_id}:
        pass


# Whose turn it is


def test_customers_take_turns_however_many_jobs_one_of_them_has(shop: Shop) -> None:
    for _ in range(20):
        shop.submit()
    other = shop.do(customers.add_customer, "Another")
    last = [shop.submit(customer_id=other).job_id for _ in range(2)]
    order = [launch.job_id for _ in range(6) if (launch := take(shop))]
    assert [order.index(job_id) for job_id in last] == [1, 3]


def test_a_customer_has_no_more_under_way_than_the_settings_allow(shop: Shop) -> None:
    for _ in range(5):
        shop.submit()
    other = shop.do(customers.add_customer, "Another")
    shop.submit(customer_id=other)
    taken = [take(shop, per_customer_max=2) for _ in range(4)]
    assert [launch and launch.customer_id for launch in taken] == [
        shop.customer_id, other, shop.customer_id, None,
    ]  # fmt: skip
    assert take(shop, runs_max=3) is None
    assert take(shop, runs_max=4) is not None


def test_work_that_has_failed_holds_no_place_that_other_work_could_have(shop: Shop) -> None:
    failed = {shop.submit().job_id for _ in range(10)}
    shop.run("update runs set failing_since = now() - interval '1 minute'")
    others = [shop.submit().job_id for _ in range(5)]
    taken = [launch.job_id for _ in range(10) if (launch := take(shop, per_customer_max=4))]
    assert taken[:4] == others[:4]
    assert len(taken) == 6
    assert set(taken[4:]) < failed
    shop.run(
        "delete from runs where run_no in (select min(run_no) from runs where launched_at is not null)"
    )
    again = take(shop, per_customer_max=4)
    assert again is not None
    assert again.job_id in failed


def test_work_that_fails_in_its_first_run_keeps_the_place_until_that_ends(shop: Shop) -> None:
    for _ in range(3):
        shop.submit()
    assert take(shop, per_customer_max=1) is not None
    shop.run("update runs set failing_since = now() where launched_at is not null")
    assert take(shop, per_customer_max=1) is None


def test_a_run_whose_work_is_done_makes_room(shop: Shop) -> None:
    job, _ = shop.submit(), shop.submit()
    assert take(shop, runs_max=1) is not None
    assert take(shop, runs_max=1) is None
    shop.do(jobs.fail, job.job_no, "refused", "No.")
    assert take(shop, runs_max=1) is not None


def test_of_one_customer_the_urgent_job_comes_first(shop: Shop) -> None:
    shop.submit()
    urgent = shop.submit(priority=9)
    launch = take(shop)
    assert launch is not None
    assert launch.job_id == urgent.job_id


def test_of_one_priority_a_delivery_comes_before_the_manifests_that_wait(shop: Shop) -> None:
    settled = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    manifests = [shop.submit().job_id for _ in range(3)]
    shop.run("update runs set run_no = default where kind = 'deliver_job'")  # the youngest row
    urgent = shop.submit(priority=9)
    order = [launch.job_id for _ in range(5) if (launch := take(shop))]
    assert order == [urgent.job_id, settled.job_id, *manifests]


def test_launchers_that_take_at_once_keep_to_the_bound(shop: Shop) -> None:
    for _ in range(10):
        shop.submit()
    taken = at_once(*[lambda: take(shop, runs_max=3)] * 6)
    assert len([launch for launch in taken if launch]) == 3


def test_the_next_is_found_among_twenty_thousand_of_one_customer(shop: Shop) -> None:
    job = shop.submit()
    # An ANALYZE that PostgreSQL begins by itself holds a snapshot, beside which a vacuum removes nothing.
    for table in ("jobs", "runs", "outbox", "counts"):
        shop.run(f"alter table {table} set (autovacuum_enabled = false)")
    shop.run(
        """
        insert into jobs (job_id, task_key, customer_id, manifest_url, question, options, consensus_threshold,
                          task_type, priority, stop_early, failure_threshold_percent)
        select 'job_' || n, n, customer_id, manifest_url, question, options, consensus_threshold,
               task_type, priority, stop_early, failure_threshold_percent
        from jobs cross join generate_series(1, 20000) n where job_no = %s
        """,
        job.job_no,
    )
    other = shop.do(customers.add_customer, "Another")
    job_id = shop.submit(customer_id=other).job_id
    shop.run("analyze runs")
    take(shop)
    with shop.held() as tx:
        explained = Explained(tx)
        launch = runs.take(cast(Transaction, explained), runs_max=100, per_customer_max=100)
    assert launch is not None
    assert launch.job_id == job_id
    assert explained.pages() < 100  # there are more than a thousand
    with shop.held() as tx:
        explained = Explained(tx)
        assert len(runs.find_unanswered(cast(Transaction, explained), after_s=0, limit=100)) == 2
    assert explained.pages() < 100
    shop.run("update runs set failing_since = now() where customer_id <> %s", other)
    with psycopg.connect(shop.url, autocommit=True) as connection:
        connection.execute("vacuum analyze runs")
    fresh = shop.submit().job_id
    with shop.held() as tx:
        explained = Explained(tx)
        launch = runs.take(cast(Transaction, explained), runs_max=100, per_customer_max=100)
    assert launch is not None
    assert launch.job_id == fresh
    assert explained.pages() < 100


# Reconcile


def launch(shop: Shop, prefect_api: PrefectApi) -> str:
    """Have the next run started; its id."""
    taken = take(shop)
    assert taken is not None
    run_id = prefect_api.create_run(
        "process-job/process-job",
        name="run",
        parameters={},
        tags=[],
        idempotency_key=taken.idempotency_key,
    )
    shop.do(runs.record_launch, taken, run_id)
    return run_id


@pytest.mark.parametrize("state", ["CRASHED", "FAILED", "COMPLETED", "gone"])
def test_a_run_that_ended_without_having_done_its_work_is_followed_by_another(
    state: str, shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    shop.submit()
    run_id = launch(shop, prefect_api)
    if state == "gone":
        del prefect.made[run_id]
    else:
        prefect.move(run_id, state)
    assert reconcile(shop.database, prefect_api).runs_relaunched == 1
    assert launch(shop, prefect_api) != run_id
    assert reconcile(shop.database, prefect_api) == Reconciled()


def test_a_run_whose_work_pool_was_deleted_is_cancelled_and_followed_by_another(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    shop.submit()
    run_id = launch(shop, prefect_api)
    prefect.made[run_id]["work_pool_name"] = None
    assert reconcile(shop.database, prefect_api).runs_relaunched == 1
    assert prefect.states.get_nowait() == (run_id, "CANCELLED")
    assert launch(shop, prefect_api) != run_id
    assert reconcile(shop.database, prefect_api) == Reconciled()


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"])
def test_a_run_that_is_slow_is_left_alone(
    state: str, shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    shop.submit()
    prefect.move(launch(shop, prefect_api), state, ago=timedelta(minutes=4))
    assert reconcile(shop.database, prefect_api) == Reconciled()
    assert take(shop) is None


@pytest.mark.parametrize(
    "pool, state, ago_s, end",
    [
        ("refinery", "PENDING", 70, "CRASHED"),
        ("refinery", "CANCELLING", 70, "CANCELLED"),
        ("refinery", "PENDING", 50, None),
        ("refinery", "SCHEDULED", 3600, None),
        ("elsewhere", "PENDING", 310, "CRASHED"),
        ("elsewhere", "CANCELLING", 310, "CANCELLED"),
        ("elsewhere", "PENDING", 290, None),
        ("elsewhere", "CANCELLING", 290, None),
    ],
)
def test_a_run_that_its_worker_took_and_lost_is_ended(
    pool: str,
    state: str,
    ago_s: float,
    end: str | None,
    shop: Shop,
    prefect: FakePrefect,
    prefect_api: PrefectApi,
) -> None:
    shop.submit()
    run_id = launch(shop, prefect_api)
    prefect.pools[run_id] = pool
    prefect.move(run_id, state, ago=timedelta(seconds=ago_s))
    done = reconcile(shop.database, prefect_api)
    assert (done.runs_ended, done.runs_relaunched, done.runs_stopped) == (
        int(end is not None), int(end == "CRASHED"), int(end == "CANCELLED"),
    )  # fmt: skip
    if end:
        assert prefect.states.get_nowait() == (run_id, end)
    assert prefect.states.empty()


def test_what_crashes_again_and_again_waits_longer_each_time(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    shop.submit()
    for expected_s in (0, 10, 20, 40):
        prefect.move(launch(shop, prefect_api), "CRASHED")
        assert reconcile(shop.database, prefect_api).runs_relaunched == 1
        waits_s = shop.value("select extract(epoch from not_before - now()) from runs")
        assert expected_s - 5 < waits_s <= expected_s
        shop.run("update runs set not_before = now()")


def test_a_run_that_an_operator_has_cancelled_is_not_started_again(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    job = shop.submit()
    prefect.move(launch(shop, prefect_api), "CANCELLED")
    assert reconcile(shop.database, prefect_api).runs_stopped == 1
    assert take(shop) is None
    assert reconcile(shop.database, prefect_api) == Reconciled()
    assert shop.runs(job) == ["process_job"]


def test_a_run_that_an_operator_has_paused_holds_no_place_until_it_is_resumed(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    job = shop.submit()
    run_id = launch(shop, prefect_api)
    shop.submit()
    assert take(shop, per_customer_max=1) is None
    prefect.move(run_id, "PAUSED")
    assert reconcile(shop.database, prefect_api) == Reconciled()
    waiting = shop.do(waits.find_waits, [job])[job.job_no]
    assert waiting.reason == "An operator has paused the run; it goes on when they resume it."
    assert waiting.next_try_at is None
    prefect.move(run_id, "SCHEDULED")
    reconcile(shop.database, prefect_api)
    assert take(shop, per_customer_max=1) is None
    prefect.move(run_id, "PAUSED")
    reconcile(shop.database, prefect_api)
    shop.do(runs.adopt, job.job_no, "process_job", UUID(run_id))  # it begins again first
    assert take(shop, per_customer_max=1) is None
    prefect.move(run_id, "FAILED")  # nobody has resumed it in time
    assert reconcile(shop.database, prefect_api).runs_relaunched == 1


def test_a_run_that_somebody_retries_after_that_is_looked_after_again(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    job = shop.submit()
    run_id = launch(shop, prefect_api)
    prefect.move(run_id, "CANCELLED")
    reconcile(shop.database, prefect_api)
    prefect.move(run_id, "RUNNING")
    shop.do(runs.adopt, job.job_no, "process_job", UUID(run_id))
    assert take(shop) is None
    assert reconcile(shop.database, prefect_api) == Reconciled()
    prefect.move(run_id, "CRASHED")
    assert reconcile(shop.database, prefect_api).runs_relaunched == 1


def test_what_a_slow_launcher_is_told_does_not_undo_what_came_since(shop: Shop) -> None:
    job = shop.submit()
    slow = take(shop)
    assert slow is not None
    shop.run("update runs set launched_at = null")  # reconcile has given it up
    somebodys = uuid4()
    shop.do(runs.adopt, job.job_no, "process_job", somebodys)
    shop.do(runs.record_launch, slow, str(uuid4()))
    shop.do(runs.postpone, slow, error="Prefect is not available.", delay_s=1)
    assert shop.value("select flow_run_id from runs where launched_at is not null") == somebodys


def test_a_run_beside_one_that_is_under_way_changes_nothing(
    shop: Shop, prefect_api: PrefectApi
) -> None:
    job = shop.submit()
    run_id = launch(shop, prefect_api)
    shop.do(runs.adopt, job.job_no, "process_job", uuid4())
    assert str(shop.value("select flow_run_id from runs")) == run_id


def test_who_died_while_asking_prefect_is_followed_by_another(
    shop: Shop, prefect_api: PrefectApi
) -> None:
    shop.submit()
    assert take(shop) is not None
    assert reconcile(shop.database, prefect_api) == Reconciled()
    shop.run("update runs set launched_at = launched_at - interval '2 minutes'")
    assert reconcile(shop.database, prefect_api).runs_relaunched == 1
    assert take(shop) is not None


def test_a_job_that_nothing_would_bring_on_is_found(shop: Shop, prefect_api: PrefectApi) -> None:
    unread = shop.submit()
    undelivered = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    shop.processing(make_chunk(1))
    shop.run("delete from runs")
    assert reconcile(shop.database, prefect_api).runs_added == 2
    assert (shop.runs(unread), shop.runs(undelivered)) == (["process_job"], ["deliver_job"])


def test_a_job_whose_last_task_has_ended_is_settled(shop: Shop, prefect_api: PrefectApi) -> None:
    job = shop.processing(make_chunk(1), delivery=DELIVERY)
    still_open = shop.processing(make_chunk(1))
    shop.run("update chunks set settled = tasks where job_no = %s", job.job_no)
    assert reconcile(shop.database, prefect_api).jobs_settled == 1
    assert shop.job(job).delivery_status == "pending"
    assert shop.job(still_open).status == "processing"


def test_leases_that_ran_out_come_back_without_a_claim(shop: Shop, prefect_api: PrefectApi) -> None:
    shop.processing(make_chunk(3))
    shop.claim(shop.annotator())
    assert reconcile(shop.database, prefect_api) == Reconciled()
    shop.expire_leases()
    assert reconcile(shop.database, prefect_api).leases_returned == 1
    assert shop.value("select count(*) from vacancies") == 3


def test_what_has_run_out_is_purged_and_nothing_else(shop: Shop, prefect_api: PrefectApi) -> None:
    for key in ("old", "new"):
        shop.do(jobs.submit, shop.new_job(), shop.vault, Idempotency(key, b""))
    shop.run("update idempotency_keys set created_at = now() - interval '25 h' where key = 'old'")
    shop.run("select webhook_named(%s, 'https://a.example.com/')", shop.customer_id)
    shop.run(
        """
        insert into notifications (webhook_no, job_no, message_id, event, body, status, created_at)
        select webhook_no, 1, status || days, 'job.completed', '', status, now() - make_interval(days => days)
        from webhooks, unnest(array['pending', 'delivered', 'failed']) status, unnest(array[40, 1]) days
        """
    )
    done = reconcile(shop.database, prefect_api)
    assert (done.keys_purged, done.notifications_purged) == (1, 2)
    assert shop.value("select key from idempotency_keys") == "new"
    left = {row["message_id"] for row in shop.run("select message_id from notifications")}
    assert left == {"pending40", "pending1", "delivered1", "failed1"}


def test_any_number_may_reconcile_at_once(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    for _ in range(30):
        shop.submit()
        prefect.move(launch(shop, prefect_api), "CRASHED")
    done = at_once(*[lambda: reconcile(shop.database, prefect_api)] * 4)
    assert sum(each.runs_relaunched for each in done) == 30


@pytest.mark.parametrize("answer", OUT_ANSWERS)
def test_without_prefect_the_rest_is_done_and_nothing_is_taken_for_lost(
    shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi, answer: tuple[int, object]
) -> None:
    shop.submit()
    launch(shop, prefect_api)
    shop.processing(make_chunk(3))
    shop.claim(shop.annotator())
    shop.expire_leases()
    prefect.out_answer = answer
    prefect.out.set()
    done = reconcile(shop.database, prefect_api)
    assert done == Reconciled(leases_returned=1, prefect_reachable=False)


def test_the_launcher_reconciles_when_it_starts(
    settings: Settings, shop: Shop, prefect: FakePrefect, prefect_api: PrefectApi
) -> None:
    job = shop.submit()
    prefect.move(launch(shop, prefect_api), "CRASHED")
    prefect.run()
    settings = msgspec.structs.replace(settings, prefect_api_url=prefect.url)
    with TestClient(make_app(settings)):
        assert prefect.run()["parameters"] == {"job_id": job.job_id}


@pytest.mark.parametrize("keep_days, kept", [(30, 1), (1, 0)])
def test_the_launcher_keeps_credentials_as_long_as_the_settings_say(
    settings: Settings,
    shop: Shop,
    prefect: FakePrefect,
    prefect_api: PrefectApi,
    keep_days: int,
    kept: int,
) -> None:
    refused = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY, credentials=b"{}")
    shop.run(
        "update jobs set status = 'completed', delivery_status = 'failed', "
        "completed_at = now() - interval '8 days', delivery_failed_at = completed_at "
        "where job_no = %s",
        refused.job_no,
    )
    shop.submit()
    prefect.move(launch(shop, prefect_api), "CRASHED")
    prefect.run()
    settings = msgspec.structs.replace(
        settings, prefect_api_url=prefect.url, credentials_keep_s=keep_days * 24 * 3600
    )
    with TestClient(make_app(settings)):
        prefect.run()  # asked for when it has reconciled
    assert shop.value("select count(credentials) from jobs") == kept


# Events


def test_automations_hear_of_what_becomes_of_a_job(with_prefect: Api, prefect: FakePrefect) -> None:
    shop = with_prefect.shop
    job = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    shop.begin_delivery(job)
    shop.do(jobs.finish_delivery, job.job_no, 2)
    wait_empty(shop)
    events = [event for batch in list(prefect.events.queue) for event in batch]
    assert sorted(event["event"] for event in events) == [
        f"refinery.job.{what}" for what in ("accepted", "completed", "delivered", "processing")
    ]
    assert len({event["id"] for event in events}) == 4
    for event in events:
        assert event["resource"]["prefect.resource.id"] == f"refinery.job.{job.job_id}"
        assert event["payload"] == {"job_id": job.job_id, "customer_id": job.customer_id}


def test_the_page_of_a_job_is_right_when_it_ends_without_a_run(
    with_prefect: Api, prefect: FakePrefect
) -> None:
    shop = with_prefect.shop
    cancelled = with_prefect.submit().json()["job_id"]
    with_prefect.post(f"/v1/jobs/{cancelled}/cancel", None)
    completed = shop.processing(make_chunk(0, bad=1))
    wait_empty(shop)
    pages = {page["key"]: page for page in prefect.pages.queue}
    for job_id, status in ((cancelled, "cancelled"), (completed.job_id, "completed")):
        page = pages[job_id.replace("_", "-")]
        assert f"| status | {status} |" in page["data"]
        assert page["description"].startswith(f"{status}: ")
