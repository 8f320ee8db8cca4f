"""A crowd does anything at all to weighted and gold tasks, alone and at once, and everything adds up."""

import random
import threading
from typing import Any

import pytest

from blocks.domain.model import JobStatus, SkipReason
from blocks.store import exclusions, lease_returns, skills
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from tests.support.books import check_books
from tests.support.store_shop import OPTIONS, WEIGHTED_RULE, LastingShop, Shop, make_chunk

pytestmark = pytest.mark.integration


KINDS = [
    "claim",
    "claim",
    "label",
    "label",
    "label",
    "skip",
    "replace",
    "withdraw",
    "release",
    "expire",
]


class Member:
    """An annotator who does as they like with the tasks of a job."""

    def __init__(self, shop: Shop, job: Job, seed: int) -> None:
        self.shop, self.job = shop, job
        self.number = shop.annotator()
        self.rng = random.Random(seed)
        self.known: list[str] = []

    def act(self) -> None:
        kind = self.rng.choice(KINDS)
        if kind == "claim":
            self.known += [
                task.task_id for task in self.shop.claim(self.number, self.rng.randint(1, 6))
            ]
        elif kind == "expire":
            self.shop.run(
                "update leases set expires_at = now() - interval '1 second' where annotator_no = %s",
                self.number,
            )
        elif self.known:
            some = self.rng.sample(self.known, min(len(self.known), self.rng.randint(1, 4)))
            if kind == "release":
                self.shop.release(self.number, *some)
            elif kind == "label":
                self.shop.label(self.number, *((id_, self.rng.choice(OPTIONS)) for id_ in some))
            else:
                self.shop.enter(self.number, *(self.entry(kind, id_) for id_ in some))

    def entry(self, kind: str, id_: str) -> Entry:
        if kind == "skip":
            return Skip(id_, self.rng.choice(list(SkipReason)))
        return Replacement(id_, self.rng.choice(OPTIONS)) if kind == "replace" else Withdrawal(id_)


def crowd(shop: Shop, seed: int, **changes: Any) -> tuple[Job, list[Member]]:
    gold = {n: n % 3 + 1 for n in range(0, 40, 4)}
    job = shop.processing(make_chunk(40, gold=gold), skips_max=2, **changes)
    return job, [Member(shop, job, seed * 100 + n) for n in range(8)]


RULES: list[dict[str, Any]] = [
    WEIGHTED_RULE,
    WEIGHTED_RULE | {"consensus_threshold": 2, "labels_max": 3, "target_confidence": 8000},
    {"consensus_threshold": 2},
    {"consensus_threshold": 3, "stop_early": True},
]


@pytest.mark.parametrize("rule", RULES, ids=["weighted", "two-to-three", "majority", "early"])
@pytest.mark.parametrize("seed", range(2))
def test_everything_adds_up_after_every_step(
    lasting_shop: LastingShop, rule: dict[str, Any], seed: int
) -> None:
    shop = lasting_shop
    job, members = crowd(shop, seed, **rule)
    rng = random.Random(seed)
    for n in range(160):
        if n in {60, 110}:
            shop.do(exclusions.exclude, job.job_no, rng.choice(members).number)
        if n % 20 == 19:
            exclusions.go_on(shop.database, steps_max=1)
            shop.do(skills.compare_some, limit=5)
        rng.choice(members).act()
        if n % 3 == 0:
            check_books(shop, job)
    finish(shop, job)


def finish(shop: Shop, job: Job) -> None:
    """Whoever comes now finds all that is open, and the job completes."""
    shop.set_aside()
    shop.expire_leases()
    shop.do(lease_returns.return_leases, limit=1000)
    check_books(shop, job)
    for _ in range(20):
        if shop.job(job).status is JobStatus.COMPLETED:
            return
        annotator = shop.annotator()
        while tasks := shop.claim(annotator, job_id=job.job_id):
            shop.label(annotator, *((task.task_id, "fox") for task in tasks))
        check_books(shop, job)
    raise AssertionError("tasks are open, and nobody is given them")


@pytest.mark.parametrize("rule", [RULES[0], RULES[2]], ids=["weighted", "majority"])
def test_a_crowd_at_once_leaves_books_that_add_up(shop: Shop, rule: dict[str, Any]) -> None:
    job, members = crowd(shop, 7, **rule)
    failures: list[BaseException] = []

    def work(member: Member) -> None:
        try:
            for _ in range(40):
                member.act()
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    def exclude() -> None:
        try:
            for member in members[:3]:
                shop.do(exclusions.exclude, job.job_no, member.number)
                exclusions.go_on(shop.database)
                shop.do(skills.compare_some, limit=3)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    threads.append(threading.Thread(target=exclude))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    finish(shop, job)
