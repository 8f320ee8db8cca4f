"""How fast a job is labelled: by the requests of the last hour, folded or not, and by what is left."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blocks.domain.model import SkipReason
from blocks.store import exclusions, jobs, label_batches, lease_returns, pace, reviews
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip
from blocks.store.pace import Pace
from blocks.store.reviews import Decision
from tests.support.api_world import Api
from tests.support.store_shop import DELIVERY, OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration


def pass_time(shop: Shop, seconds: float) -> None:
    """Let all requests until now be so many seconds older."""
    shop.run(
        "update label_batches set created_at = created_at - make_interval(secs => %s)", seconds
    )


def measured(shop: Shop, job: Job) -> Pace:
    found: Pace = shop.do(pace.measure, shop.job(job))
    return found


def work(shop: Shop, job: Job, annotator: int, *, labels: int, every_s: float, times: int) -> None:
    """Hand in so many labels each time, and let time pass after each but the last."""
    for n in range(times):
        claimed = shop.claim(annotator, labels, job_id=job.job_id)
        shop.label(annotator, *((task.task_id, "cat") for task in claimed))
        if n < times - 1:
            pass_time(shop, every_s)


def test_labels_an_hour_are_those_after_the_first_request(shop: Shop) -> None:
    job = shop.processing(make_chunk(200))
    annotator = shop.annotator()
    assert measured(shop, job).labels_per_hour == 0
    work(shop, job, annotator, labels=4, every_s=0, times=1)
    assert measured(shop, job).labels_per_hour is None
    pass_time(shop, 60)
    work(shop, job, annotator, labels=4, every_s=60, times=10)
    assert measured(shop, job).labels_per_hour == pytest.approx(4 * 60, rel=0.02)
    pass_time(shop, 600)  # a pause is part of it
    assert measured(shop, job).labels_per_hour == pytest.approx(40 / 1200 * 3600, rel=0.02)
    pass_time(shop, 3600)
    assert measured(shop, job).labels_per_hour == 0


def test_requests_of_one_moment_say_nothing(shop: Shop) -> None:
    job = shop.processing(make_chunk(200))
    for annotator in shop.annotators(3):
        work(shop, job, annotator, labels=50, every_s=0, times=1)
    shop.run("update label_batches set created_at = now()")
    found = measured(shop, job)
    assert (found.labels_per_hour, found.seconds_left) == (None, None)


def test_jobs_are_measured_apart(shop: Shop) -> None:
    fast, slow = (shop.processing(make_chunk(200)) for _ in range(2))
    one, two = shop.annotators(2)
    for _ in range(10):
        work(shop, fast, one, labels=10, every_s=0, times=1)
        work(shop, slow, two, labels=1, every_s=0, times=1)
        pass_time(shop, 30)
    assert measured(shop, fast).labels_per_hour == pytest.approx(9 * 10 / 300 * 3600, rel=0.02)
    assert measured(shop, slow).labels_per_hour == pytest.approx(9 / 300 * 3600, rel=0.02)


def test_the_latest_requests_are_enough(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_REQUESTS_MAX", 5)
    job = shop.processing(make_chunk(200))
    annotator = shop.annotator()
    work(shop, job, annotator, labels=1, every_s=100, times=10)
    work(shop, job, annotator, labels=10, every_s=100, times=5)
    assert measured(shop, job).labels_per_hour == pytest.approx(360, rel=0.02)


def test_where_requests_are_folded_only_whole_times_count(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the fast annotator half an hour is folded away, of the slow one nothing."""
    job = shop.processing(make_chunk(300))
    fast, slow = shop.annotators(2)
    for _ in range(10):
        work(shop, job, slow, labels=1, every_s=0, times=1)
        work(shop, job, fast, labels=6, every_s=60, times=3)
        pass_time(shop, 60)
    expected = (3 * 6 + 1) / 180 * 3600
    assert measured(shop, job).labels_per_hour == pytest.approx(expected, rel=0.05)
    bounds = {"annotator_no": fast, "kept": 12, "limit": 1000}
    shop.do(lambda tx: tx.execute(label_batches._SQL["fold"], bounds))
    assert measured(shop, job).labels_per_hour == pytest.approx(expected, rel=0.12)


def test_labels_left_of_an_even_job_are_exact(shop: Shop) -> None:
    job = shop.processing(make_chunk(50), make_chunk(30, start=10**6))
    given = 0
    people = shop.annotators(4)
    for nth, batches in ((0, 7), (1, 5), (2, 8), (3, 8), (0, 2), (1, 2)):
        for _ in range(batches):
            given += len(shop.answer(people[nth], "cat", 10))
            assert measured(shop, job).labels_left == 3 * 80 - given
    assert given == 3 * 80


def test_labels_left_grow_with_the_labels_that_tasks_have_needed(shop: Shop) -> None:
    job = shop.processing(make_chunk(40), consensus_threshold=2)
    tasks = [job.task_id(n) for n in range(40)]
    one, two, three = shop.annotators(3)
    shop.claim(one, 40)
    shop.label(one, *((task, "cat") for task in tasks[:20]))
    shop.claim(two, 40)
    shop.label(two, *((task, "dog") for task in tasks[:20]))
    shop.claim(three, 20)
    shop.label(three, *((task, "cat") for task in tasks[:20]))
    # Each ended task has had three labels; the other 20 are held by two annotators.
    assert shop.job(job).tasks_done == 20
    assert measured(shop, job).labels_left == 20


def test_the_end_follows_from_the_pace_and_what_is_left(api: Api, shop: Shop) -> None:
    job = shop.processing(make_chunk(100))
    work(shop, job, shop.annotator(), labels=10, every_s=60, times=5)
    pass_time(shop, 60)
    found = api.get(f"/v1/jobs/{job.job_id}").json()["pace"]
    assert found["labels_left"] == 250
    assert found["labels_per_hour"] == pytest.approx(40 / 300 * 3600, rel=0.02)
    left = datetime.fromisoformat(found["eta"]) - datetime.now(UTC)
    assert left / timedelta(minutes=1) == pytest.approx(250 / 8, rel=0.05)


@pytest.mark.parametrize(
    "seconds, is_known", [(60.0, True), (1e9, True), (1e12, False), (None, False)]
)
def test_an_end_that_is_too_far_away_is_not_known(seconds: float | None, *, is_known: bool) -> None:
    assert (Pace(1.0, 1, seconds).eta(datetime.now(UTC)) is not None) is is_known


def test_a_job_whose_lines_are_still_read_has_a_pace_and_no_end(api: Api, shop: Shop) -> None:
    job = shop.processing(make_chunk(100), ingested=False)
    work(shop, job, shop.annotator(), labels=10, every_s=60, times=3)
    found = api.get(f"/v1/jobs/{job.job_id}").json()["pace"]
    assert found["labels_per_hour"] > 0
    assert found["eta"] is None


def test_what_takes_no_labels_has_no_pace(api: Api, shop: Shop) -> None:
    accepted = shop.submit()
    cancelled = shop.processing(make_chunk(3))
    shop.do(jobs.cancel, cancelled.job_no)
    delivering = shop.processing(make_chunk(1), consensus_threshold=1, delivery=DELIVERY)
    shop.answer(shop.annotator(), "cat")
    for job in (accepted, cancelled, delivering):
        assert api.get(f"/v1/jobs/{job.job_id}").json()["pace"] is None
    assert all("pace" not in job for job in api.get("/v1/jobs").json()["jobs"])


def test_the_etag_does_not_change_with_the_pace(api: Api, shop: Shop) -> None:
    job = shop.processing(make_chunk(10))
    shop.annotators(3)
    path = f"/v1/jobs/{job.job_id}"
    first = api.get(path)
    annotator = shop.annotator()
    work(shop, job, annotator, labels=1, every_s=60, times=3)
    again = api.get(path)
    assert first.json()["pace"] != again.json()["pace"]
    assert first.headers["etag"] == again.headers["etag"]


def release_all(shop: Shop, job: Job, who: int) -> None:
    shop.release(who, *(task.task_id for task in shop.claim(who)))


def skip_all(shop: Shop, job: Job, who: int) -> None:
    reason = list(SkipReason)[who % 3]
    shop.enter(who, *(Skip(task.task_id, reason) for task in shop.claim(who)))


def label_all(shop: Shop, job: Job, who: int) -> None:
    shop.answer(who, "cat")


def exclude_after_labelling(shop: Shop, job: Job, who: int) -> None:
    shop.answer(who, "cat")
    shop.do(exclusions.exclude, job.job_no, who)
    shop.set_aside()


@pytest.mark.parametrize(
    "act, people, rule, expected",
    [
        (release_all, 2, {}, 100),
        (skip_all, 2, {"skips_max": 5}, 100),
        (label_all, 1, {}, 50),
        (label_all, 2, {"review_share": 10_000}, 0),  # all are under review
        (exclude_after_labelling, 1, {}, 100),
        (exclude_after_labelling, 8, {"consensus_threshold": 10}, 500),
    ],
)
def test_places_that_came_back_are_left(
    shop: Shop,
    act: Callable[[Shop, Job, int], None],
    people: int,
    rule: dict[str, Any],
    expected: int,
) -> None:
    job = shop.processing(make_chunk(50), **{"consensus_threshold": 2} | rule)
    for who in shop.annotators(people):
        act(shop, job, who)
    assert measured(shop, job).labels_left == expected


def count_by_rows(shop: Shop, job: Job) -> int:
    """Return the labels left as docs/leads.md says, with a look at every task."""
    (found,) = shop.run(
        """
        with task as (
            select c.job_no, task_no(c.chunk_no, n) as task_no
            from chunks c cross join generate_series(0, c.tasks - 1) n where c.job_no = %s
        ), open as (
            select coalesce(cardinality(y.annotators), 0) as labels,
                   (select count(*) from leases l where l.job_no = t.job_no and t.task_no = any (l.task_nos)) as held
            from task t left join tallies y using (job_no, task_no)
            where y.outcome is null and (t.job_no, t.task_no) not in (select job_no, task_no from gold_tasks)
        ), ended as (
            select avg(cardinality(annotators)) as labels from tallies where job_no = %s and outcome >= 0
        )
        select (select count(*) from open) as open, coalesce((select labels from ended), %s)::float8 as needed,
               coalesce((select sum(greatest(0, greatest(%s, labels + 1) - labels - held)) from open), 0)::integer
                   as places
        """,
        job.job_no, job.job_no, job.consensus_threshold, job.consensus_threshold,
    )  # fmt: skip
    beyond = (found["needed"] - job.consensus_threshold) * found["open"]
    return int(max(round(found["places"] + beyond), min(found["places"], found["open"])))


class RandomJob:
    """A job of two chunks whose people label, skip, release, forget, review and are excluded at random."""

    def __init__(self, shop: Shop, seed: int, **rule: Any) -> None:
        self._shop, self._rng = shop, random.Random(seed)
        gold = {n: 1 for n in range(40) if self._rng.random() < 0.2} if seed % 2 else {}
        chunks = (make_chunk(40, gold=gold), make_chunk(40, start=10**6, gold=gold))
        self.job = shop.processing(*chunks, **rule)
        self._people = shop.annotators(12)

    def go_on(self) -> None:
        who = self._rng.choice(self._people)
        steps = [self._label] * 6 + [
            self._skip,
            self._release,
            self._forget,
            self._review,
            self._exclude,
        ]
        self._rng.choice(steps)(who)

    def _claim(self, who: int) -> list[str]:
        return [task.task_id for task in self._shop.claim(who, self._rng.randrange(1, 40))]

    def _label(self, who: int) -> None:
        tasks = self._claim(who)
        options = [self._rng.choices(OPTIONS[:2], (3, 1))[0] for _ in tasks]
        self._shop.label(who, *zip(tasks, options, strict=True))

    def _skip(self, who: int) -> None:
        tasks = self._claim(who)
        self._shop.enter(who, *(Skip(task, SkipReason.UNCLEAR) for task in tasks[:10]))

    def _release(self, who: int) -> None:
        self._shop.release(who, *self._claim(who))

    def _forget(self, who: int) -> None:
        if self._claim(who):
            self._shop.expire_leases()
            self._shop.do(lease_returns.return_leases, limit=100)

    def _review(self, who: int) -> None:
        held = self._shop.do(reviews.claim, who, limit=10, lease_s=600)
        tasks = [each.task.task_id for each in held]
        said = [Decision(task, self._rng.choice([*OPTIONS[:2], None])) for task in tasks]
        self._shop.do(reviews.decide, who, said)

    def _exclude(self, who: int) -> None:
        if self._rng.random() < 0.3:
            self._shop.do(exclusions.exclude, self.job.job_no, who)
            self._shop.set_aside()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rule",
    [
        {"consensus_threshold": 1},
        {"consensus_threshold": 3, "skips_max": 2},
        {"consensus_threshold": 2, "review_share": 5_000, "review_deadline": 24},
        {"consensus_threshold": 5, "stop_early": True},
        {"consensus_threshold": 1, "target_confidence": 9_000, "labels_max": 5},
    ],
    ids=" ".join,
)
def test_labels_left_are_those_of_the_rows(shop: Shop, rule: dict[str, Any], seed: int) -> None:
    made = RandomJob(shop, seed, **rule)
    for _ in range(40):
        made.go_on()
        if shop.job(made.job).settled_at is not None:
            break
        assert measured(shop, made.job).labels_left == count_by_rows(shop, made.job)
