"""Jobs that ended long ago are deleted where an operator wants that, and what takes the disk is shown."""

import re
from pathlib import Path

import msgspec
import pytest

from blocks import housekeeping
from blocks.settings import Settings
from blocks.store import audit, deleted_jobs, jobs, sizes
from blocks.store.jobs import Job
from tests.support.cli import Cli
from tests.support.mixed_job import make_mixed_job
from tests.support.removal import remove_all
from tests.support.side import at_once, wait_until
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration

OPERATORS = Path(__file__).parents[2] / "docs" / "operators.md"


def ended(shop: Shop, *, days: int) -> Job:
    """A cancelled job of three tasks that ended so long ago."""
    job = shop.processing(make_chunk(3))
    shop.do(jobs.cancel, job.job_no)
    back = "update jobs set completed_at = now() - make_interval(days => %s) where job_no = %s"
    shop.run(back, days, job.job_no)
    return job


def test_housekeeping_deletes_jobs_that_ended_long_ago_and_no_others(
    shop: Shop, settings: Settings
) -> None:
    for days in (91, 100):
        ended(shop, days=days)
    young, under_way = ended(shop, days=89), shop.processing(make_chunk(1))
    undelivered = make_mixed_job(shop, "completed", options=3)
    assert shop.do(jobs.redeliver, undelivered, DELIVERY, b"{}", shop.vault)
    shop.run(
        "update jobs set completed_at = now() - interval '1 year' where completed_at > now() - interval '1 day'"
    )
    kept = {young.job_id, under_way.job_id, undelivered.job_id}
    assert housekeeping.keep_house(shop.database, settings).jobs_deleted == 0
    keeping = msgspec.structs.replace(settings, keep_days=90)
    assert housekeeping.keep_house(shop.database, keeping).jobs_deleted == 2
    assert {row["job_id"] for row in shop.run("select job_id from jobs")} == kept
    assert shop.value("select count(distinct job_no) from pages") == 3
    lines = shop.do(audit.list_page, audit.Filter(), limit=9).lines
    assert [(line.action, line.details) for line in lines] == [
        (audit.Action.JOB_DELETED, {"older_than_days": 90})
    ] * 2
    assert {line.actor_role for line in lines} == {audit.ActorRole.HOUSEKEEPING}
    assert {line.target_id for line in lines} & kept == set()


def test_any_number_of_processes_delete_each_old_job_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_DELETED_MAX", 2)
    for _ in range(9):
        ended(shop, days=100)
    while sum(
        at_once(*[lambda: housekeeping.delete_old(shop.database, audit.HOUSEKEEPING, days=90)] * 3)
    ):
        pass
    remove_all(shop)
    assert shop.value("select count(*) from jobs") == 0
    assert shop.value("select count(*) from pages") == 0
    counted = "select coalesce(sum(amount), 0) from counts where name = 'jobs'"
    assert shop.value(counted) == 0


def test_the_oldest_jobs_are_found_by_index(shop: Shop) -> None:
    shop.run("set enable_seqscan = off")
    values = {"days": 90, "customer_id": None, "limit": 100}
    with shop.database.transaction() as tx:
        statement = deleted_jobs._SQL["take_old"].as_string(tx)
        plan = tx.cursor().execute(f"explain (format text) {statement}", values).fetchall()
    assert any("jobs_ended" in line["QUERY PLAN"] for line in plan), plan


@pytest.fixture
def operators(cli: Cli, shop: Shop) -> Cli:
    cli.say(REFINERY_DATABASE_URL=shop.url, ASG_ENCRYPTION_KEY="00" * 32, COLUMNS="80")
    return cli


def test_an_operator_purges_old_jobs(operators: Cli, shop: Shop) -> None:
    for _ in range(2):
        ended(shop, days=100)
    ended(shop, days=1)
    asked = ("purge", "--older-than", "90d", "--json")
    assert operators.done(*asked, "--dry-run").json == {
        "jobs": 2, "lines": 6, "bytes": 2_000_000, "deleted": 0,
    }  # fmt: skip
    assert shop.value("select count(*) from jobs") == 3
    assert operators(*asked, "--customer", "cust_unknown").code != 0
    assert operators.done(*asked, "--customer", shop.customer_id).json["deleted"] == 2
    assert shop.value("select count(distinct job_no) from pages") == 1
    assert operators("purge", "--older-than", "90").code == 2
    lines = shop.do(audit.list_page, audit.Filter(customer_id=shop.customer_id), limit=9).lines
    assert [(line.actor_role, line.details) for line in lines] == [
        (audit.ActorRole.COMMAND_LINE, {"older_than_days": 90})
    ] * 2


def test_every_table_is_in_one_group_of_sizes_and_has_one_row_of_what_is_kept(shop: Shop) -> None:
    query = "select table_name as name from information_schema.tables where table_schema = 'public'"
    tables = sorted(row["name"] for row in shop.run(query))
    tables.remove("migrations")  # made by whoever migrates
    assert sorted(" ".join(sizes.GROUPS.values()).split()) == tables
    section = OPERATORS.read_text("utf-8").partition("## What is kept for how long")[2]
    rows = [row for row in section.partition("\n## ")[0].splitlines() if row.startswith("| `")]
    named = [name for row in rows for name in re.findall("`([a-z_]+)`", row.split("|")[1])]
    assert sorted(named) == tables


def test_what_takes_the_disk_is_shown_in_80_columns(operators: Cli, shop: Shop) -> None:
    shop.processing(make_chunk(1000))
    shop.run("analyze")
    shown = operators.done("db", "size")
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    found = operators.done("db", "size", "--json").json
    of = {each["name"]: each for each in found["groups"]}
    assert found["lines"] == 1000
    assert of["lines"]["rows"] == shop.value("select (select count(*) from pages) + 1")
    pages = shop.value("select pg_table_size('pages')")
    assert pages < of["lines"]["table_bytes"] < of["all"]["table_bytes"]


def test_rows_of_a_table_that_was_never_analyzed_are_counted(shop: Shop) -> None:
    shop.run("insert into gold_tasks select 1, n, 1 from generate_series(0, 2) n")

    def are_counted() -> bool:
        return any((each.name, each.rows) == ("lines", 3) for each in shop.do(sizes.measure))

    wait_until(are_counted)
