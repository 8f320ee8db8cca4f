"""Tasks are skipped, and labels replaced and withdrawn, in the store."""

import json
from typing import Any

import pytest

from api.routes.task_views import view
from blocks.domain.model import JobStatus, LabelOutcome, SkipReason, TaskReason
from blocks.store import jobs, label_columns, labelling, quality, results, tasks
from blocks.store.archive import archive_some
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from blocks.store.labelling import Label
from tests.support.books import check_books
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration

UNCLEAR, BROKEN, NONE = SkipReason


def make_job(shop: Shop, count: int = 1, **changes: Any) -> tuple[Job, list[str]]:
    """A job of so many tasks, and their ids."""
    job = shop.processing(make_chunk(count), **{"consensus_threshold": 2, "skips_max": 2} | changes)
    return job, [job.task_id(n) for n in range(count)]


def ids(shop: Shop, annotator: int) -> list[str]:
    return [task.task_id for task in shop.claim(annotator)]


def errors(shop: Shop, job: Job) -> list[dict[str, Any]]:
    with shop.database.long_read() as tx:
        text = b"".join(results.export_errors(tx, job.job_no))
    return [json.loads(line) for line in text.splitlines()]


def test_a_skipped_task_goes_to_others_and_never_back(shop: Shop) -> None:
    job, found = make_job(shop, 2)
    one, two, three = shop.annotators(3)
    assert ids(shop, one) == found
    assert shop.enter(one, Skip(found[0], UNCLEAR, "Too dark.")) == ["skipped"]
    check_books(shop, job)
    shop.release(one, found[1])
    assert ids(shop, one) == [found[1]]  # what was released comes back, what was skipped does not
    for other in (two, three):
        assert found[0] in ids(shop, other)
        assert shop.label(other, (found[0], "cat"))[0] in {"accepted", "settled"}
    check_books(shop, job)


def test_a_cursor_leaves_a_skipped_task_to_others(shop: Shop) -> None:
    job, found = make_job(shop, 3)
    one, two, three = shop.annotators(3)
    assert ids(shop, two) == found
    assert shop.enter(one, Skip(found[1], BROKEN)) == ["skipped"]  # without a lease
    assert ids(shop, one) == [found[0], found[2]]
    assert ids(shop, three) == [found[1]]
    check_books(shop, job)


@pytest.mark.parametrize("skips_max", [1, 2, 3])
def test_a_task_fails_with_so_many_equal_skips(shop: Shop, skips_max: int) -> None:
    job, (task,) = make_job(shop, skips_max=skips_max, consensus_threshold=4)
    other, *people = shop.annotators(1 + skips_max)
    ids(shop, other)
    if skips_max > 1:
        assert shop.enter(other, Skip(task, NONE)) == ["skipped"]
    for n, annotator in enumerate(people, start=1):
        assert shop.job(job).status == JobStatus.PROCESSING
        assert shop.enter(annotator, Skip(task, BROKEN)) == ["skipped"]
        check_books(shop, job)
        assert shop.value("select outcome from tallies") == (-2 if n == skips_max else None)
    ended = shop.job(job)
    assert (ended.status, ended.tasks_done, ended.tasks_failed) == (JobStatus.COMPLETED, 0, 1)
    (line,) = errors(shop, job)
    who = "1 annotator" if skips_max == 1 else f"{skips_max} annotators"
    assert line["code"] == "skipped_broken"
    assert line["message"] == f"{who} skipped this: it is broken."
    assert json.loads(line["raw"])["data_url"] == "https://img.example.com/0.jpg"


def test_every_reason_has_a_code_and_a_sentence(shop: Shop) -> None:
    job, found = make_job(shop, 3, skips_max=1)
    (one,) = shop.annotators(1)
    ids(shop, one)
    said = [Skip(task, why) for task, why in zip(found, SkipReason, strict=True)]
    assert shop.enter(one, *said) == ["skipped"] * 3
    codes = [line["code"] for line in errors(shop, job)]
    assert codes == ["skipped_unclear", "skipped_broken", "skipped_none_of_these"]
    task = shop.do(tasks.get, found[2], customer_id=shop.customer_id)
    assert (task.status, task.reason) == ("failed", TaskReason.SKIPPED_NONE_OF_THESE)


def test_a_skip_that_fails_the_last_task_begins_the_delivery(shop: Shop) -> None:
    job, (one_task, other_task) = make_job(shop, 2, skips_max=1, delivery=DELIVERY)
    one, two = shop.annotators(2)
    ids(shop, one)
    ids(shop, two)
    shop.label(one, (one_task, "cat"))
    # The label settles its task, and the skip fails the other one, in one batch.
    assert shop.enter(two, Skip(other_task, UNCLEAR), Label(one_task, "cat")) == [
        "skipped", "settled",
    ]  # fmt: skip
    assert shop.runs(job) == ["deliver_job"]
    assert (shop.job(job).tasks_done, shop.job(job).tasks_failed) == (1, 1)


def test_what_is_not_taken_says_why(shop: Shop) -> None:
    job, found = make_job(shop, 3)
    one, two, three = shop.annotators(3)
    for annotator in (one, two):
        shop.claim(annotator, 2)
    shop.label(one, (found[0], "cat"))
    shop.label(two, (found[0], "cat"))
    shop.enter(one, Skip(found[1], BROKEN))

    def outcome(annotator: int, entry: Entry) -> str:
        (said,) = shop.enter(annotator, entry)
        check_books(shop, job)
        return said

    settled, skipped, untouched = found
    assert outcome(one, Skip(settled, BROKEN)) == "duplicate"
    assert outcome(three, Skip(settled, BROKEN)) == "already_settled"
    assert outcome(one, Skip(skipped, UNCLEAR)) == "duplicate"
    assert outcome(one, Skip(untouched, UNCLEAR)) == "unknown_task"
    assert outcome(one, Skip(f"{untouched}9", UNCLEAR)) == "unknown_task"
    assert outcome(one, Skip("x", UNCLEAR)) == "unknown_task"
    assert outcome(one, Withdrawal(settled)) == "already_settled"
    assert outcome(one, Withdrawal(skipped)) == "not_labelled"
    assert outcome(one, Withdrawal(untouched)) == "not_labelled"
    assert outcome(one, Withdrawal("x")) == "unknown_task"
    assert outcome(one, Replacement(settled, "dog")) == "already_settled"
    assert outcome(one, Replacement(settled, "cat")) == "duplicate"  # sent again
    assert outcome(one, Replacement(settled, "cow")) == "unknown_option"
    assert outcome(one, Replacement(untouched, "dog")) == "unknown_task"
    assert outcome(three, Replacement(settled, "dog")) == "already_settled"
    assert shop.value("select count(*) from label_changes") == 0


def test_a_label_counts_instead_of_an_earlier_skip(shop: Shop) -> None:
    job, (task,) = make_job(shop, consensus_threshold=3)
    one, two, three = shop.annotators(3)
    ids(shop, one)
    assert shop.enter(one, Skip(task, UNCLEAR)) == ["skipped"]
    assert shop.label(one, (task, "cat")) == ["accepted"]
    assert shop.enter(two, Skip(task, UNCLEAR)) == ["skipped"]
    check_books(shop, job)
    assert shop.enter(one, Withdrawal(task)) == ["withdrawn"]  # and the skip is not back
    check_books(shop, job)
    assert shop.value("select outcome from tallies") is None
    assert shop.enter(three, Skip(task, UNCLEAR)) == ["skipped"]
    assert shop.value("select outcome from tallies") == -1


def test_a_replaced_label_counts_once_and_is_in_the_audit(shop: Shop) -> None:
    job, (task,) = make_job(shop, consensus_threshold=3)
    one, two, three = shop.annotators(3)
    ids(shop, one)
    assert shop.enter(one, Replacement(task, "cat")) == ["accepted"]  # the first is a label
    before = shop.value("select created_at from labels")
    assert shop.enter(one, Replacement(task, "dog")) == ["replaced"]
    assert shop.enter(one, Replacement(task, "dog")) == ["duplicate"]
    check_books(shop, job)
    assert shop.value("select votes from tallies") == [0, 1, 0]
    assert shop.value("select count(*) from leases") == 0
    (change,) = shop.run("select * from label_changes")
    assert (change["option"], change["new_option"], change["annotator_no"]) == (1, 2, one)
    assert (change["labelled_at"], change["task_no"]) == (before, 0)
    for annotator, outcome in ((two, "accepted"), (three, "settled")):
        ids(shop, annotator)
        assert shop.label(annotator, (task, "dog")) == [outcome]
    assert shop.job(job).status == JobStatus.COMPLETED


def test_a_replaced_label_can_settle_a_tie_and_the_job(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    one, two, three = shop.annotators(3)
    for annotator, option in ((one, "cat"), (two, "dog")):
        ids(shop, annotator)
        shop.label(annotator, (task, option))
    check_books(shop, job)
    assert ids(shop, three) == [task]
    assert shop.enter(two, Replacement(task, "cat")) == ["settled"]
    assert shop.enter(two, Withdrawal(task)) == ["already_settled"]
    assert shop.label(three, (task, "dog")) == ["already_settled"]
    assert shop.job(job).status == JobStatus.COMPLETED


def test_a_replaced_label_can_make_a_tie_for_which_one_more_is_asked(shop: Shop) -> None:
    job, (task,) = make_job(shop, consensus_threshold=4)
    people = shop.annotators(5)
    for annotator, option in zip(people[:3], ("cat", "cat", "dog"), strict=True):
        ids(shop, annotator)
        shop.label(annotator, (task, option))
    ids(shop, people[3])
    assert shop.enter(people[0], Replacement(task, "dog")) == ["replaced"]
    assert shop.label(people[3], (task, "cat")) == ["accepted"]  # two and two
    check_books(shop, job)
    assert ids(shop, people[4]) == [task]
    assert shop.enter(people[0], Replacement(task, "fox")) == ["replaced"]
    check_books(shop, job)
    assert shop.label(people[4], (task, "cat")) == ["settled"]


def test_with_stop_early_a_replaced_label_settles_before_the_threshold(shop: Shop) -> None:
    _, (task,) = make_job(shop, consensus_threshold=5, stop_early=True)
    for annotator, option in zip(shop.annotators(3), ("cat", "cat", "dog"), strict=True):
        ids(shop, annotator)
        shop.label(annotator, (task, option))
    assert shop.enter(annotator, Replacement(task, "cat")) == ["settled"]


def test_a_withdrawn_label_leaves_a_place_that_its_annotator_gets_last(shop: Shop) -> None:
    job, found = make_job(shop, 2)
    one, two, three = shop.annotators(3)
    shop.claim(one, 1)
    shop.label(one, (found[0], "cat"))
    assert shop.enter(one, Withdrawal(found[0])) == ["withdrawn"]
    assert shop.enter(one, Withdrawal(found[0])) == ["not_labelled"]  # sent again
    check_books(shop, job)
    assert ids(shop, one) == [found[1]]
    assert ids(shop, one) == [found[0]]
    shop.release(one, found[0])
    assert found[0] in ids(shop, two)
    assert found[0] in ids(shop, three)
    (change,) = shop.run("select option, new_option from label_changes")
    assert tuple(change.values()) == (1, None)


def test_a_place_too_many_after_a_tie_is_not_handed_out(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    people = shop.annotators(5)
    for annotator, option in zip(people[:2], ("cat", "dog"), strict=True):
        ids(shop, annotator)
        shop.label(annotator, (task, option))
    assert shop.enter(people[0], Withdrawal(task)) == ["withdrawn"]
    check_books(shop, job)
    assert [len(ids(shop, annotator)) for annotator in people[2:]] == [1, 0, 0]
    check_books(shop, job)
    assert shop.label(people[2], (task, "dog")) == ["settled"]


def test_of_entries_for_one_task_the_first_counts(shop: Shop) -> None:
    job, found = make_job(shop, 3)
    (one,) = shop.annotators(1)
    ids(shop, one)
    entries: list[Entry] = [
        Label(found[0], "cat"),
        Skip(found[0], BROKEN),
        Skip(found[1], BROKEN),
        Label(found[1], "cat"),
        Label(found[2], "cow"),
        Label(found[2], "dog"),
        Skip("tsk_x", BROKEN),
        Skip("tsk_x", BROKEN),
    ]
    assert shop.enter(one, *entries) == [
        "accepted", "duplicate", "skipped", "duplicate", "unknown_option", "accepted",
        "unknown_task", "unknown_task",
    ]  # fmt: skip
    check_books(shop, job)


def test_tasks_of_others_cannot_be_skipped(shop: Shop) -> None:
    job, (task,) = make_job(shop)
    one, two = shop.annotators(2)
    ids(shop, one)
    query = "update annotators set customer_ids = '{cust_other}' where annotator_no = %s"
    shop.run(query, two)
    for entry in (Skip(task, BROKEN), Withdrawal(task), Replacement(task, "cat")):
        assert shop.enter(two, entry) == ["unknown_task"]
    shop.do(jobs.cancel, job.job_no)
    for entry in (Skip(task, BROKEN), Withdrawal(task), Replacement(task, "cat")):
        assert shop.enter(one, entry) == ["already_settled"]
    assert shop.value("select count(*) from skips") == 0


def test_a_settled_task_is_announced_once(shop: Shop) -> None:
    shop.run(
        "insert into webhooks (webhook_id, customer_id, callback_url, registered, events) "
        "values ('whk_1', %s, 'https://x.example', true, '{task.settled}')",
        shop.customer_id,
    )
    _, (task,) = make_job(shop)
    for annotator, option in zip(shop.annotators(2), ("cat", "dog"), strict=True):
        ids(shop, annotator)
        shop.label(annotator, (task, option))
    for _ in range(2):
        shop.enter(annotator, Replacement(task, "cat"))
    assert [row["event"] for row in shop.run("select event from notifications")] == ["task.settled"]


def test_a_label_is_not_lost_when_the_job_is_cancelled_while_it_is_replaced(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, (task,) = make_job(shop)
    (one,) = shop.annotators(1)
    ids(shop, one)
    shop.label(one, (task, "cat"))
    submit = labelling.submit
    cancelled: list[bool] = []

    def cancel_and_submit(*arguments: Any, **options: Any) -> list[LabelOutcome]:
        if not cancelled:
            cancelled.append(shop.do(jobs.cancel, job.job_no))
        return submit(*arguments, **options)

    monkeypatch.setattr(labelling, "submit", cancel_and_submit)
    assert shop.enter(one, Replacement(task, "dog")) == ["already_settled"]
    assert cancelled == [True]
    assert [row["option"] for row in shop.run("select option from labels")] == [1]
    assert shop.value("select count(*) from label_changes") == 0
    check_books(shop, job)


# The archive


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_the_archive_keeps_what_came_of_skips(shop: Shop, end: str) -> None:
    job, found = make_job(shop, 6, consensus_threshold=3, skips_max=2)
    people = shop.annotators(5)
    for annotator in people[:3]:
        assert ids(shop, annotator) == found
    shop.label(people[2], (found[0], "dog"), (found[1], "cat"), (found[3], "cat"))
    shop.enter(people[2], Withdrawal(found[3]))
    for annotator in people[:2]:
        shop.enter(annotator, Skip(found[0], BROKEN), Skip(found[2], NONE), Label(found[1], "cat"))
    shop.enter(people[0], Skip(found[4], UNCLEAR))
    if end == "cancelled":
        shop.do(jobs.cancel, job.job_no)
    shop.expire_leases()
    while end == "completed" and shop.job(job).status != end:
        assert shop.answer(shop.annotator(), "cat")

    def seen() -> Any:
        with shop.database.long_read() as tx:
            export = b"".join(results.export(tx, job.job_no))
        views = [view(shop.do(tasks.get, each, customer_id=shop.customer_id)) for each in found]
        ended = shop.do(label_columns.read_ended, job.job_no, labels_max=100)
        labels = sorted(ended.labels.rows())
        return export, errors(shop, job), views, labels, shop.do(quality.measure, job.job_no)

    before = seen()
    assert {line["code"] for line in before[1]} >= {"skipped_broken", "skipped_none_of_these"}
    skipped = next(line for line in before[1] if line["code"] == "skipped_broken")
    assert skipped["message"].endswith("it is broken. It has labels: dog 1.")
    # Nothing is inferred from the label of a task that failed by skips.
    assert (1, people[2], 1, 1) in before[3]
    assert 0 not in {row[0] for row in before[3]}
    while shop.do(archive_some, after_s=0):
        pass
    assert shop.value("select count(*) from tallies") == 0
    assert seen() == before
    assert shop.value("select count(*) from label_changes") == 1
    assert shop.value("select count(*) from skips") == 5
    assert shop.enter(people[0], Skip(found[0], BROKEN)) == ["already_settled"]
