"""A job says what its runs fail by, from the first failure on, and does not fail for ever."""

import asyncio
import gzip
import http.server
import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prefect.exceptions import CrashedRun, TerminationSignal
from tenacity import wait_fixed

from api.routes.job_views import JobView, views
from blocks.buckets.s3 import S3Bucket
from blocks.domain.errors import InternalError, RunEnded, Transient, UndecryptableCredentials
from blocks.domain.model import JobStatus, Pin, WaitsFor
from blocks.prefect.api import PrefectUnavailable
from blocks.secrets.credentials import S3Credentials
from blocks.store.database import DatabaseUnavailable
from deployments.embedded.ports import free_port
from flows import deliver_job as delivering
from flows import process_job
from flows.reading import ingestion
from flows.running import deadlines
from flows.running.policy import RETRY
from flows.running.setbacks import DELIVER_JOB, PROCESS_JOB, record_failures
from tests.support.endpoint import Endpoint
from tests.support.faulty_store import Fault, FaultyStore
from tests.support.flow_world import FlowShop, check_created, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TASKS = [
    process_job.begin,
    process_job.judge,
    delivering.deliver,
    delivering.find_delivery,
    delivering.write_results,
]
TRIES = 6  # of one task


@pytest.fixture
def shop(flow_shop: FlowShop, monkeypatch: pytest.MonkeyPatch) -> FlowShop:
    for task in TASKS:
        monkeypatch.setattr(task, "retry_delay_seconds", 0.01)
    monkeypatch.setattr(RETRY, "wait", wait_fixed(0.01))
    return flow_shop


def seen(shop: FlowShop, job_id: str) -> JobView:
    """The job as the API shows it."""
    job = shop.job(job_id)
    with shop.database.transaction() as tx:
        return views(tx, [job])[0]


def execute(shop: FlowShop, statement: str) -> None:
    with shop.database.transaction() as tx:
        tx.execute(statement.encode())


def credentials_for(shop: FlowShop, endpoint_url: str) -> bytes:
    address = shop._address
    return msgspec.json.encode(
        S3Credentials(
            access_key_id=address.access_key_id,
            secret_access_key=address.secret_access_key,
            region="us-east-1",
            endpoint_url=endpoint_url,
        )
    )


class BusyStore(http.server.BaseHTTPRequestHandler):
    """Answers 503 to everything."""

    def do_HEAD(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the name that is looked for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""


KINDS = ["refuses", "hangs", "answers 503", "has a certificate that nobody vouches for"]


@pytest.fixture(params=KINDS)
def bad_endpoint(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    match request.param:
        case "hangs":
            monkeypatch.setattr("blocks.buckets.answers.READ_TIMEOUT_S", 0.1)
            with socket.create_server(("127.0.0.1", 0)) as listener:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        case "refuses":
            yield f"http://127.0.0.1:{free_port()}"
        case "answers 503":
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BusyStore)
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()
            server.server_close()
        case _:
            endpoint = Endpoint(tmp_path)
            yield endpoint.url.removesuffix("/hook")
            endpoint.stop()


def test_a_job_says_that_its_store_cannot_be_used(shop: FlowShop, bad_endpoint: str) -> None:
    job_id = shop.submit(credentials=credentials_for(shop, bad_endpoint))
    assert run(process_job.process_job, job_id).is_failed()
    job = seen(shop, job_id)
    assert (job.status, job.error) == (JobStatus.PROCESSING, None)
    waiting = job.waiting_for
    assert waiting is not None
    assert (waiting.what, waiting.tries) == (WaitsFor.STORE, TRIES)
    assert waiting.reason.startswith("The store ")
    assert waiting.gives_up_at is not None
    assert (waiting.gives_up_at - waiting.since).total_seconds() == 24 * 3600
    assert waiting.next_try_at is not None


def test_a_run_that_ends_because_its_work_waits_makes_room_at_once(shop: FlowShop) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    job_id = shop.submit(credentials=credentials_for(shop, url))
    for runs, tries in ((1, TRIES), (2, TRIES + 1)):
        assert run(process_job.process_job, job_id).is_failed()
        with shop.database.transaction() as tx:
            (row,) = tx.execute(
                "select launched_at, launches, tries, not_before > now() + interval '5 s' as waits from runs"
            ).fetchall()
        assert row == {"launched_at": None, "launches": runs, "tries": tries, "waits": True}
        # It tries once more only: it has failed for longer than a run waits.
        execute(shop, "update runs set failing_since = now() - interval '31 s'")


def test_it_says_so_after_the_first_try(shop: FlowShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put(make_manifest(10).data)
    job_id = shop.submit()
    told = []
    real = S3Bucket.stat

    def fail_once(self: S3Bucket, key: str) -> Pin:
        told.append(seen(shop, job_id).waiting_for)
        if len(told) == 1:
            raise Transient("The store answered SlowDown.")
        return real(self, key)

    monkeypatch.setattr(S3Bucket, "stat", fail_once)
    assert run(process_job.process_job, job_id).is_completed()
    before, after = told
    assert before is None
    assert after is not None
    assert (after.reason, after.tries) == ("The store answered SlowDown.", 1)


def test_a_compressed_manifest_says_so_too(shop: FlowShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put_as("m.jsonl.gz", gzip.compress(make_manifest(10).data))
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/m.jsonl.gz")
    told = []
    real = S3Bucket.read
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)

    def fail_once(self: S3Bucket, key: str, pin: Pin, start: int, end: int) -> bytes:
        told.append(seen(shop, job_id).waiting_for)
        if len(told) == 1:
            raise Transient("The store answered SlowDown.")
        return real(self, key, pin, start, end)

    monkeypatch.setattr(S3Bucket, "read", fail_once)
    assert run(process_job.process_job, job_id).is_completed()
    assert told[0] is None
    assert told[1] is not None
    assert (told[1].what, told[1].tries) == (WaitsFor.STORE, 1)


def test_progress_begins_the_count_anew(shop: FlowShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put(make_manifest(1000).data)
    job_id = shop.submit()
    ingestion.pin(job_id)
    first, second, *_ = ingestion.missing_ranges(job_id)
    with pytest.raises(Transient), record_failures(job_id, PROCESS_JOB):
        raise Transient("The store answered SlowDown.")
    assert seen(shop, job_id).waiting_for
    ingestion.create_tasks(job_id, *first)
    assert seen(shop, job_id).waiting_for is None
    execute(shop, "update runs set failing_since = null, tries = 0")
    with pytest.raises(Transient), record_failures(job_id, PROCESS_JOB):
        raise Transient("The store answered SlowDown.")
    ingestion.create_tasks(job_id, *first)  # it is there already: that is no progress
    assert seen(shop, job_id).waiting_for
    ingestion.create_tasks(job_id, *second)
    assert seen(shop, job_id).waiting_for is None


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_a_run_that_takes_too_long_is_ended_and_another_goes_on(
    shop: FlowShop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has committed by then stays, and nothing is tried again within the run."""
    manifest = make_manifest(1000)
    shop.put_as(name, gzip.compress(manifest.data) if name.endswith(".gz") else manifest.data)
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/{name}")

    def left_s(_: deadlines.Deadline) -> float:
        is_begun = shop.job(job_id).total_tasks > 0 or name != "m.jsonl"
        return 0.0 if is_begun else 9.0

    with monkeypatch.context() as patch:
        patch.setattr(deadlines.Deadline, "left_s", property(left_s))
        assert run(process_job.process_job, job_id).is_failed()
    waiting = seen(shop, job_id).waiting_for
    assert waiting is not None
    assert (waiting.what, waiting.tries) == (WaitsFor.STORE, 1)
    assert waiting.reason.startswith("The run took longer than 21,600 s")
    assert waiting.gives_up_at is not None
    if name == "m.jsonl":
        assert 0 < shop.job(job_id).total_tasks < len(manifest.good)
    assert run(process_job.process_job, job_id).is_completed()
    check_created(shop, job_id, manifest)
    after = seen(shop, job_id).waiting_for
    assert after is not None
    assert after.what is WaitsFor.ANNOTATORS


def test_a_run_does_not_wait_for_chunks_after_its_time(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(make_manifest(3000).data)
    job_id = shop.submit()
    reads: list[int] = []
    ended = threading.Event()
    real = S3Bucket.read

    def slow_read(self: S3Bucket, key: str, pin: Pin, start: int, end: int) -> bytes:
        reads.append(start)
        if len(reads) > 3:  # the first chunk is read alone
            ended.wait(20)
        return real(self, key, pin, start, end)

    def time_up(deadline: deadlines.Deadline) -> RunEnded:
        ended.set()
        return RunEnded("It took too long.")

    monkeypatch.setattr(S3Bucket, "read", slow_read)
    monkeypatch.setattr(deadlines.Deadline, "error", time_up)
    monkeypatch.setattr(
        deadlines.Deadline, "left_s", property(lambda _: 0.0 if len(reads) > 3 else 9.0)
    )
    assert run(process_job.process_job, job_id).is_failed()
    waiting = seen(shop, job_id).waiting_for
    assert waiting is not None
    assert waiting.reason == "It took too long."
    assert ingestion.missing_ranges(job_id) != []


def test_a_delivery_that_takes_too_long_is_ended_and_written_anew(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(make_manifest(20).data)
    job_id = shop.submit()
    assert run(process_job.process_job, job_id).is_completed()
    shop.label_all(job_id)
    with monkeypatch.context() as patch:
        patch.setattr(deadlines.Deadline, "left_s", 0.0)
        assert run(delivering.deliver_job, job_id).is_failed()
    waiting = seen(shop, job_id).waiting_for
    assert waiting is not None
    assert (waiting.what, waiting.tries) == (WaitsFor.DELIVERY, 1)
    execute(shop, "update runs set failing_since = now() - interval '24 hours'")
    with monkeypatch.context() as patch:
        patch.setattr(deadlines.Deadline, "left_s", 0.0)
        assert run(delivering.deliver_job, job_id).is_failed()
    assert shop.job(job_id).delivery_error_code == "store_unavailable"
    assert run(delivering.deliver_job, job_id).is_completed()


def test_a_manifest_that_is_too_large_is_refused_before_it_is_planned(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Bucket, "stat", lambda *_: Pin(10**15, '"1"'))
    job_id = shop.submit()
    assert run(process_job.process_job, job_id).is_failed()
    job = seen(shop, job_id)
    assert job.error is not None
    assert job.error.code == "manifest_too_large"
    assert "1,000,000,000,000,000 bytes" in job.error.message


def test_what_lasts_for_longer_than_the_bound_fails_the_job(shop: FlowShop) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    job_id = shop.submit(credentials=credentials_for(shop, url))
    run(process_job.process_job, job_id)
    execute(shop, "update runs set failing_since = now() - interval '24 hours'")
    state = run(process_job.process_job, job_id)
    assert state.is_failed()
    assert "store_unavailable" in str(state.message)
    job = shop.job(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "store_unavailable")
    assert "cannot be reached" in str(job.error_message)
    assert f"{TRIES + 1} times since 2" in str(job.error_message)
    assert job.credentials is None
    assert seen(shop, job_id).waiting_for is None


def delivered_behind(shop: FlowShop, proxy: FaultyStore) -> str:
    """A job of which every task has settled, to be delivered through the proxy."""
    shop.put(make_manifest(20).data)
    job_id = shop.submit(credentials=credentials_for(shop, proxy.url))
    assert run(process_job.process_job, job_id).is_completed()
    shop.label_all(job_id)
    return job_id


def test_a_delivery_says_what_it_waits_for_and_is_refused_in_the_end(shop: FlowShop) -> None:
    with FaultyStore(shop._address.endpoint_url) as proxy:
        job_id = delivered_behind(shop, proxy)
        proxy.always(Fault.SLOW_DOWN, lambda _: True)
        run(delivering.deliver_job, job_id)
        waiting = seen(shop, job_id).waiting_for
        assert waiting is not None
        assert (waiting.what, waiting.tries) == (WaitsFor.DELIVERY, TRIES)
        execute(shop, "update runs set failing_since = now() - interval '24 hours'")
        run(delivering.deliver_job, job_id)
        job = seen(shop, job_id)
        assert job.delivery is not None
        assert (job.status, job.waiting_for) == (JobStatus.COMPLETED, None)
        assert (job.delivery.status, job.delivery.code) == ("failed", "store_unavailable")
        assert "not tried again" in str(job.delivery.message)


def test_three_equal_errors_of_ours_fail_the_job(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def overflow(*_: Any, **__: Any) -> int:
        raise RecursionError("secret bytes of the customer")

    monkeypatch.setattr("flows.reading.ingestion.choose_chunk_bytes", overflow)
    shop.put(make_manifest(10).data)
    job_id = shop.submit()
    for runs in (1, 2):
        assert run(process_job.process_job, job_id).is_failed()
        job = seen(shop, job_id)
        assert job.status is JobStatus.PROCESSING
        assert job.waiting_for is not None
        assert job.waiting_for.tries == runs
    with caplog.at_level(logging.ERROR, "refinery.setbacks"):
        assert "internal_error" in str(run(process_job.process_job, job_id).message)
    job = seen(shop, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "internal_error"
    assert "Recursion" not in job.error.message
    assert "secret" not in job.error.message
    logged = [
        record.getMessage()
        for record in caplog.records
        if "job.internal_error" in record.getMessage()
    ]
    assert len(logged) == 1
    assert "RecursionError in flows.reading.ingestion.pin" in logged[0]
    assert "secret" not in logged[0]
    with shop.database.transaction() as tx:
        rows = tx.execute("select event from outbox where event is not null").fetchall()
    assert "refinery.job.internal-error" in {row["event"] for row in rows}


def test_three_equal_errors_of_ours_refuse_a_delivery(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise KeyError("x")

    with FaultyStore(shop._address.endpoint_url) as proxy:
        job_id = delivered_behind(shop, proxy)
        monkeypatch.setattr("flows.writing.delivery.folder_of", fail)
        for _ in range(3):
            assert seen(shop, job_id).status is JobStatus.PROCESSING
            assert run(delivering.deliver_job, job_id).is_failed()
    job = seen(shop, job_id)
    assert job.delivery is not None
    assert (job.status, job.delivery.code) == (JobStatus.COMPLETED, "internal_error")
    with shop.database.transaction() as tx:
        rows = tx.execute("select event from outbox where event is not null").fetchall()
    assert "refinery.job.internal-error" in {row["event"] for row in rows}


def end_by(job_id: str, error: BaseException) -> None:
    with pytest.raises(type(error)), record_failures(job_id, PROCESS_JOB):
        raise error


def test_errors_that_differ_or_a_kill_in_between_do_not_add_up(shop: FlowShop) -> None:
    job_id = shop.submit()
    for error in (ValueError(), KeyError(), ValueError(), KeyError(), ValueError()):
        end_by(job_id, error)
    end_by(job_id, KeyboardInterrupt())
    end_by(job_id, TerminationSignal(15))
    end_by(job_id, ValueError())
    with pytest.raises(InternalError), record_failures(job_id, PROCESS_JOB):
        raise ValueError


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        asyncio.CancelledError(),
        TerminationSignal(15),
        BrokenProcessPool("A process was killed."),
        CrashedRun("It crashed."),
        DatabaseUnavailable("It is starting."),
        PrefectUnavailable("It is starting."),
        httpx.ConnectError("It is starting."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_kill_or_an_outage_is_no_failure_of_a_job(shop: FlowShop, error: BaseException) -> None:
    job_id = shop.submit()
    for _ in range(4):
        end_by(job_id, error)
    assert seen(shop, job_id).waiting_for is None


def test_credentials_that_a_worker_cannot_open_wait_for_its_operator(shop: FlowShop) -> None:
    job_id = shop.submit()
    for _ in range(4):
        end_by(job_id, UndecryptableCredentials("No key opens them."))
    waiting = seen(shop, job_id).waiting_for
    assert waiting is not None
    assert waiting.tries == 4
    assert "operators" in waiting.reason
    execute(shop, "update runs set failing_since = now() - interval '24 hours'")
    with pytest.raises(InternalError), record_failures(job_id, PROCESS_JOB):
        raise UndecryptableCredentials("No key opens them.")


def test_a_failure_of_work_that_is_done_is_recorded_nowhere(shop: FlowShop) -> None:
    end_by("job_that_never_was", ValueError())
    with pytest.raises(ValueError, match="x"), record_failures(shop.submit(), DELIVER_JOB):
        raise ValueError("x")
