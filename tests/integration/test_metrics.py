"""What Prometheus is told, parsed as Prometheus does, against what has happened."""

from collections.abc import Mapping

import msgspec
import pytest
from litestar.testing import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from blocks.prefect.api import PrefectApi
from blocks.prefect.reconciler import reconcile
from blocks.settings import Settings
from blocks.store import counts, jobs
from blocks.store.database import Database
from tests.support.api_world import Api, make_app
from tests.support.side import at_once, wait_until
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration


def scrape(api: Api) -> Mapping[tuple[str, ...], float]:
    """Every sample, by its name and the values of its labels."""
    answer = api.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = parse_text(answer.text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def _read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.probes._KEPT_S", -1.0)


def test_nobody_needs_a_key_and_openmetrics_may_be_asked_for(api: Api) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    answer = api.client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"refinery_jobs", "refinery_lines", "refinery_database_up"} <= names


def test_jobs_are_counted_by_their_state_and_lines_by_what_is_wrong_with_them(api: Api) -> None:
    shop = api.shop
    assert scrape(api)["refinery_jobs", "accepted"] == 0
    shop.submit()
    shop.processing(make_chunk(5, bad=2), make_chunk(3, start=50_000))
    failed = shop.submit()
    shop.do(jobs.fail, failed.job_no, "object_not_found", "It is not there.")
    found = scrape(api)
    states = {
        status: found["refinery_jobs", status]
        for status in ("accepted", "processing", "failed", "completed")
    }
    assert states == {"accepted": 1, "processing": 1, "failed": 1, "completed": 0}
    assert found["refinery_lines_total",] == 10
    assert found["refinery_bad_lines_total", "malformed_json"] == 2
    assert found["refinery_trigger_seconds_count",] == 1
    assert 0 < found["refinery_trigger_seconds_sum",] < 10
    assert found["refinery_trigger_seconds_bucket", "+Inf"] == 1
    bounds = [sample for sample in found if sample[0] == "refinery_trigger_seconds_bucket"]
    assert len(bounds) == 14


def test_deliveries_are_counted_by_how_they_ended(api: Api) -> None:
    job = api.shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    api.shop.begin_delivery(job)
    api.shop.do(jobs.refuse_delivery, job.job_no, "bucket_not_found", "It is not there.")
    found = scrape(api)
    assert found["refinery_deliveries_total", "failed"] == 1
    assert found["refinery_deliveries_total", "delivered"] == 0
    cancelled = api.shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    api.shop.do(jobs.cancel, cancelled.job_no)
    assert scrape(api)["refinery_deliveries_total", "failed"] == 1


def test_what_annotators_do_is_counted(api: Api) -> None:
    api.shop.processing(make_chunk(3), consensus_threshold=2)
    for headers in (api.annotator, api.new_annotator()):
        claimed = api.post("/v1/annotation/claim", {"limit": 10}, headers).json()["tasks"]
        labels = [{"task_id": task["task_id"], "label": "cat"} for task in claimed]
        api.post("/v1/annotation/labels", {"labels": labels}, headers)
        api.post("/v1/annotation/labels", {"labels": labels[:1]}, headers)
    found = scrape(api)
    assert found["refinery_claimed_tasks_total",] == 6
    outcomes = ("accepted", "settled", "already_settled", "duplicate", "unknown_task")
    assert [found["refinery_labels_total", each] for each in outcomes] == [3, 3, 0, 2, 0]


def test_requests_are_counted_by_route_and_not_by_address(api: Api) -> None:
    def asked(status: str) -> float:
        route = "GET", "/v1/jobs/{job_id}", status
        return scrape(api).get(("refinery_request_seconds_count", *route), 0)

    for n in range(3):
        api.get(f"/v1/jobs/job_{n}")
    api.client.get("/v1/jobs/job_1")
    api.client.get("/nowhere/job_1")
    assert (asked("404"), asked("401")) == (3, 1)
    assert "job_1" not in api.client.get("/metrics").text


def test_what_prefect_cannot_be_asked_for_waits_all_the_while(api: Api) -> None:
    api.shop.submit()
    unavailable = ("refinery_launches_total", "process_job", "unavailable")
    wait_until(lambda: scrape(api).get(unavailable, 0) >= 1)  # Prefect is not there
    api.shop.run("update runs set created_at = now() - interval '1 hour'")
    wait_until(lambda: scrape(api)["refinery_queue_depth", "runs_waiting"] == 1)
    waits_s = scrape(api)["refinery_queue_oldest_seconds", "runs_waiting"]
    assert waits_s == pytest.approx(3600, abs=60)
    api.shop.run("update runs set not_before = 'infinity', launched_at = null")
    assert scrape(api)["refinery_queue_depth", "runs_waiting"] == 0


def test_the_age_of_a_queue_is_that_of_its_longest_waiter(shop: Shop) -> None:
    for minutes in (2, 41, 21):
        job = shop.submit()
        shop.run(
            "update runs set created_at = now() - interval '2 hours', "
            "not_before = now() - make_interval(mins => %s) where job_no = %s",
            minutes, job.job_no,
        )  # fmt: skip
    shop.run("update outbox set created_at = now() - interval '1 hour'")
    found = {queue.name: queue for queue in shop.do(counts.read_queues)}
    assert (found["runs_waiting"].depth, found["outbox"].depth) == (3, 3)
    assert found["runs_waiting"].oldest_s == pytest.approx(41 * 60, abs=30)
    assert found["outbox"].oldest_s == pytest.approx(3600, abs=30)


def test_counts_are_right_whoever_folds_them_and_whatever_comes_meanwhile(
    shop: Shop, database: Database
) -> None:
    made = [shop.submit() for _ in range(20)]
    at_once(
        *[lambda: shop.do(counts.fold, limit=7)] * 4,
        *[lambda job=job: shop.do(jobs.begin, job.job_no) for job in made[:10]],
    )
    with database.transaction() as tx:
        totals = counts.read_totals(tx)
    assert (totals["jobs", "accepted"], totals["jobs", "processing"]) == (10, 10)
    while shop.do(counts.fold, limit=1000):
        pass
    series = "select count(distinct (name, label)) from counts"
    assert shop.value("select count(*) from counts") == shop.value(series)
    with database.transaction() as tx:
        assert counts.read_totals(tx) == totals


def test_reconcile_folds_counts(shop: Shop, database: Database, api_settings: Settings) -> None:
    for _ in range(5):
        shop.submit()
    with PrefectApi(api_settings) as prefect:
        reconcile(database, prefect, api_settings)
    assert shop.value("select count(*) from counts where name = 'jobs'") == 1
    assert shop.value("select sum(amount) from counts") == 5


def test_a_database_that_is_away_is_said_and_the_rest_is_told(settings: Settings) -> None:
    away = msgspec.structs.replace(settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    with TestClient(make_app(away)) as client:
        text = client.get("/metrics").text
    assert "refinery_database_up 0.0" in text
    assert "refinery_claimed_tasks_total 0.0" in text
    assert "refinery_jobs" not in text
