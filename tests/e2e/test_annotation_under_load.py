"""Annotators and the API crash, answers get lost, labels come late or twice: no vote does."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import s3fs

from blocks.domain.consensus import majority_outcome
from blocks.domain.model import TaskType
from blocks.store.database import Database
from deployments.embedded.stack import Stack
from tests.support.books import Job, check_books
from tests.support.client import Customer, wait_for
from tests.support.crowd import Crowd, check_log, postgresql_log
from tests.support.crowd_annotator import Floor
from tests.support.manifests import Manifest, make_manifest
from tests.support.record_checks import (
    Ballots,
    check_grants,
    check_settled,
    check_votes,
    late_labels,
)
from tests.support.records import Record
from tests.support.stack_shop import RuledJob, StackShop

pytestmark = pytest.mark.e2e

ANNOTATORS = 16
MANIFEST_LINES = 400
INLINE_TASKS = 300
# The API is killed at so many moments before so many labels. The tasks take at least that many together, and
# half of those that they take mostly.
KILLS = 6
LABELS_MIN = 2_900
# No other test has tasks of it.
TASK_TYPE = TaskType.MODERATION
# So many options that labels often do not agree: some tasks are tied, and some fail.
COLOURS = ["red", "green", "blue", "white", "black", "grey", "pink", "teal"]
RULES: list[dict[str, Any]] = [
    {"consensus_threshold": 3, "label_spec": {"question": "Which colour?", "options": COLOURS}},
    {
        "consensus_threshold": 5,
        "stop_early": True,
        "label_spec": {"question": "Which colour?", "options": COLOURS[:6]},
    },
]
INLINE_RULE = {
    "consensus_threshold": 2,
    "label_spec": {"question": "Which colour?", "options": COLOURS[:4]},
}


@pytest.fixture
def shop(stack: Stack, store: Database) -> StackShop:
    return StackShop(stack, store)


@pytest.fixture
def keys(shop: StackShop) -> list[tuple[int, str]]:
    return shop.hire(ANNOTATORS)


@pytest.mark.timeout(300)  # the crowd says itself what it waits for
@pytest.mark.parametrize("seed", [1])
def test_a_crowd_on_an_api_that_is_killed_again_and_again_leaves_the_books_in_order(
    seed: int,
    stack: Stack,
    shop: StackShop,
    customer: Customer,
    keys: list[tuple[int, str]],
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    logged = len(postgresql_log(stack))
    manifests: dict[str, Manifest] = {}
    for n, body in enumerate(RULES):
        manifest = make_manifest(MANIFEST_LINES, bad_share=0.02, seed=seed + n)
        s3.pipe_file(f"{s3_bucket}/{n}.jsonl", manifest.data)
        url = f"s3://{s3_bucket}/{n}.jsonl"
        job_id = customer.submit(
            manifest_url=url, credentials=s3_credentials, task_type=TASK_TYPE, **body
        )
        manifests[job_id] = manifest
    inline = submit_inline(customer)
    container, _ = shop.find_task(inline[0])
    job_ids = [*manifests, container]

    kills = sorted(random.Random(seed).sample(range(100, LABELS_MIN), KILLS))
    with Crowd(stack, keys, Floor(job_ids, TASK_TYPE), seed) as crowd:
        crowd.work(kills[:2], lambda: max(0, kills[2] - crowd.labels))
        for job_id, manifest in manifests.items():
            customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
        crowd.restart_api()  # a request that nobody waits for has gone with it, or is in a transaction
        wait_for("the end of every transaction", lambda: not shop.busy())
        rules = shop.rules(job_ids)
        for rule in rules.values():
            check_books(shop, rule)
        crowd.work(kills[3:], lambda: shop.open_tasks(job_ids))

    check_log(stack, logged)
    for rule in rules.values():
        check_books(shop, rule)
    jobs, ballots = shop.jobs_of_tasks(job_ids), shop.ballots(job_ids)
    assert ballots.keys() == jobs.keys()
    check_votes(crowd.record, ballots)
    check_settled(crowd.record, ballots, jobs)
    at_the_limit = check_grants(crowd.record, ballots, jobs)
    for job_id, manifest in manifests.items():
        check_job(customer, job_id, manifest, jobs, ballots)
    for id_ in inline:
        result = customer.http.get(f"/v1/tasks/{id_}/result").raise_for_status().json()
        check_result(result, jobs[id_], ballots[id_])
    check_variety(crowd.record, ballots, jobs, at_the_limit)


def submit_inline(customer: Customer) -> list[str]:
    """The ids of tasks that come in one batch."""
    tasks = [
        {"type": TASK_TYPE, "data_url": f"https://img.example.com/{n}.jpg", **INLINE_RULE}
        for n in range(INLINE_TASKS)
    ]
    answer = customer.http.post("/v1/tasks/batch", json={"tasks": tasks})
    assert answer.status_code == 202, answer.text
    task_ids: list[str] = answer.json()["task_ids"]
    assert len(task_ids) == INLINE_TASKS
    return task_ids


def check_job(
    customer: Customer,
    job_id: str,
    manifest: Manifest,
    jobs: Mapping[str, RuledJob],
    ballots: Ballots,
) -> None:
    """What the customer sees of the job is what its labels come to."""
    seen = customer.wait(job_id, "completed", "failed")
    assert seen["status"] == "completed"
    task_ids = [id_ for id_, job in jobs.items() if job.job_id == job_id]
    settled = [
        (line, data_url, id_)
        for id_, (line, data_url, _) in zip(task_ids, manifest.good, strict=True)
        if recomputed(jobs[id_], ballots[id_])["status"] == "settled"
    ]
    assert seen["total_tasks"] == len(manifest.good) + len(manifest.bad)
    assert seen["tasks_done"] == len(settled)
    assert seen["tasks_failed"] == len(manifest.good) - len(settled) + len(manifest.bad)
    exported = customer.lines(job_id, "export")
    assert [(each["line"], each["data_url"], each["task_id"]) for each in exported] == settled
    for each in exported:
        check_result(each, jobs[each["task_id"]], ballots[each["task_id"]])


def check_result(result: Mapping[str, Any], job: Job, ballot: Mapping[int, str]) -> None:
    expected = recomputed(job, ballot)
    assert {field: result[field] for field in expected} == expected


def recomputed(job: Job, ballot: Mapping[int, str]) -> dict[str, Any]:
    """What an ended task comes to, from its labels alone."""
    chosen = Counter(ballot.values())
    votes = {option: chosen[option] for option in job.options}
    counts = list(votes.values())
    outcome = majority_outcome(counts, job.consensus_threshold, stop_early=job.stop_early)
    return {
        "status": "settled" if outcome else "failed",
        "consensus_label": job.options[outcome - 1] if outcome else None,
        "confidence": counts[outcome - 1] / sum(counts) if outcome else None,
        "worker_count": sum(counts),
        "agreement_count": max(counts),
        "votes": votes,
    }


def check_variety(
    record: Record, ballots: Ballots, jobs: Mapping[str, Job], at_the_limit: int
) -> None:
    """All that the test is about has happened, and often: else it says little."""
    outcomes = Counter(vote.outcome or "lost" for vote in record.votes)
    assert outcomes.keys() == {"accepted", "settled", "duplicate", "already_settled", "lost"}
    assert min(outcomes.values()) >= 20, outcomes
    ends = Counter(
        (recomputed(jobs[id_], ballot)["status"], len(ballot) > jobs[id_].consensus_threshold)
        for id_, ballot in ballots.items()
    )
    assert len(ends) == 3, ends
    assert min(ends.values()) >= 20, ends
    assert len(late_labels(record)) >= 20
    # Of so many claims one that gave out a place too many would have been seen.
    assert at_the_limit >= len(record.grants) / 5, (at_the_limit, len(record.grants))
