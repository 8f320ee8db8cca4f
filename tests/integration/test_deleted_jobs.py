"""A job that is deleted is gone at once for everybody, and then from every table."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from blocks.domain.model import BadLine, GoodLine, LineCode, OptionDetail, SkipReason
from blocks.lines.packing import CorruptContent, unpack
from blocks.store import (
    archive,
    deleted_jobs,
    jobs,
    label_batches,
    results,
    skills,
    streams,
    webhook_messages,
)
from blocks.store.deleted_jobs import TABLES, JobDeleted
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip
from blocks.store.streams import Manifest, Stream
from tests.support.mixed_job import make_mixed_job
from tests.support.removal import remove_all
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration

KEPT = {
    "jobs": "the row itself, deleted by the request",
    "idempotency_keys": "deleted by the request",
    "stream_manifests": "deleted by the request; forgotten_manifests keeps a digest",
    "runs": "deleted by the request",
    "outbox": "deleted by the request",
    "deleted_jobs": "goes last",
    "inline_tasks": "of jobs without a manifest, which nobody can delete",
    "leases": "numbers only; they run out, and go then",
    "comparisons": "numbers only; the next housekeeping takes them",
}
"""Tables with a job_no that no step empties, and why."""
# What a row has where any value of the type would be refused.
VALUES = {
    ("reviews", "reason"): "sample",
    ("delivered_objects", "sha256"): bytes(32),
}
BY_TYPE = {
    "bigint": 1, "integer": 1, "smallint": 1, "text": "x", "bytea": b"x", "boolean": False,
    "timestamp with time zone": datetime(2026, 1, 1, tzinfo=UTC), "ARRAY": [],
}  # fmt: skip


def tables_with_job_no(shop: Shop) -> list[str]:
    query = """
        select table_name from information_schema.columns
        where table_schema = 'public' and column_name = 'job_no' order by 1
    """
    return [row["table_name"] for row in shop.run(query)]


def count_rows(shop: Shop, job_no: int) -> dict[str, int]:
    """How many rows each table has of the job."""
    return {
        table: shop.value(f"select count(*) from {table} where job_no = %s", job_no)
        for table in tables_with_job_no(shop)
    }


def tables_left(shop: Shop, job: Job) -> set[str]:
    return {table for table, rows in count_rows(shop, job.job_no).items() if rows}


def add_row(shop: Shop, table: str, job_no: int) -> None:
    """Add a row of the job to a table, whatever its columns are."""
    columns = shop.run(
        """
        select column_name as name, data_type from information_schema.columns
        where table_schema = 'public' and table_name = %s and is_nullable = 'NO'
          and column_default is null and is_identity = 'NO' and is_generated = 'NEVER'
        """,
        table,
    )
    row = {each["name"]: BY_TYPE[each["data_type"]] for each in columns}
    row |= {name: value for (of, name), value in VALUES.items() if of == table}
    row["job_no"] = job_no
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    shop.run(f"insert into {table} ({names}) values ({places})", *row.values())


def texts_of(value: Any) -> Iterator[str]:
    """What a value says, as it is stored and unpacked."""
    if not isinstance(value, bytes):
        yield str(value)
        return
    yield value.decode("latin-1")
    yield value.hex()
    with suppress(CorruptContent):
        yield bytes(unpack(value)).decode("latin-1")


def find_everywhere(shop: Shop, needles: list[str]) -> dict[str, set[str]]:
    """In which columns of the database each text stands."""
    found: dict[str, set[str]] = {needle: set() for needle in needles}
    tables = (
        "select table_name as name from information_schema.tables where table_schema = 'public'"
    )
    for table in shop.run(tables):
        for row in shop.run(f"select * from {table['name']}"):
            for column, value in row.items():
                for text in texts_of(value):
                    for needle in needles:
                        if needle in text:
                            found[needle].add(f"{table['name']}.{column}")
    return found


CANARIES = {
    name: f"canary-{n}-{name}"
    for n, name in enumerate(
        [
            "manifest", "data-url", "line-metadata", "metadata", "question", "option", "detail",
            "instructions", "callback", "bad-line", "note", "answer",
        ]
    )
}  # fmt: skip


def full_job(shop: Shop, **changes: Any) -> Job:
    """A cancelled job with a canary in everything that a customer gives."""
    c = CANARIES
    good = [
        GoodLine(n, n + 1, f"s3://b/{c['data-url']}{n}", f'{{"a":"{c["line-metadata"]}"}}')
        for n in range(300)
    ]
    bad = [BadLine(1000, 301, LineCode.MALFORMED_JSON, "No.", c["bad-line"].encode())]
    options = [c["option"], "dog"]
    job = shop.processing(
        Chunk(301, good, bad),
        manifest_url=f"s3://manifests/{c['manifest']}",
        question=c["question"],
        options=options,
        option_details=[OptionDetail(option=options[0], description=c["detail"])],
        metadata=f'{{"a":"{c["metadata"]}"}}',
        callback_url=f"https://hooks.example.com/{c['callback']}",
        instructions=c["instructions"],
        consensus_threshold=2,
        credentials=b'{"secret":1}',
        delivery=DELIVERY,
        **changes,
    )
    one, two = shop.annotators(2)
    for annotator in (one, two):
        claimed = shop.claim(annotator)
        shop.enter(annotator, Skip(claimed[0].task_id, SkipReason.BROKEN, c["note"]))
        shop.label(annotator, *((task.task_id, "dog") for task in claimed[1:]))
    return shop.job(job)


def test_every_table_with_rows_of_jobs_is_emptied_or_has_a_reason(shop: Shop) -> None:
    assert set(tables_with_job_no(shop)) == {*TABLES, *KEPT}


def test_nothing_of_a_deleted_job_is_found_in_any_table(shop: Shop) -> None:
    stream = Stream(shop.customer_id, "nightly")
    shop.do(streams.begin, stream, datetime.now(UTC))
    job = full_job(shop)
    shop.run(
        "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no) "
        "values (%s, 'nightly', %s, 'v1', %s)",
        shop.customer_id, f"s3://manifests/{CANARIES['manifest']}", job.job_no,
    )  # fmt: skip
    sealed = shop.value("select credentials from jobs where job_no = %s", job.job_no).hex()
    needles = [*CANARIES.values(), job.job_id, sealed]
    shop.do(jobs.cancel, job.job_no)
    log = (
        "insert into notification_attempts select notification_no, 1, now(), 1, 500, null, %s "
        "from notifications"
    )
    shop.run(log, CANARIES["answer"])
    before = find_everywhere(shop, [needle for needle in needles if needle != sealed])
    assert all(before.values()), before
    shop.do(archive.archive_some, after_s=0)
    assert shop.do(deleted_jobs.delete, [job.job_no]) == 1
    assert remove_all(shop) > 0
    assert not any(find_everywhere(shop, needles).values())
    assert shop.value("select count(*) from deleted_jobs") == 0


def test_rows_of_every_table_are_removed_in_small_steps_by_any_number_of_processes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleted_jobs, "_ROWS_MAX", 7)
    monkeypatch.setattr(deleted_jobs, "_LARGE_ROWS_MAX", 1)
    other, job = full_job(shop), full_job(shop)
    shop.do(jobs.cancel, job.job_no)
    rows = count_rows(shop, job.job_no)
    for table in TABLES:
        if not rows[table]:
            add_row(shop, table, job.job_no)
    assert all(count_rows(shop, job.job_no)[table] for table in TABLES)
    kept = count_rows(shop, other.job_no)
    assert shop.do(deleted_jobs.delete, [job.job_no]) == 1
    shop.do(deleted_jobs.await_writers)
    with shop.given_up() as tx:  # killed in the middle of a step
        assert deleted_jobs.remove_some(tx)
    assert sum(at_once(*[lambda: remove_all(shop)] * 3)) > 40
    remove_all(shop)
    assert tables_left(shop, job) <= {"leases", "comparisons"}
    assert count_rows(shop, other.job_no) == kept
    shop.job(other)
    assert shop.value("select count(*) from instructions") == 1
    named = "select count(*) from webhooks where callback_url like %s"
    assert shop.value(named, f"%{CANARIES['callback']}") == 1


def test_rows_are_removed_when_nobody_can_write_any_more(shop: Shop) -> None:
    """A label that does not see the deletion is written behind it."""
    job = make_mixed_job(shop, "cancelled", options=3)
    with shop.held() as tx:
        tx.execute("insert into skips (job_no, task_no, annotator_no, reason) values (99, 1, 1, 1)")
        assert shop.do(deleted_jobs.delete, [job.job_no]) == 1
        assert remove_all(shop) == 0
        assert count_rows(shop, job.job_no)["pages"]
        late = "insert into skips (job_no, task_no, annotator_no, reason) values ({}, 1, 1, 1)"
        tx.execute(late.format(job.job_no))
    assert remove_all(shop) > 0
    assert tables_left(shop, job) <= {"leases", "comparisons"}


def test_a_run_of_removal_that_was_killed_after_any_step_is_gone_on_with(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    shop.do(deleted_jobs.delete, [job.job_no])
    shop.do(deleted_jobs.await_writers)
    steps = 0
    while True:
        with shop.given_up() as tx:
            found = deleted_jobs.remove_some(tx)
        if not found:
            break
        assert shop.do(deleted_jobs.remove_some)
        steps += 1
    assert steps > 3
    assert tables_left(shop, job) <= {"leases", "comparisons"}


def test_a_job_that_goes_on_or_is_to_be_delivered_is_not_deleted(shop: Shop) -> None:
    undelivered = shop.processing(make_chunk(1), consensus_threshold=2, delivery=DELIVERY)
    for annotator in shop.annotators(2):
        shop.answer(annotator, "cat")
    shop.begin_delivery(undelivered)
    found = [shop.submit(), shop.processing(make_chunk(1)), undelivered]
    assert shop.do(deleted_jobs.delete, [job.job_no for job in found]) == 0
    assert len(shop.run("select job_no from jobs")) == 3
    shop.do(jobs.refuse_delivery, undelivered.job_no, "access_denied", "No.")
    assert shop.do(deleted_jobs.delete, [job.job_no for job in found]) == 1


def test_a_delivery_that_is_asked_for_at_the_same_time_goes_on(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    with shop.held() as tx:
        assert jobs.redeliver(tx, job, DELIVERY, b"{}", shop.vault)
        beside = Side(lambda: shop.do(deleted_jobs.delete, [job.job_no]))
        shop.wait_for_waiters(1)
    assert beside.join() == 0
    assert shop.runs(job) == ["deliver_job"]


def test_of_two_deletions_at_once_one_finds_the_job(shop: Shop) -> None:
    job = make_mixed_job(shop, "cancelled", options=3)
    with shop.held() as tx:
        assert deleted_jobs.delete(tx, [job.job_no]) == 1
        beside = Side(lambda: shop.do(deleted_jobs.delete, [job.job_no]))
        shop.wait_for_waiters(1)
    assert beside.join() == 0
    assert not shop.do(jobs.redeliver, job, DELIVERY, b"{}", shop.vault)


def test_an_export_that_may_miss_lines_does_not_end_as_if_it_had_all(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    read = (results.export, results.export_errors, results.export_bad_lines)
    with shop.database.long_read() as tx:
        blocks = results.export(tx, job.job_no)
        assert next(blocks)
        shop.do(deleted_jobs.delete, [job.job_no])
        remove_all(shop)
        with pytest.raises(JobDeleted):
            list(blocks)
    for each in read:
        with shop.database.long_read() as tx, pytest.raises(JobDeleted):
            list(each(tx, job.job_no))


def test_a_stream_makes_no_job_again_whose_job_was_deleted(shop: Shop) -> None:
    stream, manifest = Stream(shop.customer_id, "nightly"), Manifest("s3://b/a.jsonl", "v1")
    shop.do(streams.begin, stream, datetime.now(UTC))
    job_id = shop.do(streams.submit, stream, manifest, shop.vault, shop.new_job())
    job = shop.job(job_id)
    shop.do(jobs.cancel, job.job_no)
    shop.do(deleted_jobs.delete, [job.job_no])
    known = shop.do(streams.find_known, stream, [manifest, Manifest("s3://b/a.jsonl", "v2")])
    assert list(known) == [manifest]
    assert not known[manifest].has_failed
    assert shop.do(streams.submit, stream, manifest, shop.vault, shop.new_job()) is None
    assert shop.value("select count(*) from jobs") == 0
    assert shop.do(
        streams.submit, stream, Manifest("s3://b/a.jsonl", "v2"), shop.vault, shop.new_job()
    )


def test_metrics_and_what_annotators_have_done_stay_right(shop: Shop) -> None:
    job = shop.processing(make_chunk(5))
    annotator = shop.annotator()
    shop.answer(annotator, "cat")
    shop.do(jobs.cancel, job.job_no)
    before = shop.do(label_batches.count, annotator)
    shop.do(deleted_jobs.delete, [job.job_no])
    assert shop.do(label_batches.list_page, annotator, limit=10, before=None) == []
    remove_all(shop)
    assert shop.do(label_batches.count, annotator) == before
    assert before.labels == 5
    counted = "select coalesce(sum(amount), 0) from counts where name = 'jobs'"
    assert shop.value(counted) == 0


def test_labels_of_a_deleted_job_are_compared_with_nothing(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    numbers = [row["task_no"] for row in shop.run("select task_no from tallies")]
    insert = "insert into comparisons (job_no, task_nos) values (%s, %s)"
    shop.run(insert, job.job_no, numbers)
    shop.do(deleted_jobs.delete, [job.job_no])
    assert shop.do(skills.compare_some, limit=10) == 1
    assert shop.value("select count(*) from job_annotators") == 0


def test_an_attempt_to_send_a_message_that_was_deleted_meanwhile_is_not_logged(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), callback_url="https://a.example.com/")
    shop.do(jobs.cancel, job.job_no)
    (endpoint, *_) = shop.do(webhook_messages.find_due_endpoints, after=0, looks_max=10)
    (message, *_) = shop.do(webhook_messages.claim, {endpoint.webhook_no: 1}, hold_s=0)
    shop.run("update notifications set not_before = now()")
    shop.do(deleted_jobs.delete, [job.job_no])
    assert shop.do(webhook_messages.claim, {endpoint.webhook_no: 9}, hold_s=0) == []
    remove_all(shop)
    attempt = webhook_messages.Attempt(
        attempt=1, attempted_at=datetime.now(UTC), duration_ms=1, status_code=200, error=None,
        response=None,
    )  # fmt: skip
    shop.do(webhook_messages.log_attempt, message, attempt)
    shop.do(webhook_messages.mark_delivered, message)
    assert shop.value("select count(*) from notification_attempts") == 0
    assert shop.value("select count(*) from webhooks") == 0


def test_a_text_is_not_deleted_from_under_a_job_that_is_just_posted(
    shop: Shop,
) -> None:
    job = shop.processing(make_chunk(1), instructions="Look closely.")
    shop.do(jobs.cancel, job.job_no)
    shop.do(deleted_jobs.delete, [job.job_no])
    with shop.held() as tx:
        jobs.submit(tx, shop.new_job(instructions="Look closely."), shop.vault)
        beside = Side(lambda: [remove_all(shop) for _ in range(2)])
        shop.wait_for_waiters(1)
    beside.join()
    remove_all(shop)
    assert shop.value("select count(*) from instructions") == 1
