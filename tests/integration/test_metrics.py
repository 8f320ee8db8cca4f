"""What Prometheus is told, parsed as Prometheus does, against what has happened."""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec
import pytest
from litestar.testing import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from blocks.domain.model import LineCode
from blocks.prefect.api import PrefectApi
from blocks.prefect.reconciler import reconcile
from blocks.settings import Settings
from blocks.store import counts, jobs, passes, streams
from blocks.store.database import Database
from blocks.store.streams import Manifest, Stream
from tests.support.api_world import Api, make_app
from tests.support.fake_prefect import FakePrefect
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


def test_every_series_that_can_be_known_is_there_from_the_start(api: Api) -> None:
    found = scrape(api)
    assert found["refinery_build_info", version("refinery-jobs")] == 1
    for kind in ("process_job", "deliver_job"):
        for outcome in ("started", "unavailable"):
            assert found["refinery_launches_total", kind, outcome] == 0
    for outcome in ("delivered", "refused", "unreachable"):
        assert found["refinery_webhook_attempts_total", outcome] == 0
    for code in LineCode:
        assert found["refinery_bad_lines_total", code] == 0


def test_an_api_tells_its_version_in_its_log_and_by_its_health(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.INFO)
    api: Api = request.getfixturevalue("api")
    assert f"api.started version={version('refinery-jobs')}" in caplog.text
    assert api.client.get("/health/live").json()["version"] == version("refinery-jobs")


def test_the_oldest_job_of_each_stage_is_told_with_its_age(api: Api) -> None:
    def ages() -> list[float]:
        found = scrape(api)
        stages = ("open", "unread", "undelivered")
        return [found["refinery_oldest_job_seconds", stage] / 60 for stage in stages]

    shop = api.shop
    assert ages() == [0, 0, 0]
    labelled = shop.processing(make_chunk(3))
    shop.run("update jobs set created_at = now() - interval '50 minutes'")
    shop.submit()
    shop.submit()
    shop.run(
        "update jobs set created_at = now() - interval '10 minutes' where job_no = %s",
        labelled.job_no + 1,
    )
    assert ages() == pytest.approx([50, 10, 0], abs=1)
    delivered = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    shop.run(
        "update runs set created_at = now() - interval '20 minutes' where kind = 'deliver_job'"
    )
    assert ages() == pytest.approx([50, 10, 20], abs=1)
    shop.do(jobs.cancel, labelled.job_no)
    shop.do(jobs.cancel, delivered.job_no)
    assert ages() == pytest.approx([10, 10, 0], abs=1)


def test_open_tasks_are_those_that_have_not_ended(api: Api) -> None:
    shop = api.shop
    assert scrape(api)["refinery_open_tasks",] == 0
    job = shop.processing(make_chunk(5, bad=1), make_chunk(4, start=50_000), consensus_threshold=1)
    shop.submit()
    claimed = api.post("/v1/annotation/claim", {"limit": 2}, api.annotator).json()["tasks"]
    labels = [{"task_id": task["task_id"], "label": "cat"} for task in claimed]
    api.post("/v1/annotation/labels", {"labels": labels}, api.annotator)
    assert scrape(api)["refinery_open_tasks",] == 7
    shop.do(jobs.cancel, job.job_no)
    assert scrape(api)["refinery_open_tasks",] == 0


def test_a_stream_tells_what_it_has_found_and_what_has_failed(api: Api) -> None:
    shop = api.shop
    stream, quiet = Stream(shop.customer_id, "daily"), Stream(shop.customer_id, "quiet")
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for each in (stream, quiet):
        shop.do(streams.begin, each, began)
    made = [
        shop.job(shop.do(streams.submit, stream, Manifest(url, "1"), shop.vault, shop.new_job()))
        for url in ("s3://manifests/a.jsonl", "s3://manifests/b.jsonl")
    ]
    again = Manifest("s3://manifests/a.jsonl", "1")
    assert shop.do(streams.submit, stream, again, shop.vault, shop.new_job()) is None
    shop.do(jobs.fail, made[0].job_no, "access_denied", "It was refused.")
    shop.do(jobs.cancel, made[1].job_no)
    lone = shop.submit()
    shop.do(jobs.fail, lone.job_no, "access_denied", "It was refused.")
    found = scrape(api)
    daily, other = (shop.customer_id, "daily"), (shop.customer_id, "quiet")
    latest = "refinery_stream_latest_manifest_timestamp_seconds"
    assert found["refinery_stream_manifests_total", *daily] == 2
    assert found["refinery_stream_failures_total", *daily] == 1
    assert found[latest, *daily] == pytest.approx(time.time(), abs=60)
    assert found["refinery_stream_manifests_total", *other] == 0
    assert found["refinery_stream_failures_total", *other] == 0
    assert found[latest, *other] == began.timestamp()


def test_a_refused_delivery_is_a_failure_of_its_stream(api: Api) -> None:
    shop = api.shop
    stream = Stream(shop.customer_id, "daily")
    job = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
    shop.do(streams.begin, stream, datetime.now(UTC))
    shop.run(
        "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no) "
        "values (%s, 'daily', 's3://manifests/a.jsonl', '1', %s)",
        shop.customer_id, job.job_no,
    )  # fmt: skip
    api.shop.begin_delivery(job)
    shop.do(jobs.refuse_delivery, job.job_no, "bucket_not_found", "It is not there.")
    failures = scrape(api)["refinery_stream_failures_total", shop.customer_id, "daily"]
    assert failures == 1


def test_a_pool_of_connections_is_measured_while_one_is_in_use(
    api: Api, api_settings: Settings, database: Database
) -> None:
    found = scrape(api)
    pools = {sample[1] for sample in found if sample[0] == "refinery_database_connections_max"}
    assert pools == {"requests", "keys", "probes", "background"}
    bound = found["refinery_database_connections_max", "requests"]
    assert bound == api_settings.database_connections_max
    before = database.use()
    with database.transaction(), database.transaction():
        used = database.use()
    assert (before.in_use, used.in_use, database.use().in_use) == (0, 2, 0)
    assert found["refinery_database_bytes",] > 5_000_000


def test_a_pass_is_recorded_when_it_has_ended(
    shop: Shop, database: Database, api_settings: Settings, prefect_api: PrefectApi
) -> None:
    def ended() -> Mapping[str, float]:
        with database.transaction() as tx:
            return passes.read(tx)

    long_ago = "update passes set ended_at = '2026-01-01Z'"
    shop.run(long_ago)
    with PrefectApi(api_settings) as away:
        reconcile(database, away, api_settings)
    began_s = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert ended()["reconcile"] == began_s  # Prefect did not answer
    assert ended()["housekeeping"] == pytest.approx(time.time(), abs=60)
    reconcile(database, prefect_api, api_settings)
    assert ended()["reconcile"] == pytest.approx(time.time(), abs=60)
    shop.run(long_ago)
    with shop.held() as tx:  # another process is just recording it
        passes.record(tx, "housekeeping")
        shop.do(passes.record, "housekeeping")
    assert ended().keys() == {"housekeeping", "reconcile"}


def test_workers_are_counted_by_pool_while_prefect_answers(
    settings: Settings, shop: Shop, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.probes._WORKERS_KEPT_S", -1.0)
    prefect.workers |= {"two words/and a slash": 0, "k8s": 3}
    there = msgspec.structs.replace(settings, prefect_api_url=prefect.url)
    with TestClient(make_app(there)) as client:
        api = Api(client, shop)

        def online() -> Mapping[str, float]:
            return {
                sample[1]: value
                for sample, value in scrape(api).items()
                if sample[0] == "refinery_workers_online"
            }

        wait_until(lambda: online() == {"refinery": 1, "two words/and a slash": 0, "k8s": 3})
        prefect.out.set()
        wait_until(lambda: online() == {})
        assert scrape(api)["refinery_prefect_up",] == 0


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
