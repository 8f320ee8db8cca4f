"""An operator pauses a job, or all of a customer's: nothing new is begun, nothing is lost, and it goes on."""

from typing import Any
from uuid import uuid4

import pytest

from api.routes.job_views import JobView, views
from blocks.domain.model import JobStatus, LabelOutcome, WaitsFor
from blocks.prefect.reconciler import reconcile
from blocks.settings import Settings
from blocks.store import customers, jobs, pauses, reviews, runs, waits
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.cli import Cli
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, Shop, make_chunk, take

pytestmark = pytest.mark.integration

ALL_REVIEWED: dict[str, Any] = {"consensus_threshold": 1, "review_share": 10_000}
WHAT = ["job", "customer"]


def pause(shop: Shop, job: Job, what: str = "job") -> bool:
    if what == "job":
        return bool(shop.do(pauses.pause_job, job.job_no))
    return bool(shop.do(pauses.pause_customer, job.customer_id))


def resume(shop: Shop, job: Job, what: str = "job") -> bool:
    if what == "job":
        return bool(shop.do(pauses.resume_job, job.job_no))
    return bool(shop.do(pauses.resume_customer, job.customer_id))


def seen(shop: Shop, job: Job) -> JobView:
    found: list[JobView] = shop.do(views, [shop.job(job)])
    return found[0]


def row(shop: Shop, job: Job) -> dict[str, Any]:
    (found,) = shop.run("select * from runs where job_no = %s", job.job_no)
    return found


# Runs


@pytest.mark.parametrize("what", WHAT)
def test_no_run_is_launched_for_a_paused_job_and_one_is_after_it(shop: Shop, what: str) -> None:
    job, other = shop.submit(), shop.submit(customer_id=shop.do(customers.add_customer, "Other"))
    assert pause(shop, job, what)
    assert not pause(shop, job, what)
    taken = take(shop)
    assert taken is not None
    assert taken.job_id == other.job_id
    assert take(shop) is None
    assert resume(shop, job, what)
    assert not resume(shop, job, what)
    taken = take(shop)
    assert taken is not None
    assert taken.job_id == job.job_id


def test_a_job_that_is_posted_while_its_customer_is_being_paused_is_not_missed(shop: Shop) -> None:
    earlier = shop.submit()
    with shop.held() as posting:
        job_id, _ = jobs.submit(posting, shop.new_job(), shop.vault)
        assert pause(shop, earlier, "customer")  # nobody waits for the other
    assert take(shop) is None
    later = shop.job(job_id)
    assert seen(shop, later).paused_at == seen(shop, earlier).paused_at is not None
    assert resume(shop, earlier, "customer")
    assert {launch.job_id for launch in (take(shop), take(shop)) if launch} == {
        earlier.job_id,
        later.job_id,
    }


def test_a_launcher_that_is_just_taking_a_job_waits_for_its_pause(shop: Shop) -> None:
    job = shop.submit()
    with shop.held() as operator:
        assert pauses.pause_job(operator, job.job_no)
        launcher = Side(lambda: take(shop))
        shop.wait_for_waiters(1)
    assert launcher.join() is None
    assert row(shop, job)["launched_at"] is None


def test_a_pause_that_is_not_committed_pauses_nothing(shop: Shop) -> None:
    job = shop.submit()
    with shop.given_up() as tx:
        pauses.pause_job(tx, job.job_no)
        pauses.pause_customer(tx, job.customer_id)
    assert take(shop) is not None
    assert seen(shop, job).paused_at is None


@pytest.mark.parametrize("what", WHAT)
def test_of_operators_who_resume_at_once_one_does(shop: Shop, what: str) -> None:
    job = shop.submit()
    pause(shop, job, what)
    acts = [lambda: resume(shop, job, what)] * 3
    assert sorted(at_once(*acts)) == [False, False, True]
    assert take(shop) is not None


def test_work_that_comes_up_during_a_pause_waits_as_well(shop: Shop) -> None:
    """The last label is taken, and so the delivery is due."""
    job = shop.processing(make_chunk(1), consensus_threshold=1, delivery=DELIVERY)
    annotator = shop.annotator()
    (claimed,) = shop.claim(annotator)
    pause(shop, job)
    assert shop.label(annotator, (claimed.task_id, "cat")) == [LabelOutcome.SETTLED]
    assert (row(shop, job)["kind"], row(shop, job)["is_paused"]) == ("deliver_job", True)
    assert take(shop) is None
    shop.run("delete from runs")
    assert shop.do(runs.add_missing, limit=10) == 1
    assert take(shop) is None
    resume(shop, job)
    taken = take(shop)
    assert taken is not None
    assert taken.kind == "deliver_job"


def launched(shop: Shop) -> Any:
    taken = take(shop)
    assert taken is not None
    run_id = uuid4()
    shop.do(runs.record_launch, taken, str(run_id))
    return run_id


def test_a_run_that_lays_its_work_down_loses_no_resumption(shop: Shop) -> None:
    """It has seen the pause, and the operator resumes the job before the run can say so."""
    job = shop.submit()
    run_id = launched(shop)
    pause(shop, job)
    resume(shop, job)
    assert take(shop) is None  # a run has it in hand
    assert shop.do(runs.lay_down, job.job_id, "process_job", run_id)
    assert not shop.do(runs.lay_down, job.job_id, "process_job", run_id)
    assert take(shop) is not None


def test_the_run_of_a_paused_job_that_was_killed_is_followed_by_one_after_the_pause(
    shop: Shop, prefect: Any
) -> None:
    """Prefect knows nothing of the run any more; reconcile gives its place back, and no more."""
    from blocks.prefect.api import PrefectApi

    job = shop.submit()
    launched(shop)
    pause(shop, job)
    settings = Settings(database_url="", encryption_key="00" * 32, prefect_api_url=prefect.url)
    with PrefectApi(settings) as known:
        assert reconcile(shop.database, known, settings).runs_relaunched == 1
        assert reconcile(shop.database, known, settings).runs_relaunched == 0
    assert take(shop) is None
    assert shop.job(job).status is JobStatus.ACCEPTED
    resume(shop, job)
    assert take(shop) is not None


@pytest.mark.parametrize("what", WHAT)
def test_failures_end_no_paused_job_and_are_forgotten_when_it_goes_on(
    shop: Shop, what: str
) -> None:
    job = shop.submit()
    launched(shop)
    fail = {"reason": "The store is away.", "delay_s": 900.0, "wait_s_max": 0.0}
    assert shop.do(waits.record_failure, job.job_id, "process_job", **fail).is_over
    pause(shop, job, what)
    assert not shop.do(waits.record_failure, job.job_id, "process_job", **fail).is_over
    resume(shop, job, what)
    assert (row(shop, job)["tries"], row(shop, job)["failing_since"]) == (0, None)


@pytest.mark.parametrize("what", WHAT)
def test_a_run_for_many_small_jobs_takes_no_paused_one(shop: Shop, what: str) -> None:
    for _ in range(1 + runs.QUEUE_MIN):
        shop.submit()
    run_id = launched(shop)
    first = shop.job(shop.value("select job_id from jobs order by job_no offset 1 limit 1"))
    pause(shop, first, what)
    more = shop.do(runs.take_more, shop.customer_id, run_id, per_customer_max=4)
    assert (more is None) == (what == "customer")
    assert more is None or more.job_id != first.job_id


# Tasks


@pytest.mark.parametrize("what", WHAT)
def test_no_task_of_a_paused_job_is_handed_out_and_held_ones_may_be_labelled(
    shop: Shop, what: str
) -> None:
    job = shop.processing(make_chunk(4), consensus_threshold=1)
    one, two = shop.annotators(2)
    held = shop.claim(one, 2)
    pause(shop, job, what)
    assert shop.claim(one) == shop.claim(two) == []
    assert shop.label(one, (held[0].task_id, "cat")) == [LabelOutcome.SETTLED]
    assert shop.release(one, held[1].task_id) == {held[1].task_id}
    assert shop.claim(two) == []
    resume(shop, job, what)
    assert len(shop.claim(two)) == 3


def test_a_claim_passes_over_paused_jobs_to_those_of_others(shop: Shop) -> None:
    paused = shop.processing(make_chunk(2), priority=9)
    other = shop.processing(make_chunk(2), customer_id=shop.do(customers.add_customer, "Other"))
    pause(shop, paused)
    assert {task.job.job_id for task in shop.claim(shop.annotator())} == {other.job_id}
    resume(shop, paused)
    pause(shop, paused, "customer")
    assert {task.job.job_id for task in shop.claim(shop.annotator())} == {other.job_id}


def under_review(shop: Shop) -> Job:
    job = shop.processing(make_chunk(2), **ALL_REVIEWED)
    shop.answer(shop.annotator(), "cat")
    return job


def due_in_h(shop: Shop) -> float:
    return float(
        shop.value("select extract(epoch from min(due_at) - now())::float8 / 3600 from reviews")
    )


def go_back(shop: Shop, hours: int) -> None:
    """So many hours pass."""
    by = f"interval '{hours} hours'"
    shop.run(f"update jobs set paused_at = paused_at - {by}")
    shop.run(f"update customers set paused_at = paused_at - {by}")
    shop.run(f"update reviews set due_at = due_at - {by}, created_at = created_at - {by}")


@pytest.mark.parametrize("what", WHAT)
def test_reviews_of_a_paused_job_wait_and_get_their_time_back(shop: Shop, what: str) -> None:
    job = under_review(shop)
    go_back(shop, 100)
    pause(shop, job, what)
    go_back(shop, 200)
    reviewer = shop.annotator()
    assert shop.do(reviews.time_out, limit=10) == 0
    assert shop.do(reviews.claim, reviewer, limit=9, lease_s=60) == []
    resume(shop, job, what)
    assert due_in_h(shop) == pytest.approx(68, abs=0.1)
    assert len(shop.do(reviews.claim, reviewer, limit=9, lease_s=60)) == 2
    go_back(shop, 69)
    assert shop.do(reviews.time_out, limit=10) == 2


@pytest.mark.parametrize("first, then", [WHAT, WHAT[::-1]])
@pytest.mark.parametrize("is_nested", [False, True])
def test_time_that_is_lost_by_two_pauses_is_given_back_once(
    shop: Shop, first: str, then: str, is_nested: bool
) -> None:
    job = under_review(shop)
    pause(shop, job, first)
    go_back(shop, 10)
    pause(shop, job, then)
    go_back(shop, 20)
    inner, outer = (then, first) if is_nested else (first, then)
    resume(shop, job, inner)
    assert shop.do(reviews.claim, shop.annotator(), limit=9, lease_s=60) == []
    go_back(shop, 30)
    resume(shop, job, outer)
    assert due_in_h(shop) == pytest.approx(168, abs=0.1)


def test_who_resumes_waits_for_decisions_and_not_in_a_circle(shop: Shop) -> None:
    job = under_review(shop)
    pause(shop, job)
    go_back(shop, 5)
    with shop.held() as decision:
        decision.execute("select from reviews order by task_no for update")
        operator = Side(lambda: resume(shop, job))
        shop.wait_for_waiters(1)
        decision.execute("select from jobs where job_no = %s for update", [job.job_no])
    assert operator.join()
    assert due_in_h(shop) == pytest.approx(168, abs=0.1)


# What is seen of it


def test_a_paused_job_says_so_until_it_has_ended(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=1)
    annotator = shop.annotator()
    (claimed,) = shop.claim(annotator)
    assert seen(shop, job).paused_at is None
    pause(shop, job, "customer")
    pause(shop, job)
    waiting = seen(shop, job).waiting_for
    assert waiting is not None
    assert (waiting.what, waiting.since) == (WaitsFor.OPERATOR, seen(shop, job).paused_at)
    assert "all jobs of the customer" in waiting.reason
    resume(shop, job, "customer")
    waiting = seen(shop, job).waiting_for
    assert waiting is not None
    assert "has paused the job" in waiting.reason
    shop.label(annotator, (claimed.task_id, "cat"))
    over = seen(shop, job)
    assert (over.status, over.paused_at, over.waiting_for) == (JobStatus.COMPLETED, None, None)


def test_operators_pause_and_resume_by_the_api_and_it_is_in_the_log(api: Api, shop: Shop) -> None:
    admin = api.bearer(shop.do(customers.add_admin_key, "Ona"))
    job = shop.submit()
    operations = "/v1/operations"
    of_job, of_customer = (
        f"{operations}/jobs/{job.job_id}",
        f"{operations}/customers/{shop.customer_id}",
    )
    for path in (of_job, of_customer):
        for headers in (api.customer, api.annotator):
            assert api.post(f"{path}/pause", None, headers).status_code == 403
        for act in ("pause", "pause", "resume", "resume", "pause"):
            answer = api.post(f"{path}/{act}", None, admin)
            assert answer.status_code == 200
            assert (answer.json()["paused_at"] is not None) == (act == "pause")
    posted = api.submit()
    assert posted.status_code == 202
    shown = api.get(posted.headers["location"]).json()
    assert shown["waiting_for"]["what"] == "operator"
    assert shown["paused_at"] == shown["waiting_for"]["since"]
    (found,) = [
        each
        for each in api.get(f"{operations}/customers", admin).json()["customers"]
        if each["customer_id"] == shop.customer_id
    ]
    assert found["paused_at"] is not None
    statuses = {each["status"] for each in api.get(f"{operations}/runs", admin).json()["runs"]}
    assert statuses == {"paused"}
    shop.do(jobs.cancel, job.job_no)
    api.post(f"{of_customer}/resume", None, admin)
    assert api.post(f"{of_job}/pause", None, admin).json()["code"] == "job_ended"
    for unknown in (f"jobs/job_{'0' * 22}", f"customers/cust_{'0' * 22}", "customers/nobody"):
        for act in ("pause", "resume"):
            assert api.post(f"{operations}/{unknown}/{act}", None, admin).status_code == 404
    lines = shop.run("select action, actor_name, customer_id from audit_log order by audit_no")
    assert [line["action"] for line in lines if line["action"].endswith(("paused", "resumed"))] == [
        "job_paused", "job_resumed", "job_paused",
        "customer_paused", "customer_resumed", "customer_paused", "customer_resumed",
    ]  # fmt: skip
    assert {(line["actor_name"], line["customer_id"]) for line in lines} == {
        ("Ona", shop.customer_id)
    }


def test_many_jobs_or_a_customer_are_paused_from_a_terminal(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.say(REFINERY_API_KEY=shop.do(customers.add_admin_key, "Ona"))
    mine = [shop.submit(), shop.submit()]
    other = shop.submit(customer_id=shop.do(customers.add_customer, "Other"))
    chosen = ("--customer", shop.customer_id, "--status", "accepted")
    dry = cli.done("ops", "pause", *chosen, "--dry-run")
    assert dry.out.count("would be asked to pause") == 2
    assert cli.done("ops", "pause", *chosen).out.count("  paused") == 2
    assert cli.done("ops", "pause", *chosen).out == ""  # they are
    listed = cli.done("ops", "jobs", "--waiting-for", "operator", "--json").json["jobs"]
    assert {job["job_id"] for job in listed} == {job.job_id for job in mine}
    assert cli.done("ops", "resume", mine[0].job_id).out == f"{mine[0].job_id}  resumed\n"
    assert shop.value("select count(*) from jobs where paused_at is not null") == 1
    whole = ("--customer", other.customer_id)
    assert "would be asked" in cli.done("ops", "pause", *whole, "--dry-run").out
    monkeypatch.setattr("api.cli.bulk.is_terminal", lambda: True)
    assert cli("ops", "pause", *whole).code == 2
    assert cli.done("ops", "pause", *whole, "--yes").out == f"{other.customer_id}  paused\n"
    assert shop.job(other).customer_paused_at is not None
    assert shop.job(other).paused_at is None
    assert "paused" in cli.done("ops", "runs").out
    assert cli.done("ops", "pause", mine[0].job_id, "--yes").out.endswith("  paused\n")
    assert shop.do(pauses.pause_customer, shop.customer_id)
    alone = cli("ops", "resume", mine[0].job_id)
    assert (alone.code, "its customer" in alone.out) == (1, True)
    done = cli.done("ops", "resume", *whole, "--yes", "--json").json
    assert done == {"customer_id": other.customer_id, "outcome": "done"}
    assert shop.job(other).customer_paused_at is None
