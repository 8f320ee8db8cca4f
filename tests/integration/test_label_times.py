"""How long a label took: from claims and requests, whatever becomes of the claim or the label."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blocks.domain.model import SkipReason
from blocks.store import annotation, label_batches, leases
from blocks.store.label_changes import Replacement, Skip, Withdrawal
from blocks.store.labelling import Label
from blocks.store.queries import load
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

# A test's own time adds to what it has shifted.
SLACK_S = 5.0


def pass_time(shop: Shop, seconds: float) -> None:
    """Let all that was done until now be so many seconds older."""
    for table, column in (("leases", "claimed_at"), ("label_batches", "created_at")):
        shop.run(f"update {table} set {column} = {column} - make_interval(secs => %s)", seconds)


def recorded(shop: Shop) -> list[tuple[int, float | None]]:
    """The labels of each request and job, and the seconds of each, roughly."""
    query = load("label_batches")["seconds_of"].as_string()
    rows = shop.run(
        f"with b as (select * from label_batches) select cardinality(task_nos) as labels, seconds from label_batches left join ({query}) r using (annotator_no, batch_no) order by batch_no"
    )
    return [
        (row["labels"], row["seconds"] and SLACK_S * round(row["seconds"] / SLACK_S))
        for row in rows
    ]


def claim(shop: Shop, annotator: int, limit: int) -> list[str]:
    return [task.task_id for task in shop.claim(annotator, limit)]


def test_the_time_since_the_claim_is_divided_by_the_labels(shop: Shop) -> None:
    shop.processing(make_chunk(10))
    annotator = shop.annotator()
    tasks = claim(shop, annotator, 10)
    pass_time(shop, 100)
    shop.label(annotator, *((task, "cat") for task in tasks[:4]))
    pass_time(shop, 60)
    shop.label(annotator, *((task, "cat") for task in tasks[4:6]))
    assert recorded(shop) == [(4, 25), (2, 30)]


def test_tasks_that_are_claimed_ahead_count_from_the_request_before(shop: Shop) -> None:
    shop.processing(make_chunk(10))
    annotator = shop.annotator()
    first = claim(shop, annotator, 2)
    pass_time(shop, 40)
    ahead = claim(shop, annotator, 2)
    shop.label(annotator, *((task, "cat") for task in first))
    pass_time(shop, 80)
    shop.label(annotator, *((task, "cat") for task in ahead))
    assert recorded(shop) == [(2, 20), (2, 40)]


def test_a_pause_before_the_claim_is_no_work(shop: Shop) -> None:
    shop.processing(make_chunk(10))
    annotator = shop.annotator()
    shop.answer(annotator, "cat", 1)
    pass_time(shop, 3600)
    tasks = claim(shop, annotator, 2)
    pass_time(shop, 20)
    shop.label(annotator, *((task, "cat") for task in tasks))
    assert recorded(shop) == [(1, 0), (2, 10)]


def test_labels_of_several_jobs_in_a_request_share_its_time(shop: Shop) -> None:
    one, two = (shop.processing(make_chunk(3)) for _ in range(2))
    annotator = shop.annotator()
    tasks = [
        task.task_id for job in (one, two) for task in shop.claim(annotator, 3, job_id=job.job_id)
    ]
    pass_time(shop, 120)
    shop.label(annotator, *((task, "cat") for task in tasks))
    assert recorded(shop) == [(3, 20), (3, 20)]


def test_a_renewal_does_not_begin_the_time_anew(shop: Shop) -> None:
    shop.processing(make_chunk(3))
    annotator = shop.annotator()
    (task,) = claim(shop, annotator, 1)
    pass_time(shop, 50)
    assert shop.do(leases.renew, annotator, [task], lease_s=3600)
    pass_time(shop, 50)
    shop.label(annotator, (task, "cat"))
    assert recorded(shop) == [(1, 100)]


def test_labels_without_a_lease_have_no_time(shop: Shop) -> None:
    shop.processing(make_chunk(3))
    holder, other = shop.annotators(2)
    tasks = claim(shop, holder, 3)
    pass_time(shop, 50)
    assert shop.label(other, (tasks[0], "cat")) == ["accepted"]
    shop.release(holder, tasks[1])
    shop.label(holder, (tasks[0], "cat"), (tasks[1], "cat"))
    assert recorded(shop) == [(1, None), (2, 25)]


def test_a_replacement_has_no_time_and_a_withdrawal_is_no_label(shop: Shop) -> None:
    shop.processing(make_chunk(4))
    annotator = shop.annotator()
    tasks = claim(shop, annotator, 4)
    pass_time(shop, 40)
    shop.label(annotator, *((task, "cat") for task in tasks[:2]))
    pass_time(shop, 30)
    shop.enter(
        annotator,
        Replacement(tasks[0], "dog"),
        Withdrawal(tasks[1]),
        Label(tasks[2], "cat"),
        Skip(tasks[3], SkipReason.BROKEN),
    )
    shop.enter(annotator, Replacement(tasks[0], "fox"))
    assert recorded(shop) == [(2, 20), (2, 15), (1, None)]


@contextmanager
def folding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fold every request but the latest."""
    with monkeypatch.context() as patch:
        patch.setattr(label_batches, "_KEPT", 1)
        patch.setattr(label_batches, "_FOLD_SHARE", 1.0)
        yield


def test_folded_requests_leave_their_times_by_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [shop.processing(make_chunk(8)) for _ in range(2)]
    annotator = shop.annotator()
    with folding(monkeypatch):
        for seconds in (10, 10, 300):
            for job in jobs:
                tasks = shop.claim(annotator, 2, job_id=job.job_id)
                pass_time(shop, seconds)
                shop.label(annotator, *((task.task_id, "cat") for task in tasks))
        for job in jobs:
            (task, *_) = shop.claim(annotator, 1, job_id=job.job_id)
            shop.label(annotator, (task.task_id, "cat"))
    query = "select job_no, bucket, labels from label_times where bucket > 0 order by 1, 2"
    found = [(row["job_no"], row["bucket"], row["labels"]) for row in shop.run(query)]
    buckets = [shop.value("select time_bucket(%s::real)", seconds) for seconds in (5, 150)]
    assert found == [
        (job.job_no, bucket, labels)
        for job in jobs
        for bucket, labels in zip(buckets, (4, 2), strict=True)
    ]
    assert shop.value("select count(*) from label_batches") == 1


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.001, 0.02, 1.0, 7.3, 3600.0, 1e6])
def test_a_bucket_is_within_a_few_percent_of_what_is_in_it(shop: Shop, seconds: float) -> None:
    bucket = shop.value("select time_bucket(%s)", seconds)
    assert math.isclose(1.05**bucket, max(seconds, 0.001), rel_tol=0.026)


def test_a_claim_that_is_repeated_by_its_key_keeps_its_time(shop: Shop) -> None:
    shop.processing(make_chunk(2))
    annotator = shop.annotator()
    key = annotation.ClaimKey("k", b"d" * 32)
    shop.do(annotation.claim, annotator, limit=1, lease_s=600, key=key)
    pass_time(shop, 30)
    replayed = shop.do(leases.find_claimed, annotator, key)
    assert replayed is not None
    assert shop.value("select now() - claimed_at > interval '30 seconds' from leases")
