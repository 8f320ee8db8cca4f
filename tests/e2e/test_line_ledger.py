"""Whatever dies, every line ends as exactly one of a result, a failed task and a bad line; each with its place."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
import s3fs

from tests.support.client import Annotator, Customer, retry, runs_of, wait_for
from tests.support.ledger import OPTIONS, Discrepancies, check_same, compare, opinion
from tests.support.manifests import Manifest, make_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LINES = 20_000
KILLS = 4  # while lines are read, and as many while results are delivered
LIFE_S_MAX = 1.5  # of what is killed
DELIVERIES: list[dict[str, str]] = [{"compression": "gzip"}, {"format": "parquet"}]


@dataclass
class Entry:
    """A job, and what its manifest says."""

    job_id: str
    manifest: Manifest

    @property
    def lines(self) -> int:
        return len(self.manifest.good) + len(self.manifest.bad)


def revive(prefect: httpx.Client, entries: list[Entry]) -> list[dict[str, Any]]:
    """Retry what has crashed, as an operator would; what runs now."""
    found = [run for entry in entries for run in runs_of(prefect, entry.job_id)]
    for run in found:
        if run["state"]["type"] == "CRASHED":
            retry(prefect, run["id"])
    return [r for r in found if r["state"]["type"] == "RUNNING" and r["infrastructure_pid"]]


def kill_at_random(prefect: httpx.Client, entries: list[Entry], dice: random.Random) -> int:
    """Let one after the other live for a moment; how many were killed before they had ended."""
    killed = 0
    for _ in range(KILLS):
        running = wait_for(
            "a run", lambda: revive(prefect, entries) or _all_ended(prefect, entries)
        )
        if running is True:
            break
        time.sleep(dice.uniform(0, LIFE_S_MAX))
        try:
            psutil.Process(int(dice.choice(running)["infrastructure_pid"])).kill()
            killed += 1
        except psutil.NoSuchProcess:
            pass  # it was quicker
    return killed


def _all_ended(prefect: httpx.Client, entries: list[Entry]) -> bool:
    states = [r["state"]["type"] for e in entries for r in runs_of(prefect, e.job_id)]
    return bool(states) and all(state == "COMPLETED" for state in states)


def test_every_line_ends_in_exactly_one_way_whatever_is_killed(
    customer: Customer,
    make_annotator: Callable[[Callable[[dict[str, Any]], str]], Annotator],
    prefect: httpx.Client,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    dice = random.Random(11)
    entries = []
    for seed, delivery in enumerate(DELIVERIES, 100):
        manifest = make_manifest(LINES, bad_share=0.02, seed=seed)
        s3.pipe_file(f"{s3_bucket}/{seed}.jsonl", manifest.data)
        job_id = customer.submit(
            manifest_url=f"s3://{s3_bucket}/{seed}.jsonl",
            credentials=s3_credentials,
            label_spec={"question": "What is it?", "options": OPTIONS},
            consensus_threshold=2,
            delivery={"type": "s3", "bucket": s3_bucket, **delivery},
        )
        entries.append(Entry(job_id, manifest))

    assert kill_at_random(prefect, entries, dice)

    def left_to_read() -> bool:
        revive(prefect, entries)
        return all(customer.job(e.job_id)["total_tasks"] == e.lines for e in entries)

    wait_for("all lines", left_to_read)
    for nth in range(len(OPTIONS)):
        annotator = make_annotator(opinion(nth))
        for entry in entries:
            annotator.work(entry.job_id)
    assert kill_at_random(prefect, entries, dice)

    def completed() -> bool:
        revive(prefect, entries)
        return all(customer.job(e.job_id)["status"] == "completed" for e in entries)

    wait_for("both deliveries", completed)
    for entry in entries:
        results, errors = (
            customer.http.get(f"/v1/jobs/{entry.job_id}/{what}").raise_for_status().content
            for what in ("export", "errors")
        )
        assert compare(results, errors, entry.manifest) == Discrepancies()
        paths = s3.find(f"{s3_bucket}/{entry.job_id}")
        check_same({p.rpartition("/")[2]: s3.cat_file(p) for p in paths}, results, errors)
        job = customer.job(entry.job_id)
        assert job["tasks_done"] == results.count(b"\n")
        assert job["tasks_failed"] == errors.count(b"\n")
