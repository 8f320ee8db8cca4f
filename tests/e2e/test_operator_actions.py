"""Whatever an operator presses in Prefect's UI, nothing is lost or doubled, and the job says what it waits for."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil
import pytest
import s3fs

from blocks.store import jobs
from blocks.store.database import Database
from deployments.embedded.stack import Stack
from tests.support.checks import check_errors
from tests.support.client import cancel, delete, pause, resume, retry, runs_of, wait_for
from tests.support.faulty_store import FaultyStore
from tests.support.manifests import make_manifest
from tests.support.operator_cells import (
    DELIVER,
    PRESSED,
    PROCESS,
    STOPPED,
    Cell,
    Operator,
    ended_run,
)
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

BUCKET = "operator-actions"
MANIFEST = make_manifest(20, seed=6)
CELLS = [
    Cell(PROCESS, state, action) for state, actions in PRESSED.items() for action in actions
] + [
    # A delivery's runs are looked after in the same way; that its own steps may be repeated is another test's.
    Cell(DELIVER, "Running", "Rerun"),
    Cell(DELIVER, "Running", "Cancel"),
    Cell(DELIVER, "Running", "Delete"),
    Cell(DELIVER, "Cancelled", "Retry"),
]
# REFINERY_RUNS_MAX of them can be under way.
AT_ONCE = 14


@pytest.fixture(scope="module")
def operator(stack: Stack, store: Database, s3: s3fs.S3FileSystem) -> Iterator[Operator]:
    s3.mkdir(BUCKET)
    s3.pipe_file(f"{BUCKET}/m.jsonl", MANIFEST.data)
    found = Operator(stack, store, BUCKET)
    yield found
    found.close()


@pytest.fixture(scope="module")
def played(operator: Operator) -> None:
    """All cells, which are brought about side by side."""
    with pytest.MonkeyPatch.context() as patch:
        # What nobody begins or stops is ended at once, and not after a minute.
        patch.setattr("blocks.prefect.stuck_runs._FORK_MAX", timedelta(0))
        for first in range(0, len(CELLS), AT_ONCE):
            operator.play(CELLS[first : first + AT_ONCE])


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_job_goes_on_or_says_why_not_and_nothing_is_lost_or_doubled(
    cell: Cell, s3: s3fs.S3FileSystem
) -> None:
    waiting = cell.pressed["waiting_for"] or {}
    assert (STOPPED in waiting.get("reason", "")) == cell.says_stopped
    if cell.says_stopped:
        assert waiting["what"] == "prefect"
        assert waiting["next_try_at"] is None
    if cell.kind == PROCESS:
        lines = len(MANIFEST.good) + len(MANIFEST.bad)
        assert (cell.ended["status"], cell.ended["total_tasks"]) == ("processing", lines)
        errors = cell.customer.http.get(f"/v1/jobs/{cell.job_id}/errors").content
        check_errors(errors, MANIFEST)
    else:
        assert cell.ended["delivery"]["status"] == "delivered"
        paths = [path for path in s3.find(BUCKET) if f"/{cell.job_id}/" in path]
        assert sorted(path.rpartition("/")[2] for path in paths) == [
            "errors.jsonl",
            "manifest.json",
        ]


def finished(shop: Shop, status: str) -> str:
    """A job on which there is nothing to do for a run."""
    if status in ("labelling", "cancelled"):
        job = shop.processing(make_chunk(3))
        if status == "cancelled":
            shop.do(jobs.cancel, job.job_no)
    elif status == "failed":
        job = shop.submit()
        shop.do(jobs.fail, job.job_no, "object_not_found", "It is not there.")
    else:
        job = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY)
        shop.begin_delivery(job)
        shop.do(jobs.finish_delivery, job.job_no, 2)
    return job.job_id


@pytest.mark.parametrize("status", ["labelling", "completed", "failed", "cancelled"])
def test_what_is_pressed_on_a_job_that_needs_no_run_changes_nothing_and_says_so(
    status: str, operator: Operator
) -> None:
    shop = operator.shop()
    customer, job_id = operator.customer(shop), finished(shop, status)
    before = customer.job(job_id)
    run_ids = [operator.rerun(kind, job_id) for kind in (PROCESS, DELIVER)]
    ended = [ended_run(operator.prefect, run_id) for run_id in run_ids]
    for run in ended:
        assert "nothing to do" in run["state"]["message"]
        retry(operator.prefect, run["id"])
    for run in ended:
        again = ended_run(operator.prefect, run["id"])
        assert again["run_count"] == 2
        assert again["state"]["message"] == run["state"]["message"]
        delete(operator.prefect, run["id"])
    assert customer.job(job_id) == before


def test_a_run_that_is_paused_takes_no_new_chunks_until_it_is_resumed(
    operator: Operator, stack: Stack, s3: s3fs.S3FileSystem
) -> None:
    assert stack.object_store is not None
    manifest = make_manifest(100_000, seed=7)
    lines = len(manifest.good) + len(manifest.bad)
    s3.pipe_file(f"{BUCKET}/large.jsonl", manifest.data)
    customer = operator.customer(operator.shop())
    until = threading.Event()
    with FaultyStore(stack.object_store.endpoint_url) as slow:
        slow.slow_down(1.5, until)
        job_id = customer.submit(
            manifest_url=f"s3://{BUCKET}/large.jsonl", credentials=credentials(stack, slow.url)
        )
        wait_for("the first tasks", lambda: customer.job(job_id)["total_tasks"])
        (run,) = runs_of(operator.prefect, job_id)
        process = psutil.Process(int(run["infrastructure_pid"]))
        pause(operator.prefect, run["id"])
        wait_for("its process to be gone", lambda: not process.is_running())
        until.set()
        operator.reconcile()
        paused = customer.job(job_id)
        assert 0 < paused["total_tasks"] < lines
        assert "paused the run" in paused["waiting_for"]["reason"]
        resume(operator.prefect, run["id"])
        job = customer.wait_ingested(job_id, lines)
    assert job["tasks_failed"] == len(manifest.bad)
    check_errors(customer.http.get(f"/v1/jobs/{job_id}/errors").content, manifest)
    assert len(runs_of(operator.prefect, job_id)) == 1


def test_a_run_that_is_cancelled_and_retried_at_once_goes_on(
    operator: Operator, stack: Stack, s3: s3fs.S3FileSystem
) -> None:
    manifest = make_manifest(60_000, seed=8)
    lines = len(manifest.good) + len(manifest.bad)
    s3.pipe_file(f"{BUCKET}/middle.jsonl", manifest.data)
    customer = operator.customer(operator.shop())
    assert stack.object_store is not None
    with FaultyStore(stack.object_store.endpoint_url) as slow:
        slow.slow_down(1.5, until := threading.Event())
        job_id = customer.submit(
            manifest_url=f"s3://{BUCKET}/middle.jsonl", credentials=credentials(stack, slow.url)
        )
        wait_for("the first tasks", lambda: customer.job(job_id)["total_tasks"])
        (run,) = runs_of(operator.prefect, job_id)
        cancel(operator.prefect, run["id"])
        assert ended_run(operator.prefect, run["id"])["state"]["type"] == "CANCELLED"
        until.set()
        retry(operator.prefect, run["id"])
        customer.wait_ingested(job_id, lines)
    assert ended_run(operator.prefect, run["id"])["state"]["type"] == "COMPLETED"
    assert len(runs_of(operator.prefect, job_id)) == 1


def credentials(stack: Stack, endpoint_url: str) -> dict[str, Any]:
    assert stack.object_store is not None
    return {
        "access_key_id": stack.object_store.access_key_id,
        "secret_access_key": stack.object_store.secret_access_key,
        "region": "us-east-1",
        "endpoint_url": endpoint_url,
    }
