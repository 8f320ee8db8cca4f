"""Labels of jobs that are over move to the archive, and nobody sees a difference but on the disk."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from blocks.domain.model import LabelOutcome
from blocks.store import archive, jobs, quality, results, tasks
from blocks.store.archive import ArchiveCorrupt, archive_some
from blocks.store.jobs import Job
from blocks.store.pages import PageCorrupt
from tests.support.mixed_job import make_mixed_job
from tests.support.side import at_once
from tests.support.store_shop import DELIVERY, OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

ENDS = ["completed", "cancelled", "failed"]


def archive_all(shop: Shop) -> int:
    """Archive whatever is over; the number of tasks."""
    total = 0
    while found := shop.do(archive_some, after_s=0):
        total += found
    return total


def seen(shop: Shop, job: Job) -> dict[str, Any]:
    """All that customers are told of a job's results."""
    with shop.database.long_read() as tx:
        exports = [b"".join(results.export(tx, job.job_no, after=after)) for after in (0, 700)]
    with shop.database.long_read() as tx:
        errors = b"".join(results.export_errors(tx, job.job_no))
    numbers = [task["task_no"] for task in shop.tasks()][::40]
    found = [
        shop.do(tasks.get, job.task_id(number), customer_id=shop.customer_id) for number in numbers
    ]
    return {
        "exports": exports,
        "errors": errors,
        "tasks": found,
        "quality": shop.do(quality.measure, job.job_no),
    }


def rows(shop: Shop) -> tuple[int, int]:
    """How many labels and tallies are in their tables."""
    labels, tallies = (shop.value(f"select count(*) from {each}") for each in ("labels", "tallies"))
    return labels, tallies


@pytest.mark.parametrize("end", ENDS)
def test_nothing_changes_for_a_customer_at_any_step(
    shop: Shop, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_PAGES_A_STEP", 1)
    job = make_mixed_job(shop, end, options=3)
    before = seen(shop, job)
    labels, _ = rows(shop)
    assert labels > 1000
    steps = 0
    while shop.do(archive_some, after_s=0):
        steps += 1
        assert seen(shop, job) == before
    assert steps >= 4
    assert rows(shop) == (0, 0)
    assert shop.value("select count(*) from jobs where archived_at is not null") == 1
    assert shop.value("select sum(tasks - archived) from chunks") == 0


def make_job_of_many_pages(shop: Shop) -> None:
    """Every few tasks have other annotators, labels and times."""
    rng = random.Random(1)
    job = shop.processing(make_chunk(1500))
    for annotator in shop.annotators(9):
        while tasks := shop.claim(annotator, rng.randrange(1, 90)):
            shop.label(annotator, *((task.task_id, rng.choice(OPTIONS)) for task in tasks))
            if rng.random() < 0.2:
                break
    shop.do(jobs.cancel, job.job_no)


def make_cancelled_job(shop: Shop) -> None:
    make_mixed_job(shop, "cancelled", options=3)


@pytest.mark.parametrize("make", [make_cancelled_job, make_job_of_many_pages])
def test_archived_labels_are_those_that_were_counted(
    shop: Shop, make: Callable[[Shop], None]
) -> None:
    make(shop)
    query = """
        select l.task_no, y.outcome, l.option, l.annotator_no, l.skill, l.created_at
        from labels l join tallies y using (job_no, task_no)
        order by task_no, array_position(y.annotators, l.annotator_no)
    """
    before = shop.run(query)
    assert len({row["annotator_no"] for row in before}) > 3
    archive_all(shop)
    with shop.database.transaction() as tx:
        found = [row for frame in archive.read_all(tx, 1) for row in frame.to_dicts()]
    assert found == before


def test_labels_of_one_job_are_archived_once_by_any_number_of_processes(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    before = seen(shop, job)
    total = sum(at_once(*[lambda: archive_all(shop)] * 4))
    assert total == len(shop.tasks())
    assert seen(shop, job) == before
    assert rows(shop) == (0, 0)


def test_a_process_that_dies_in_the_middle_has_moved_nothing(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    before, counted = seen(shop, job), rows(shop)
    with shop.given_up() as tx:
        assert archive_some(tx, after_s=0) > 0
    assert (seen(shop, job), rows(shop)) == (before, counted)
    assert shop.value("select count(*) from archived_labels") == 0


def test_a_reader_misses_nothing_that_moves_while_they_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    before = seen(shop, job)["exports"][0]
    read = archive.read_labels

    def move_first(*arguments: Any) -> Any:
        """The tables were read, and now everything moves, before the archive is read."""
        archive_all(shop)
        return read(*arguments)

    monkeypatch.setattr(archive, "read_labels", move_first)
    assert seen(shop, job)["exports"][0] == before


def processing(shop: Shop) -> Job:
    return shop.processing(make_chunk(3))


def undelivered(shop: Shop) -> Job:
    job = shop.processing(make_chunk(3), consensus_threshold=2, delivery=DELIVERY)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    return job


def inline(shop: Shop) -> Job:
    job = shop.processing(make_chunk(3), consensus_threshold=2)
    shop.run("update jobs set manifest_url = null, inline_key = ''")
    for _ in range(2):
        shop.answer(shop.annotator(), "cat")
    return job


@pytest.mark.parametrize("make", [processing, undelivered, inline])
def test_what_is_not_over_is_not_archived(shop: Shop, make: Callable[[Shop], Job]) -> None:
    make(shop)
    counted = rows(shop)
    assert archive_all(shop) == 0
    assert rows(shop) == counted


def test_a_job_is_archived_some_time_after_its_end_and_not_at_once(shop: Shop) -> None:
    make_mixed_job(shop, "completed", options=2)
    assert shop.do(archive_some, after_s=3600) == 0
    shop.run("update jobs set completed_at = now() - interval '3601 seconds'")
    assert shop.do(archive_some, after_s=3600) > 0


def test_a_job_whose_delivery_was_refused_is_archived_and_can_be_delivered_again(
    shop: Shop,
) -> None:
    job = undelivered(shop)
    before = seen(shop, job)
    shop.begin_delivery(job)
    shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "No.")
    assert archive_all(shop) == 3
    after = seen(shop, job)
    assert all(after[each] == before[each] for each in ("exports", "errors", "quality"))


def test_a_label_that_comes_again_after_all_is_still_a_duplicate(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2)
    people = shop.annotators(3)
    for annotator in people[:2]:
        shop.answer(annotator, "cat")
    archive_all(shop)
    again = (job.task_id(0), "cat")
    assert shop.label(people[0], again, again) == [LabelOutcome.DUPLICATE] * 2
    assert shop.label(people[2], again) == [LabelOutcome.ALREADY_SETTLED]
    wrong = (job.task_id(0), "horse")
    assert shop.label(people[0], wrong) == [LabelOutcome.UNKNOWN_OPTION]


def test_labels_of_many_small_jobs_are_archived_in_one_step(shop: Shop) -> None:
    annotators = shop.annotators(2)
    for _ in range(30):
        shop.processing(make_chunk(2), consensus_threshold=2)
    for annotator in annotators:
        while shop.answer(annotator, "cat", 500):
            pass
    assert shop.do(archive_some, after_s=0) == 60
    assert rows(shop) == (0, 0)


def test_a_job_whose_votes_do_not_add_up_is_left_alone_and_holds_up_no_other(shop: Shop) -> None:
    jobs_ = [shop.processing(make_chunk(2), consensus_threshold=2) for _ in range(2)]
    for annotator in shop.annotators(2):
        shop.answer(annotator, "cat", 500)
    broken = jobs_[0].job_no
    shop.run("delete from tallies where job_no = %s and task_no = 0", broken)
    assert archive_all(shop) == 2
    assert rows(shop) == (4, 1)
    assert shop.value("select job_no from chunks where archived = 0") == broken


@pytest.mark.parametrize(
    "table, error", [("archived_labels", ArchiveCorrupt), ("pages", PageCorrupt)]
)
def test_a_corrupt_page_is_noticed_and_named(
    shop: Shop, table: str, error: type[Exception]
) -> None:
    job = shop.processing(make_chunk(300), consensus_threshold=2)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat", 300)
    archive_all(shop)
    shop.run(
        f"update {table} set content = set_byte(content, 20, 255 - get_byte(content, 20)) where first_task > 0"
    )
    with pytest.raises(error, match=f"job {job.job_no}.* 256 .*checksum"):
        seen(shop, job)
    with pytest.raises(error, match="256"):
        shop.do(tasks.get, job.task_id(256), customer_id=shop.customer_id)
    assert msgspec.json.encode(shop.do(tasks.get, job.task_id(255), customer_id=shop.customer_id))


def test_finished_work_takes_few_bytes(shop: Shop) -> None:
    job = shop.processing(make_chunk(20_000))
    for _ in range(3):
        annotator = shop.annotator()
        while shop.answer(annotator, "cat", 500):
            pass
    assert shop.job(job).status == "completed"
    archive_all(shop)
    stored = shop.value(
        "select (select sum(length(content)) from pages)"
        " + (select sum(length(content)) from archived_labels)"
    )
    assert stored < 30 * 20_000
