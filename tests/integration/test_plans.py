"""What claims and labels touch with a million open tasks: pages are counted, not seconds."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import polars as pl
import pytest

from blocks.domain.model import LabelOutcome, SkipReason
from blocks.lines.archived_labels import LABEL_COLUMNS, make_archived
from blocks.store import (
    annotation,
    customers,
    disagreements,
    label_changes,
    labelling,
    pace,
    quality,
    results,
    waits,
)
from blocks.store.database import Transaction
from blocks.store.disagreements import Filter, State
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry, Replacement, Skip
from blocks.store.labelling import Label
from tests.support.plans import Explained
from tests.support.servers import DatabaseServer
from tests.support.store_shop import OPTIONS, Shop, make_chunk, open_shop

pytestmark = pytest.mark.integration

PAGE = 250
OPEN_TASKS = 1_000_000
BATCH = 10
# A look-up by key reads four pages, an insert or an update as many again; a task takes some of each.
PAGES_FOR_A_CLAIM = 60 + 15 * BATCH
PAGES_FOR_LABELS = 60 + 25 * BATCH
PAGES_FOR_CHANGES = 200 + 75 * BATCH
# The first 64 pages of tasks, and the votes of those.
PAGES_FOR_AN_EXPORT = 2000
# Up to 1,000 tasks, each looked up in turn where no more are left.
PAGES_FOR_AN_OUTLOOK = 200
# Up to 100 tasks with a tally each, and as many vacancies.
PAGES_FOR_WANTED_ANNOTATORS = 500
# The latest 1,000 requests and the votes of the first 1,000 tasks, each of which may be on a page of its own.
PAGES_FOR_A_PACE = 2500
# The votes of 4,096 tasks, 30 on a page, and for each of 100 of them two labels.
PAGES_FOR_DISAGREEMENTS = 1500


@pytest.fixture(scope="module")
def crowded(database_server: DatabaseServer) -> Iterator[tuple[Shop, Job]]:
    """A job with a million tasks, each with a label of annotator 1 and two places to come."""
    with open_shop(database_server) as shop:
        alone = shop.annotator()
        job = shop.processing(make_chunk(PAGE))
        # All pages are alike: what stands on them does not matter here.
        shop.run(
            "insert into pages select job_no, n * tasks, tasks, content "
            "from pages, generate_series(1, %s) n",
            OPEN_TASKS // PAGE - 1,
        )
        shop.run(
            "insert into tallies (job_no, task_no, labelled_at, latest, threshold, "
            "places, stop_early, votes, annotators) "
            "select %s, n, now(), 1, 3, 3, false, '{1,0,0}', array[%s] from generate_series(0, %s) n",
            job.job_no, alone, OPEN_TASKS - 1,
        )  # fmt: skip
        shop.run("update chunks set lines = %s, tasks = %s", OPEN_TASKS, OPEN_TASKS)
        shop.run(
            "update lanes set ends_at = %s, cursors = %s, annotators = %s",
            OPEN_TASKS, [OPEN_TASKS, 0, 0], [alone, 0, 0],
        )  # fmt: skip
        yield shop, job


def claim(shop: Shop, annotator: int, limit: int = BATCH) -> tuple[list[str], Explained]:
    with shop.held() as tx:
        explained = Explained(tx)
        claimed = annotation.claim(
            cast(Transaction, explained), annotator, limit=limit, lease_s=600
        )
    return [task.task_id for task in claimed], explained


def test_a_claim_reads_a_few_pages_for_each_task(crowded: tuple[Shop, Job]) -> None:
    shop, _ = crowded
    annotator = shop.annotator()
    for _ in range(2):
        tasks, explained = claim(shop, annotator)
        assert len(tasks) == BATCH
        explained.check(PAGES_FOR_A_CLAIM)


def test_who_has_had_all_tasks_learns_so_from_a_few_pages(crowded: tuple[Shop, Job]) -> None:
    shop, _ = crowded
    alone = shop.value("select min(annotator_no) from annotators")
    tasks, explained = claim(shop, alone)
    assert tasks == []
    explained.check(60)


def test_whether_more_may_come_is_known_from_a_bounded_number_of_tasks(
    crowded: tuple[Shop, Job],
) -> None:
    shop, job = crowded
    alone = shop.value("select min(annotator_no) from annotators")
    with shop.held() as tx:
        explained = Explained(tx)
        assert annotation.may_come(cast(Transaction, explained), alone, job.job_id)
    explained.check(PAGES_FOR_AN_OUTLOOK)


def test_a_claim_of_vacancies_reads_a_few_pages_for_each(crowded: tuple[Shop, Job]) -> None:
    shop, _ = crowded
    one, two = shop.annotators(2)
    tasks, _ = claim(shop, one)
    shop.release(one, *tasks)
    found, explained = claim(shop, two)
    assert sorted(found) == sorted(tasks)
    explained.check(PAGES_FOR_A_CLAIM)


@pytest.mark.parametrize("settles", [False, True])
def test_labels_read_a_few_pages_for_each(crowded: tuple[Shop, Job], settles: bool) -> None:
    shop, _ = crowded
    people = shop.annotators(2)
    tasks = [claim(shop, annotator)[0] for annotator in people]
    both = sorted(set(tasks[0]) & set(tasks[1])) or tasks[0]
    if settles:
        shop.label(people[0], *((task, "cat") for task in both))
    who = people[1] if settles else people[0]
    with shop.held() as tx:
        explained = Explained(tx)
        outcomes = labelling.submit(
            cast(Transaction, explained), who, [Label(task, OPTIONS[0]) for task in both]
        )
    assert set(outcomes) <= {LabelOutcome.SETTLED if settles else LabelOutcome.ACCEPTED}
    explained.check(PAGES_FOR_LABELS)


def test_skips_and_changes_read_a_few_pages_for_each(crowded: tuple[Shop, Job]) -> None:
    shop, _ = crowded
    annotator = shop.annotator()
    tasks, _ = claim(shop, annotator)
    shop.label(annotator, *((task, OPTIONS[0]) for task in tasks[: BATCH // 2]))
    entries: list[Entry] = [Replacement(task, OPTIONS[1]) for task in tasks[: BATCH // 2]]
    entries += [Skip(task, SkipReason.BROKEN) for task in tasks[BATCH // 2 :]]
    with shop.held() as tx:
        explained = Explained(tx)
        outcomes = label_changes.submit(cast(Transaction, explained), annotator, entries)
    assert set(outcomes) == {LabelOutcome.REPLACED, LabelOutcome.SKIPPED}
    explained.check(PAGES_FOR_CHANGES)


def test_an_export_reads_its_first_tasks_by_their_numbers(crowded: tuple[Shop, Job]) -> None:
    shop, job = crowded
    with shop.given_up() as tx:
        tx.execute("update chunks set settled = 1")
        tx.execute("update tallies set outcome = 1 where task_no = 0")
        explained = Explained(tx)
        found = next(results.read(cast(Transaction, explained), job.job_no))
    assert found.tasks["line"][0] == 1
    explained.check(PAGES_FOR_AN_EXPORT)


def disagree(tx: Transaction, job: Job, first: int) -> None:
    """Have annotators 1 and 2 say different things of 200 tasks from `first` on."""
    values = {"job_no": job.job_no, "first": first}
    tx.execute(
        "update tallies set votes = '{1,1,0}', annotators = '{1,2}' "
        "where job_no = %(job_no)s and task_no between %(first)s and %(first)s + 199",
        values,
    )
    tx.execute(
        "insert into labels select %(job_no)s, n, who, who from generate_series(%(first)s, %(first)s + 199) n, "
        "generate_series(1, 2) who",
        values,
    )


def archive_all_pages(tx: Transaction, job: Job) -> None:
    """Have labels of each page in the archive as well; all pages are alike."""
    labels = pl.DataFrame(
        {
            "task_no": [*range(PAGE)],
            "outcome": 1,
            "option": 1,
            "annotator_no": 1,
            "skill": None,
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        },
        schema=LABEL_COLUMNS,
    )
    tx.execute(
        "insert into archived_labels select %s, n * %s, %s from generate_series(0, %s) n",
        (job.job_no, PAGE, make_archived(labels, 0), OPEN_TASKS // PAGE - 1),
    )


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize(
    "wanted, found", [(Filter(), 100), (Filter([State.FAILED], 2, "ann_nobody"), 0)]
)
def test_a_page_of_disagreements_looks_at_a_bounded_number_of_tasks(
    crowded: tuple[Shop, Job],
    monkeypatch: pytest.MonkeyPatch,
    wanted: Filter,
    found: int,
    *,
    is_archived: bool,
) -> None:
    shop, job = crowded
    shop.annotators(2)
    monkeypatch.setattr(quality, "begin_snapshot", lambda _: None)  # it has no plan
    middle = OPEN_TASKS // 2
    with shop.given_up() as tx:
        disagree(tx, job, middle + 1000)
        if is_archived:
            archive_all_pages(tx, job)
        explained = Explained(tx)
        page = disagreements.list_page(
            cast(Transaction, explained), job.job_no,
            options=len(OPTIONS), limit=100, after=str(middle), wanted=wanted,
        )  # fmt: skip
    assert page is not None
    assert len(page.found) == found
    assert middle + 1000 < int(page.cursor or 0) <= middle + 4096
    explained.check(PAGES_FOR_DISAGREEMENTS)


def test_the_pace_of_a_job_is_known_from_a_bounded_number_of_requests(
    crowded: tuple[Shop, Job],
) -> None:
    shop, job = crowded
    with shop.given_up() as tx:
        tx.execute(
            "insert into label_batches (annotator_no, job_no, settled, created_at, task_nos) "
            "select 1 + n %% 50, %s, 0, now() - make_interval(secs => n / 100.0), '{1}' "
            "from generate_series(1, 50000) n",
            [job.job_no],
        )
        explained = Explained(tx)
        found = pace.measure(cast(Transaction, explained), job)
    assert found.labels_per_hour == pytest.approx(360_000, rel=0.1)
    explained.check(PAGES_FOR_A_PACE)


@pytest.mark.parametrize("annotators, is_short", [(0, True), (1, True), (25, False)])
def test_how_many_annotators_are_wanted_is_known_from_a_bounded_number_of_tasks(
    crowded: tuple[Shop, Job], annotators: int, is_short: bool
) -> None:
    shop, job = crowded
    shop.run("update api_keys set revoked_at = now()")
    shop.annotators(annotators)
    with shop.held() as tx:
        explained = Explained(tx)
        found = waits.find_waits(cast(Transaction, explained), [job])
    assert bool(found) is is_short
    explained.check(PAGES_FOR_WANTED_ANNOTATORS)


@pytest.mark.parametrize("is_granted", [True, False])
def test_annotators_whose_keys_were_revoked_are_not_looked_at(shop: Shop, is_granted: bool) -> None:
    """Nor are those of other customers."""
    job = shop.processing(make_chunk(3), consensus_threshold=2)
    customer_ids = None if is_granted else ["cust_other"]
    shop.run(
        "insert into annotators (annotator_id, name, customer_ids) "
        "select 'ann_' || n, n, %s from generate_series(1, 3000) n",
        customer_ids,
    )
    shop.run(
        "insert into api_keys (key_hash, annotator_no, revoked_at) "
        "select int4send(annotator_no), annotator_no, case when %s then now() end from annotators",
        is_granted,
    )
    for wanted in (2, 1, 0):
        with shop.held() as tx:
            explained = Explained(tx)
            found = waits.find_waits(cast(Transaction, explained), [job])
        assert [each.annotators for each in found.values()] == ([wanted] if wanted else [])
        explained.check(60)
        with shop.database.transaction() as tx:
            customers.add_annotator_key(
                tx, f"new {wanted}", [shop.customer_id] if wanted == 2 else []
            )
