"""`refinery ops`: what an operator sees and does over all customers, from a terminal."""

import io
import sys
from typing import Any

import pytest

from blocks.store import customers, jobs, runs
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.cli import Cli, settled_job
from tests.support.side import at_once
from tests.support.store_shop import DELIVERY, Shop, make_chunk, take

pytestmark = pytest.mark.integration


@pytest.fixture
def ops(cli: Cli, shop: Shop) -> Cli:
    """The command with an operator's key."""
    cli.say(REFINERY_API_KEY=shop.do(customers.add_admin_key, "Ona"))
    return cli


def another(shop: Shop) -> Job:
    """A job of another customer."""
    return shop.submit(customer_id=shop.do(customers.add_customer, "Other"))


def stop(shop: Shop, job: Job) -> None:
    """Stop a job's run, as an operator does in Prefect; a launcher that asks just now changes nothing."""
    shop.run(
        "update runs set not_before = 'infinity', launches = 7, launched_at = null, failures = 0"
        " where job_no = %s",
        job.job_no,
    )


def launch(shop: Shop, job: Job) -> None:
    """Have a run of Prefect do the job's work."""
    shop.run(
        "update runs set launched_at = now(), launches = 8, flow_run_id = gen_random_uuid()"
        " where job_no = %s",
        job.job_no,
    )


def refuse_delivery(shop: Shop) -> str:
    """A job whose delivery was refused."""
    job_id = settled_job(shop, delivery=DELIVERY)
    job_no = shop.value("select job_no from jobs where job_id = %s", job_id)
    shop.do(jobs.begin_delivery, job_no, 8 * 2**20)
    shop.do(jobs.refuse_delivery, job_no, "access_denied", "no")
    return job_id


def listed(ops: Cli, *filters: str) -> list[str]:
    return [job["job_id"] for job in ops.done("ops", "jobs", *filters, "--json").json["jobs"]]


def test_jobs_of_all_customers_are_listed_by_filters(ops: Cli, shop: Shop) -> None:
    undelivered = refuse_delivery(shop)
    mine, theirs = shop.processing(make_chunk(3)), another(shop)
    stop(shop, theirs)
    shop.run(
        "update jobs set created_at = now() - interval '3 hours' where job_no = %s", mine.job_no
    )
    assert listed(ops) == [theirs.job_id, mine.job_id, undelivered]
    assert listed(ops, "--customer", theirs.customer_id) == [theirs.job_id]
    assert listed(ops, "--status", "completed") == [undelivered]
    assert listed(ops, "--older-than", "2h") == [mine.job_id]
    assert listed(ops, "--waiting-for", "prefect") == [theirs.job_id]
    assert listed(ops, "--stuck") == [theirs.job_id, undelivered]
    assert listed(ops, "--search", mine.job_id) == [mine.job_id]
    shown = ops.done("ops", "jobs", "--limit", "2")
    assert (undelivered in shown.out, "There are more" in shown.err) == (False, True)
    assert "An operator has stopped the run" in shown.out


def test_jobs_of_a_stream_are_chosen(ops: Cli, api: Api, shop: Shop) -> None:
    mine, theirs, plain = shop.submit(), another(shop), shop.submit()
    for job in (mine, theirs):
        for stream in ("daily", "weekly") if job is mine else ("daily",):
            shop.run(
                "insert into streams (customer_id, stream) values (%s, %s)", job.customer_id, stream
            )
            shop.run(
                "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no)"
                " values (%s, %s, 's3://manifests/one.jsonl', '1', %s)",
                job.customer_id, stream, job.job_no,
            )  # fmt: skip
    assert listed(ops, "--stream", "daily") == [theirs.job_id, mine.job_id]
    assert listed(ops, "--stream", "daily", "--customer", mine.customer_id) == [mine.job_id]
    assert listed(ops, "--stream", "weekly", "--status", "processing") == []
    assert listed(ops, "--stream", "weekly", "--search", plain.job_id) == []
    assert listed(ops, "--stream", "dai") == []
    dry = ops.done("ops", "priority", "--to", "9", "--stream", "daily", "--dry-run")
    assert {line.split()[0] for line in dry.out.splitlines()} == {mine.job_id, theirs.job_id}
    shown = api.get("/v1/jobs?stream=daily").json()["jobs"]  # a customer's key sees its own
    assert [job["job_id"] for job in shown] == [mine.job_id]
    page = api.get("/v1/jobs?stream=daily&limit=1", ops_headers(api, shop)).json()
    cursor = page["next_cursor"]
    rest = api.get(f"/v1/jobs?stream=daily&limit=1&cursor={cursor}", ops_headers(api, shop)).json()
    assert [job["job_id"] for job in page["jobs"] + rest["jobs"]] == [theirs.job_id, mine.job_id]
    assert rest["next_cursor"] is None


def ops_headers(api: Api, shop: Shop) -> dict[str, str]:
    return api.bearer(shop.do(customers.add_admin_key, "Ona"))


def test_many_jobs_are_cancelled_and_each_says_what_came_of_it(ops: Cli, shop: Shop) -> None:
    doomed, kept = [shop.submit() for _ in range(3)], another(shop)
    over = settled_job(shop)
    chosen = ("--customer", shop.customer_id)
    dry = ops.done("ops", "cancel", *chosen, "--dry-run")
    assert {line.split()[0] for line in dry.out.splitlines()} == {job.job_id for job in doomed}
    assert shop.value("select count(*) from jobs where status = 'cancelled'") == 0
    done = ops.done("ops", "cancel", *chosen)
    assert sorted(done.out.splitlines()) == sorted(f"{job.job_id}  cancelled" for job in doomed)
    assert ops.done("ops", "cancel", *chosen, "--json").json == {"jobs": []}
    assert listed(ops, "--status", "accepted") == [kept.job_id]
    again = ops("ops", "cancel", over, kept.job_id)
    assert (again.code, again.out.count("  cancelled")) == (1, 1)
    assert "1 of 2 jobs were refused" in again.err
    assert f"{over}  " in again.out
    assert shop.value("select count(*) from audit_log where action = 'job_cancelled'") == 4


def test_ids_come_from_standard_input_and_two_jobs_want_a_yes_on_a_terminal(
    ops: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = [shop.submit().job_id for _ in range(2)]
    typed = "\n".join([*doomed, doomed[0], ""])
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    monkeypatch.setattr("api.cli.bulk.is_terminal", lambda: True)
    asked = ops("ops", "cancel", "-")
    assert (asked.code, "--yes" in asked.err, "2 jobs" in asked.err) == (2, True, True)
    assert shop.value("select count(*) from jobs where status = 'cancelled'") == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert ops.done("ops", "cancel", "-", "--yes").out.count("cancelled") == 2
    assert ops.done("ops", "cancel", doomed[0]).out.count("cancelled") == 1
    for wrong in ((), (doomed[0], "--stuck")):
        assert ops("ops", "cancel", *wrong).code == 2


@pytest.mark.parametrize("act", ["cancel", "deliver", "retry"])
@pytest.mark.parametrize("typo", ["--dryrun", "-n", "--dry", "", "17", "acme"])
def test_nothing_is_asked_for_where_one_word_is_no_id(
    ops: Cli, shop: Shop, act: str, typo: str
) -> None:
    job = shop.submit()
    for words in ((job.job_id, typo), (typo, job.job_id)):
        assert ops("ops", act, *words).code == 2
    assert shop.value("select status from jobs") == "accepted"
    assert shop.value("select count(*) from audit_log") == 0


def test_work_that_was_stopped_or_waits_is_launched_again(ops: Cli, shop: Shop) -> None:
    stopped, waiting = shop.submit(), another(shop)
    stop(shop, stopped)
    launch(shop, waiting)
    done = ops("ops", "retry", stopped.job_id, waiting.job_id)
    assert done.code == 1  # one has a run
    assert done.out.splitlines()[0] == f"{stopped.job_id}  retried"
    assert "waits for a run" in done.out.splitlines()[1]
    query = "select isfinite(not_before) from runs where job_no = %s"
    assert shop.value(query, stopped.job_no)
    assert shop.value("select count(*) from audit_log where action = 'job_retried'") == 1


def test_refused_deliveries_are_tried_again(ops: Cli, shop: Shop) -> None:
    refused = refuse_delivery(shop)
    done = ops.done("ops", "deliver", "--stuck")
    assert done.out == f"{refused}  is delivered again\n"
    assert shop.value("select delivery_status from jobs where job_id = %s", refused) == "pending"
    assert ops("ops", "deliver", refused).code == 1  # it is under way


def test_two_operators_who_retry_at_once_do_it_once(shop: Shop) -> None:
    job = shop.submit()
    stop(shop, job)

    def retry() -> Any:
        return shop.do(runs.make_due, job.job_no)

    assert sorted(at_once(retry, retry), key=len) == [[], ["process_job"]]
    assert take(shop) is not None
    assert retry() is None


def test_customers_streams_and_work_are_listed_page_by_page(ops: Cli, shop: Shop) -> None:
    stopped, launched = shop.submit(), another(shop)
    stop(shop, stopped)
    launch(shop, launched)
    refused = refuse_delivery(shop)
    shop.processing(make_chunk(3))
    for name in ("daily", "weekly"):
        shop.run(
            "insert into streams (customer_id, stream) values (%s, %s)", shop.customer_id, name
        )
    shop.run(
        "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no)"
        " select customer_id, 'daily', manifest_url, job_id, job_no from jobs where customer_id = %s",
        shop.customer_id,
    )
    found = {
        each["customer_id"]: each
        for each in ops.done("ops", "customers", "--json").json["customers"]
    }
    mine = found[shop.customer_id]
    assert {status: count for status, count in mine["jobs"].items() if count} == {
        "accepted": 1, "processing": 1, "completed": 1,
    }  # fmt: skip
    assert (mine["open_tasks"], mine["runs_under_way"], mine["runs_waiting"]) == (3, 0, 1)
    assert found[launched.customer_id]["runs_under_way"] == 1
    (daily, weekly) = ops.done("ops", "streams", "--json").json["streams"]
    assert (daily["stream"], daily["open"], daily["failed"]) == ("daily", 2, 1)
    assert (weekly["latest_at"], weekly["open"]) == (None, 0)
    of_other = ops.done("ops", "streams", "--customer", launched.customer_id, "--json")
    assert of_other.json["streams"] == []
    assert refused not in ops.done("ops", "runs").out
    for status, job in (("stopped", stopped), ("under_way", launched)):
        (work,) = ops.done("ops", "runs", "--status", status, "--json").json["runs"]
        assert work["job_id"] == job.job_id
    for command in ("customers", "streams", "runs"):
        one = ops.done("ops", command, "--limit", "1", "--json").json
        assert len(one[command]) == 1
        assert one["next_cursor"]
        assert "There are more" in ops.done("ops", command, "--limit", "1").err


def test_pages_of_lists_meet_without_a_gap(api: Api, shop: Shop) -> None:
    admin = api.bearer(shop.do(customers.add_admin_key, "Ona"))
    for _ in range(4):
        another(shop)
    for n in range(5):
        shop.run(
            "insert into streams (customer_id, stream) values (%s, %s)", shop.customer_id, f"s/{n}"
        )
    for name, key in (("customers", "customer_id"), ("streams", "stream"), ("runs", "job_id")):
        path, seen, cursor = f"/v1/operations/{name}?limit=2", [], ""
        while True:
            page = api.get(path + cursor, admin).json()
            seen += [each[key] for each in page[name]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        whole = [each[key] for each in api.get(f"/v1/operations/{name}", admin).json()[name]]
        assert seen == whole
        assert len(set(seen)) == len(seen) >= 4
        assert api.get(f"{path}&cursor=nothing", admin).status_code == 400


def test_a_customer_retries_nothing(api: Api, shop: Shop) -> None:
    job = shop.submit()
    path = f"/v1/operations/jobs/{job.job_id}/retry"
    admin = api.bearer(shop.do(customers.add_admin_key, "Ona"))
    for headers in (api.customer, api.annotator):
        assert api.post(path, None, headers).status_code == 403
    assert api.post(f"/v1/operations/jobs/job_{'0' * 22}/retry", None, admin).status_code == 404
    stop(shop, job)
    assert api.post(path, None, admin).status_code == 202
    launch(shop, job)
    answer = api.post(path, None, admin)
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_waits")
