"""Sixteen annotators label weighted jobs with gold, are killed and excluded at random, and each result is right."""

import functools
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import s3fs

from api.cli.verify import check_folder
from blocks.domain.model import TaskType
from blocks.store.database import Database
from deployments.embedded.stack import Stack
from tests.support.books import check_books
from tests.support.client import Customer, wait_for
from tests.support.crowd import Crowd, check_log, postgresql_log
from tests.support.crowd_annotator import Floor
from tests.support.records import Record
from tests.support.side import Side
from tests.support.stack_shop import StackShop

pytestmark = pytest.mark.e2e

ANNOTATORS = 16
KILLS = [200, 500, 800, 1_100]
EXCLUSIONS = [150, 350, 550, 750]
"""At how many labels the API is killed, and one annotator excluded from each job."""
TASK_TYPE = TaskType.SENTIMENT  # no other test has tasks of it
OPTIONS = ["cat", "dog", "fox"]
LINES, GOLD_EVERY = 400, 10
RULES: dict[str, dict[str, Any]] = {
    "weighted": {
        "consensus": {
            "method": "weighted", "target_confidence": 0.95, "labels_min": 2, "labels_max": 5,
        }
    },
    "majority": {"consensus_threshold": 3, "stop_early": True},
}  # fmt: skip


def shown(line: int) -> str:
    """What the task of a line shows."""
    return OPTIONS[line * 7 % len(OPTIONS)]


def say(task: Mapping[str, Any], annotator_no: int, dice: random.Random) -> str:
    """What an annotator sees in it: they are right in 0.55 to 0.95 of all cases, by their numbers."""
    is_right = dice.random() < 0.55 + annotator_no % 5 / 10
    return shown(int(task["data_url"].rpartition("/")[2])) if is_right else dice.choice(OPTIONS)


@dataclass
class Exclusions:
    """Has one annotator after the other excluded from all jobs, each once so many labels were taken."""

    customer: Customer
    floor: Floor
    annotator_ids: list[str]
    answers: list[dict[str, Any]] = field(default_factory=list)

    def go_on(self) -> None:
        for labels, annotator_id in zip(EXCLUSIONS, self.annotator_ids, strict=True):
            wait_for(f"{labels} labels", functools.partial(self._has_counted, labels))
            for job_id in self.floor.job_ids:
                self._exclude(f"/v1/jobs/{job_id}/annotators/{annotator_id}/exclude")

    def _has_counted(self, labels: int) -> bool:
        return self.floor.counted >= labels

    def _exclude(self, path: str) -> None:
        """Ask until it is done: the API may just be killed, or the annotator has had none of the job yet."""

        def ask() -> bool:
            try:
                answer = self.customer.http.post(path, json={})
            except httpx.TransportError:
                return False
            if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE}:
                return False
            self.answers.append(answer.raise_for_status().json())
            return True

        wait_for("an answer", ask)


@pytest.mark.timeout(300)
def test_results_of_a_crowd_that_is_killed_and_excluded_are_what_its_labels_and_skills_come_to(
    stack: Stack,
    store: Database,
    customer: Customer,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    shop, logged = StackShop(stack, store), len(postgresql_log(stack))
    lines = [
        {"data_url": f"https://img.example.com/{n}"}
        | ({"gold": shown(n)} if n % GOLD_EVERY == 3 else {})
        for n in range(LINES)
    ]
    s3.pipe_file(f"{s3_bucket}/lines.jsonl", "\n".join(map(json.dumps, lines)).encode())
    job_ids = [
        customer.submit(
            manifest_url=f"s3://{s3_bucket}/lines.jsonl",
            credentials=s3_credentials,
            task_type=TASK_TYPE,
            label_spec={"question": "What is it?", "options": OPTIONS},
            include_labels=True,
            delivery={"type": "s3", "bucket": s3_bucket, "prefix": method},
            **rule,
        )
        for method, rule in RULES.items()
    ]
    for job_id in job_ids:
        customer.wait_ingested(job_id, LINES)
    keys = shop.hire(ANNOTATORS)
    numbers = [number for number, _ in keys]
    query = (
        "select annotator_id from annotators where annotator_no = any (%s) order by annotator_no"
    )
    people = [row["annotator_id"] for row in shop.run(query, numbers[: len(EXCLUSIONS)])]
    floor = Floor(job_ids, TASK_TYPE, choose=say)
    exclusions = Exclusions(customer, floor, people)

    with Crowd(stack, keys, floor, seed=1) as crowd:
        excluding = Side(exclusions.go_on)
        crowd.work(KILLS, lambda: left(customer, shop, job_ids))
        excluding.join()

    check_log(stack, logged)
    assert len(exclusions.answers) == len(EXCLUSIONS) * len(job_ids)
    for rule in shop.rules(job_ids).values():
        check_books(shop, rule)
    check_labels(crowd.record, shop, job_ids)
    check_excluded(shop, job_ids, len(EXCLUSIONS))
    for method, job_id in zip(RULES, job_ids, strict=True):
        ended = customer.wait(job_id, "completed", "failed")
        assert ended["tasks_done"] + ended["tasks_failed"] == ended["total_tasks"] == LINES
        report = check_folder(s3, f"{s3_bucket}/{method}/{job_id}", recompute=True)
        assert (report.problems, report.rows) == ([], LINES)
        check_export(customer.lines(job_id, "export"), people)


def left(customer: Customer, shop: StackShop, job_ids: list[str]) -> list[Any]:
    """The jobs that still take labels, with what they may wait for."""
    waiting = [each for each in job_ids if is_open(customer, each)]
    query = """
        select e.*, (select sum(tasks - settled - failed) from chunks c where c.job_no = e.job_no) as open
        from exclusions e join jobs using (job_no) where job_id = any (%s) and done_at is null
    """
    return waiting and [waiting, shop.run(query, waiting), shop.open_tasks(waiting)]


def is_open(customer: Customer, job_id: str) -> bool:
    """Whether a job still takes labels; true while nobody can say."""
    try:
        return customer.job(job_id)["status"] not in {"completed", "failed"}
    except httpx.HTTPError:
        return True


def check_labels(record: Record, shop: StackShop, job_ids: list[str]) -> None:
    """Every label that was taken stands, or was set aside, once and as it was sent."""
    query = """
        select task_id(j.job_id, j.task_key, l.task_no) as id, l.annotator_no,
               j.options[l.option] as option
        from (
            select job_no, task_no, annotator_no, option from labels
            union all
            select job_no, task_no, annotator_no, option from labels_set_aside
        ) l join jobs j using (job_no) where j.job_id = any (%s)
    """
    rows = shop.run(query, job_ids)
    kept = {(row["id"], row["annotator_no"]): row["option"] for row in rows}
    assert len(kept) == len(rows)
    taken = {
        (vote.task_id, vote.annotator_no): vote.option for vote in record.votes if vote.counted
    }
    assert taken.items() <= kept.items()
    lost = [vote for vote in record.votes if vote.outcome is None]
    assert len(kept) - len(taken) <= len(lost)
    outcomes = Counter(vote.outcome for vote in record.votes)
    # Others depend on who is quicker; each has a test of its own.
    assert outcomes.keys() >= {"accepted", "settled"}


def check_excluded(shop: StackShop, job_ids: list[str], count: int) -> None:
    """Nothing of those who were excluded is counted, and it was counted before."""
    query = """
        select e.labels_set_aside, e.done_at, (
            select count(*) from labels l where (l.job_no, l.annotator_no) = (e.job_no, e.annotator_no)
        ) as standing, (
            select count(*) from labels_set_aside l
            where (l.job_no, l.annotator_no) = (e.job_no, e.annotator_no)
        ) as set_aside
        from exclusions e join jobs using (job_no) where job_id = any (%s)
    """
    rows = shop.run(query, job_ids)
    assert len(rows) == count * len(job_ids)
    for row in rows:
        assert row["done_at"]
        assert (row["standing"], row["set_aside"]) == (0, row["labels_set_aside"])
    assert sum(row["set_aside"] for row in rows) > 50


def check_export(lines: list[dict[str, Any]], excluded: list[str]) -> None:
    """Each line has the labels that it was settled by, and gold its right answer."""
    gold = [line for line in lines if line.get("gold")]
    assert [line["line"] for line in gold] == [n + 1 for n in range(LINES) if n % GOLD_EVERY == 3]
    assert all(line["consensus_label"] == shown(line["line"] - 1) for line in gold)
    for line in lines:
        who = [each["annotator"] for each in line["labels"]]
        assert len(set(who)) == len(who)
        assert not set(who) & set(excluded)
        assert line["votes"] == {o: Counter(e["label"] for e in line["labels"])[o] for o in OPTIONS}
