"""The life of a job: every arrow that may be, none that may not, and what each leaves behind."""

import hashlib
from collections.abc import Callable
from functools import partial

import pytest

from blocks.delivery_manifest import DeliveredObject
from blocks.domain.errors import IdempotencyConflict, UndecryptableCredentials
from blocks.domain.ids import new_id
from blocks.domain.model import JOB_ARROWS, Pin
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import customers, delivered_objects, job_credentials, jobs, outbox
from blocks.store.interrupts import Interrupt
from blocks.store.jobs import Idempotency, Job, NewJob
from flows.writing import delivery
from tests.support.flow_world import flow_settings
from tests.support.side import Side, at_once
from tests.support.store_shop import DELIVERY, Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration
SECRET = b'{"secret_access_key":"canary-7f3a"}'


def settle_all(shop: Shop) -> None:
    for _ in range(3):
        shop.answer(shop.annotator(), "cat")


def fail(shop: Shop, job: Job) -> None:
    shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")


def deliver(shop: Shop, job: Job) -> None:
    shop.begin_delivery(job)
    shop.do(jobs.finish_delivery, job.job_no, 3)


def refuse(shop: Shop, job: Job) -> None:
    shop.begin_delivery(job)
    shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "Access is denied.")


def accepted(shop: Shop) -> Job:
    return shop.submit(credentials=SECRET)


def processing(shop: Shop) -> Job:
    return shop.processing(make_chunk(2), ingested=False, credentials=SECRET)


def reading(shop: Shop) -> Job:
    """Without a task, and the end of the manifest not seen yet."""
    return shop.processing(make_chunk(0, bad=1), ingested=False, credentials=SECRET)


def labelling(shop: Shop) -> Job:
    return shop.processing(make_chunk(2), credentials=SECRET)


def completed(shop: Shop) -> Job:
    return shop.processing(make_chunk(0, bad=2), credentials=SECRET)


def failed(shop: Shop) -> Job:
    job = processing(shop)
    fail(shop, job)
    return shop.job(job)


def pending(shop: Shop) -> Job:
    return shop.processing(make_chunk(0, bad=1), credentials=SECRET, delivery=DELIVERY)


def delivering(shop: Shop) -> Job:
    job = pending(shop)
    shop.begin_delivery(job)
    return shop.job(job)


def delivered(shop: Shop) -> Job:
    job = pending(shop)
    deliver(shop, job)
    return shop.job(job)


def refused(shop: Shop) -> Job:
    job = pending(shop)
    refuse(shop, job)
    return shop.job(job)


def cancelled(shop: Shop) -> Job:
    job = labelling(shop)
    shop.do(jobs.cancel, job.job_no)
    return shop.job(job)


STATES: dict[Callable[[Shop], Job], tuple[str, str | None]] = {
    accepted: ("accepted", None),
    reading: ("processing", None),
    labelling: ("processing", None),
    completed: ("completed", None),
    failed: ("failed", None),
    pending: ("processing", "pending"),
    delivering: ("processing", "delivering"),
    delivered: ("completed", "delivered"),
    refused: ("completed", "failed"),
    cancelled: ("cancelled", None),
}
"""How to make a job, and its status and delivery status then."""

CALLS: dict[str, Callable[[Shop, Job], object]] = {
    "begin": lambda shop, job: shop.do(jobs.begin, job.job_no),
    "fail": fail,
    "settle": lambda shop, job: shop.do(jobs.settle, [job.job_no]),
    "begin_delivery": lambda shop, job: shop.begin_delivery(job),
    "finish_delivery": lambda shop, job: shop.do(jobs.finish_delivery, job.job_no, 9),
    "refuse_delivery": lambda shop, job: shop.do(jobs.refuse_delivery, job.job_no, "x", "X."),
    "finish_ingestion": lambda shop, job: shop.do(jobs.finish_ingestion, job.job_no),
    "cancel": lambda shop, job: shop.do(jobs.cancel, job.job_no),
}

ARROWS: dict[tuple[Callable[[Shop], Job], str], tuple[str, str | None]] = {
    (accepted, "begin"): ("processing", None),
    (accepted, "fail"): ("failed", None),
    (reading, "fail"): ("failed", None),
    (reading, "finish_ingestion"): ("completed", None),
    (pending, "begin_delivery"): ("processing", "delivering"),
    (delivering, "finish_delivery"): ("completed", "delivered"),
    (delivering, "refuse_delivery"): ("completed", "failed"),
    (accepted, "cancel"): ("cancelled", None),
    (reading, "cancel"): ("cancelled", None),
    (labelling, "cancel"): ("cancelled", None),
    (pending, "cancel"): ("cancelled", "failed"),
    (delivering, "cancel"): ("cancelled", "failed"),
}
"""What changes what; nothing else changes anything."""


def row(shop: Shop, job: Job) -> dict[str, object]:
    return shop.run("select * from jobs where job_no = %s", job.job_no)[0]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_each_arrow_leads_where_it_should_and_there_are_no_others(
    shop: Shop, state: Callable[[Shop], Job]
) -> None:
    strayed = []
    for name, call in CALLS.items():
        job = state(shop)
        assert (job.status, job.delivery_status) == STATES[state]
        shop.run("update runs set launches = 1")
        before, entries, has_run = row(shop, job), shop.outbox(job), bool(shop.runs(job))
        call(shop, job)
        after = shop.job(job)
        expected = ARROWS.get((state, name), STATES[state])
        moved = (after.status, after.delivery_status)
        unchanged = row(shop, job) == before or (state, name) in ARROWS
        if name == "cancel" and (state, name) in ARROWS and has_run:
            entries.append("cancel_job")
        if moved != expected or not unchanged or shop.outbox(job) != entries:
            strayed.append((name, moved))
    assert strayed == []


def test_every_legal_arrow_can_happen(shop: Shop) -> None:
    seen = {(STATES[state][0], after[0]) for (state, _), after in ARROWS.items()}
    legal = {(old.value, new.value) for old, targets in JOB_ARROWS.items() for new in targets}
    assert {arrow for arrow in seen if arrow[0] != arrow[1]} == legal


@pytest.mark.parametrize("state", [pending, delivering], ids=lambda state: state.__name__)
@pytest.mark.parametrize("end", ["finish_delivery", "refuse_delivery"])
def test_a_job_that_was_ended_during_its_delivery_stays_as_it_is(
    shop: Shop, state: Callable[[Shop], Job], end: str
) -> None:
    job = state(shop)
    shop.do(jobs.cancel, job.job_no)
    CALLS["begin_delivery"](shop, job)
    CALLS[end](shop, job)
    assert shop.job(job).status == "cancelled"


def test_a_refused_delivery_that_is_tried_again_can_succeed(shop: Shop) -> None:
    job = refused(shop)
    shop.run("update jobs set delivery_status = 'pending' where job_no = %s", job.job_no)
    deliver(shop, job)
    again = shop.job(job)
    assert (again.status, again.delivery_status) == ("completed", "delivered")
    assert (again.delivery_error_code, again.delivery_error_message) == (None, None)
    assert again.completed_at == job.completed_at
    assert again.credentials is None


def test_a_job_begins_once(shop: Shop) -> None:
    job = shop.submit()
    shop.do(jobs.begin, job.job_no)
    first = shop.job(job)
    shop.do(jobs.begin, job.job_no)
    assert shop.job(job) == first
    assert first.started_at is not None


def test_a_failed_job_says_why_and_keeps_the_first_reason(shop: Shop) -> None:
    job = processing(shop)
    fail(shop, job)
    shop.do(jobs.fail, job.job_no, "other", "Another reason.")
    found = shop.job(job)
    assert (found.error_code, found.error_message) == ("manifest_changed", "It changed.")
    assert found.completed_at is not None


def test_open_work_of_a_failed_job_is_withdrawn(shop: Shop) -> None:
    job, other = processing(shop), processing(shop)
    annotator = shop.annotator()
    tasks = [*shop.claim(annotator, job_id=job.job_id), *shop.claim(annotator)]
    shop.release(annotator, *(task.task_id for task in tasks[::2]))
    fail(shop, job)
    for table in ("lanes", "vacancies"):
        assert {r["job_no"] for r in shop.run(f"select job_no from {table}")} == {other.job_no}


def test_the_first_pin_stands(shop: Shop) -> None:
    job = shop.submit()
    shop.do(jobs.begin, job.job_no)
    shop.do(jobs.pin, job.job_no, Pin(10, "one"), 5)
    shop.do(jobs.pin, job.job_no, Pin(20, "two"), 7)
    found = shop.job(job)
    assert (found.pin, found.chunk_bytes) == (Pin(10, "one"), 5)


# Settling


@pytest.mark.parametrize("made", [[], [make_chunk(0)], [make_chunk(0, bad=3)]])
def test_a_job_without_tasks_is_over_when_its_manifest_is_read(
    shop: Shop, made: list[Chunk]
) -> None:
    job = shop.processing(*made)
    assert job.status == "completed"
    assert job.tasks_done + job.tasks_failed == job.total_tasks
    assert None not in (job.ingested_at, job.settled_at, job.completed_at)


def test_a_job_without_tasks_is_delivered_too(shop: Shop) -> None:
    job = pending(shop)
    assert (job.status, job.delivery_status, job.completed_at) == ("processing", "pending", None)
    assert shop.runs(job) == ["deliver_job"]


def test_a_job_with_open_tasks_goes_on_when_its_manifest_is_read(shop: Shop) -> None:
    job = shop.processing(make_chunk(2))
    assert (job.status, job.settled_at) == ("processing", None)
    assert job.ingested_at is not None
    settle_all(shop)
    assert shop.job(job).status == "completed"


def test_a_job_whose_tasks_are_settled_goes_on_while_its_manifest_is_being_read(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), ingested=False)
    settle_all(shop)
    assert shop.job(job).status == "processing"
    shop.do(jobs.finish_ingestion, job.job_no)
    assert shop.job(job).status == "completed"


def test_a_job_whose_tasks_all_failed_is_completed(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), consensus_threshold=2, options=["a", "b", "c", "d"])
    for option in ("a", "b", "c", "d"):
        shop.answer(shop.annotator(), option)
    found = shop.job(job)
    assert (found.status, found.tasks_done, found.tasks_failed) == ("completed", 0, 1)


def test_a_settled_job_with_a_delivery_asks_for_it_once(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), make_chunk(2, start=1000), delivery=DELIVERY)
    assert shop.runs(job) == []
    settle_all(shop)
    for _ in range(3):
        shop.do(jobs.settle, [job.job_no])
        shop.do(jobs.finish_ingestion, job.job_no)
    assert shop.runs(job) == ["deliver_job"]
    assert shop.job(job).status == "processing"


def test_a_settled_job_without_a_delivery_asks_for_none(shop: Shop) -> None:
    job = shop.processing(make_chunk(2))
    settle_all(shop)
    assert shop.runs(job) == []


def test_ending_the_ingestion_twice_at_once_asks_for_one_delivery(shop: Shop) -> None:
    for _ in range(10):
        job = shop.processing(make_chunk(0, bad=1), ingested=False, delivery=DELIVERY)
        at_once(*[lambda no=job.job_no: shop.do(jobs.finish_ingestion, no)] * 3)
        assert shop.runs(job) == ["deliver_job"]


def test_a_twin_that_fails_late_does_not_undo_a_manifest_that_was_read_in_full(shop: Shop) -> None:
    # "Two runs of one job at once: same as one": the second found the object replaced.
    job = shop.processing(make_chunk(2))
    fail(shop, job)
    assert shop.job(job).status == "processing"
    settle_all(shop)
    assert shop.job(job).status == "completed"


# Outbox


def test_what_is_said_of_a_job_is_in_the_commit_that_changes_it(shop: Shop) -> None:
    with shop.held() as tx:
        job_id, replayed = jobs.submit(tx, shop.new_job(), shop.vault)
        assert shop.value("select count(*) from outbox") == 0
    assert not replayed
    job = shop.job(job_id)
    shop.run("update runs set launches = 1")
    shop.do(jobs.cancel, job.job_no)
    entries = shop.do(outbox.claim, limit=10)
    assert {(e.kind, e.event) for e in entries} == {
        ("job_event", "refinery.job.accepted"),
        ("job_event", "refinery.job.cancelled"),
        ("cancel_job", None),
    }


def test_a_job_that_is_rolled_back_leaves_nothing(shop: Shop) -> None:
    with shop.given_up() as tx:
        jobs.submit(tx, shop.new_job(), shop.vault)
    for table in ("outbox", "runs", "jobs"):
        assert shop.value(f"select count(*) from {table}") == 0


def test_an_entry_that_one_holds_is_passed_over_by_others(shop: Shop) -> None:
    first, second = shop.submit(), shop.submit()
    with shop.held() as tx:
        (mine,) = outbox.claim(tx, limit=1)
        (other,) = shop.do(outbox.claim, limit=10)
    assert (mine.job_id, other.job_id) == (first.job_id, second.job_id)


def test_an_entry_is_gone_when_it_is_done_and_not_before(shop: Shop) -> None:
    shop.submit()
    shop.do(outbox.claim, limit=10)
    (entry,) = shop.do(outbox.claim, limit=10)
    assert (entry.kind, entry.tries, entry.customer_id) == ("job_event", 0, shop.customer_id)
    shop.do(outbox.mark_done, entry.outbox_no)
    assert shop.do(outbox.claim, limit=10) == []


def test_a_postponed_entry_is_due_later(shop: Shop) -> None:
    shop.submit()
    (entry,) = shop.do(outbox.claim, limit=10)
    shop.do(outbox.postpone, entry.outbox_no, error="refused", delay_s=30)
    assert shop.do(outbox.claim, limit=10) == []
    shop.run("update outbox set not_before = not_before - interval '30 s'")
    (again,) = shop.do(outbox.claim, limit=10)
    assert (again.outbox_no, again.tries) == (entry.outbox_no, 1)
    assert shop.value("select last_error from outbox") == "refused"


def test_who_listens_hears_of_a_job_when_it_is_committed(shop: Shop) -> None:
    heard = shop.database.listen(outbox.CHANNEL, timeout_s=20, interrupt=Interrupt())
    next(heard)
    listening = Side(lambda: next(heard))
    with shop.held() as tx:
        jobs.submit(tx, shop.new_job(), shop.vault)
        assert not listening.wait(0.1)
    assert listening.wait(10)
    heard.close()  # type: ignore[attr-defined]


# Credentials


def test_credentials_are_sealed_and_open_for_their_job_only(shop: Shop) -> None:
    job, other = accepted(shop), accepted(shop)
    assert job.credentials is not None
    assert b"canary" not in job.credentials
    opened = job_credentials.open_sealed(job.credentials, job.job_id, shop.customer_id, shop.vault)
    assert opened == SECRET
    for job_id, customer_id in ((other.job_id, shop.customer_id), (job.job_id, new_id("cust"))):
        with pytest.raises(UndecryptableCredentials):
            job_credentials.open_sealed(job.credentials, job_id, customer_id, shop.vault)


def test_the_same_credentials_are_sealed_differently_each_time(shop: Shop) -> None:
    assert accepted(shop).credentials != accepted(shop).credentials


def test_a_job_without_credentials_has_none(shop: Shop) -> None:
    job = shop.submit()
    assert job.credentials is None
    assert job_credentials.open_sealed(None, job.job_id, shop.customer_id, shop.vault) is None


@pytest.mark.parametrize(
    "state, kept",
    [
        (accepted, True),
        (processing, True),
        (pending, True),
        (delivering, True),
        (refused, True),  # for another try
        (completed, False),
        (failed, False),
        (delivered, False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_credentials_are_kept_as_long_as_something_needs_them(
    shop: Shop, state: Callable[[Shop], Job], kept: bool
) -> None:
    assert (state(shop).credentials is not None) is kept


def test_credentials_are_wiped_when_the_manifest_is_read_and_nothing_is_to_be_delivered(
    shop: Shop,
) -> None:
    job = shop.processing(make_chunk(1), credentials=SECRET, ingested=False)
    assert job.credentials is not None
    shop.do(jobs.finish_ingestion, job.job_no)
    assert shop.job(job).credentials is None


NEW, OLD, OLDER = ("ab" * 32, "cd" * 32, "ef" * 32)


def vault_of(*keys: str) -> Vault:
    previous = ",".join(keys[1:])
    return Settings(
        database_url="", encryption_key=keys[0], encryption_key_previous=previous
    ).vault()


def rotate(shop: Shop, vault: Vault) -> int:
    after: int | None = 0
    resealed = 0
    while after is not None:
        count, after = shop.do(job_credentials.reseal, vault, after=after)
        resealed += count
    return resealed


def submit_with(shop: Shop, vault: Vault, credentials: bytes | None = SECRET) -> Job:
    job_id, _ = shop.do(jobs.submit, shop.new_job(credentials=credentials), vault)
    return shop.job(job_id)


def opens(shop: Shop, job: Job, vault: Vault) -> bool:
    sealed = shop.job(job).credentials
    try:
        return job_credentials.open_sealed(sealed, job.job_id, job.customer_id, vault) == SECRET
    except UndecryptableCredentials:
        return False


def test_a_rotation_reseals_what_older_keys_sealed(shop: Shop) -> None:
    made = [submit_with(shop, vault_of(key)) for key in (OLDER, OLD, NEW)]
    submit_with(shop, vault_of(OLD), None)
    assert rotate(shop, vault_of(NEW, OLD, OLDER)) == 2
    assert all(opens(shop, job, vault_of(NEW)) for job in made)
    assert not any(opens(shop, job, vault_of(OLD, OLDER)) for job in made)


def test_a_second_rotation_finds_nothing_to_do(shop: Shop) -> None:
    job = submit_with(shop, vault_of(OLD))
    rotate(shop, vault_of(NEW, OLD))
    sealed = shop.job(job).credentials
    assert rotate(shop, vault_of(NEW, OLD)) == 0
    assert shop.job(job).credentials == sealed


def test_a_rotation_goes_on_past_a_batch(shop: Shop) -> None:
    job = submit_with(shop, vault_of(NEW))
    shop.run(
        "insert into jobs (job_id, task_key, customer_id, manifest_url, question, options, "
        "consensus_threshold, task_type, priority, stop_early, failure_threshold_percent, credentials) "
        "select 'job_' || n, n, customer_id, manifest_url, question, options, consensus_threshold, "
        "task_type, priority, stop_early, failure_threshold_percent, credentials "
        "from jobs, generate_series(1, 1200) n"
    )
    last = submit_with(shop, vault_of(OLD))
    assert rotate(shop, vault_of(NEW, OLD)) == 1
    assert opens(shop, last, vault_of(NEW))
    assert opens(shop, job, vault_of(NEW))


def test_a_rotation_does_not_bring_wiped_credentials_back(shop: Shop) -> None:
    job = submit_with(shop, vault_of(OLD))
    with shop.held() as tx:
        jobs.fail(tx, job.job_no, "manifest_changed", "It changed.")
        rotation = Side(lambda: rotate(shop, vault_of(NEW, OLD)))
        shop.wait_for_waiters(1)
    assert rotation.join() == 0
    assert shop.job(job).credentials is None


def test_a_rotation_without_the_old_key_says_so_and_changes_nothing(shop: Shop) -> None:
    job = submit_with(shop, vault_of(OLD))
    with pytest.raises(UndecryptableCredentials, match="ASG_ENCRYPTION_KEY_PREVIOUS"):
        rotate(shop, vault_of(NEW))
    assert opens(shop, job, vault_of(OLD))


# Idempotency


def key_for(body: bytes, key: str = "key-1") -> Idempotency:
    return Idempotency(key, hashlib.sha256(body).digest())


def submit(shop: Shop, new: NewJob, idempotency: Idempotency) -> tuple[str, bool]:
    found: tuple[str, bool] = shop.do(jobs.submit, new, shop.vault, idempotency)
    return found


def test_the_same_key_and_body_is_the_same_job(shop: Shop) -> None:
    first, replayed = submit(shop, shop.new_job(), key_for(b"a"))
    assert not replayed
    assert submit(shop, shop.new_job(), key_for(b"a")) == (first, True)
    assert shop.value("select count(*) from jobs") == 1
    assert shop.value("select count(*) from runs") == 1


def test_the_same_key_and_another_body_is_a_conflict_and_makes_no_job(shop: Shop) -> None:
    submit(shop, shop.new_job(), key_for(b"a"))
    with pytest.raises(IdempotencyConflict):
        submit(shop, shop.new_job(), key_for(b"b"))
    assert shop.value("select count(*) from jobs") == 1


def test_another_key_or_another_customer_is_another_job(shop: Shop) -> None:
    first, _ = submit(shop, shop.new_job(), key_for(b"a"))
    second, _ = submit(shop, shop.new_job(), key_for(b"a", "key-2"))
    stranger = shop.do(customers.add_customer, "Other")
    third, replayed = submit(shop, shop.new_job(customer_id=stranger), key_for(b"a"))
    assert len({first, second, third}) == 3
    assert not replayed


def age_keys(shop: Shop, hours: float) -> None:
    shop.run(
        "update idempotency_keys set created_at = now() - make_interval(secs => %s)", hours * 3600
    )


def test_a_key_is_kept_for_a_day(shop: Shop) -> None:
    first, _ = submit(shop, shop.new_job(), key_for(b"a"))
    age_keys(shop, 23.9)
    assert submit(shop, shop.new_job(), key_for(b"a")) == (first, True)
    with pytest.raises(IdempotencyConflict):
        submit(shop, shop.new_job(), key_for(b"b"))


@pytest.mark.parametrize("body", [b"a", b"b"])
def test_after_a_day_a_key_is_new_again(shop: Shop, body: bytes) -> None:
    first, _ = submit(shop, shop.new_job(), key_for(b"a"))
    age_keys(shop, 24.1)
    second, replayed = submit(shop, shop.new_job(), key_for(body))
    assert (second != first, replayed) == (True, False)
    assert submit(shop, shop.new_job(), key_for(body)) == (second, True)


def test_requests_with_the_same_key_at_once_make_one_job(shop: Shop) -> None:
    for n in range(15):
        found = at_once(*[lambda n=n: submit(shop, shop.new_job(), key_for(b"a", f"key-{n}"))] * 3)
        assert len({job_id for job_id, _ in found}) == 1
        assert sorted(replayed for _, replayed in found) == [False, True, True]
    assert shop.value("select count(*) from jobs") == 15
    assert shop.value("select count(*) from runs") == 15


def test_requests_with_an_expired_key_at_once_make_one_job(shop: Shop) -> None:
    old, _ = submit(shop, shop.new_job(), key_for(b"a"))
    age_keys(shop, 25)
    found = at_once(*[lambda: submit(shop, shop.new_job(), key_for(b"a"))] * 3)
    assert len({job_id for job_id, _ in found}) == 1
    assert old not in {job_id for job_id, _ in found}
    assert shop.value("select count(*) from jobs") == 2


def test_a_key_whose_request_was_rolled_back_is_free(shop: Shop) -> None:
    with shop.given_up() as tx:
        jobs.submit(tx, shop.new_job(), shop.vault, key_for(b"a"))
        waiting = Side(lambda: submit(shop, shop.new_job(), key_for(b"a")))
        shop.wait_for_waiters(1)
    _, replayed = waiting.join()
    assert not replayed
    assert shop.value("select count(*) from jobs") == 1


# Reading


def test_a_job_comes_out_as_it_went_in(shop: Shop) -> None:
    new = shop.new_job(
        question="¿Qué es? 🦊",
        options=["a", "b,{}\"'"],
        callback_url="https://x.example.com/hook",
        metadata='{"b": "1",  "a":"2"}',
        priority=0,
        stop_early=True,
        failure_threshold_percent=0.25,
        delivery=DELIVERY,
    )
    job_id, _ = shop.do(jobs.submit, new, shop.vault)
    job = shop.job(job_id)
    for field in NewJob.__struct_fields__:
        assert getattr(job, field) == getattr(new, field)
    assert (job.status, job.pin, job.total_tasks, job.lines_read) == ("accepted", None, 0, 0)


def test_a_job_is_seen_by_its_customer_only(shop: Shop) -> None:
    job = shop.submit()
    stranger = shop.do(customers.add_customer, "Other")
    assert shop.do(jobs.get, job.job_id, customer_id=shop.customer_id) == job
    assert shop.do(jobs.get, job.job_id, customer_id=stranger) is None
    assert shop.do(jobs.get, new_id("job")) is None


def test_bad_lines_count_as_failed_and_blank_ones_not_at_all(shop: Shop) -> None:
    chunk = make_chunk(3, bad=2)
    chunk = type(chunk)(chunk.lines + 4, chunk.tasks, chunk.bad)
    job = shop.processing(chunk, make_chunk(1, start=5000))
    assert (job.total_tasks, job.tasks_done, job.tasks_failed, job.lines_read) == (6, 0, 2, 10)


def test_the_first_run_of_a_delivery_decides_how_large_its_parts_are(shop: Shop) -> None:
    job = pending(shop)
    assert shop.job(job).delivery_part_bytes is None
    shop.begin_delivery(job, 7)
    shop.begin_delivery(job, 5)
    shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "Access is denied.")
    shop.run("update jobs set delivery_status = 'pending'")
    shop.begin_delivery(job, 3)
    assert shop.job(job).delivery_part_bytes == 7


def test_of_two_runs_that_finish_a_delivery_at_once_one_records_its_objects(
    shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = delivering(shop)
    objects = [DeliveredObject(f"{job.job_id}/part-0000{n}.jsonl", n, n, "ab" * 32) for n in (0, 1)]
    with flow_settings(monkeypatch, database_url):
        with shop.held() as tx:
            tx.execute("select from jobs where job_no = %s for update", (job.job_no,))
            sides = [Side(partial(delivery.finish, job.job_id, objects)) for _ in range(2)]
            shop.wait_for_waiters(2)
        for side in sides:
            side.join()
    listed = shop.do(delivered_objects.list_page, job.job_no, after=0, limit=9)
    assert [each.key for each in listed] == [each.key for each in objects]
    assert shop.job(job).delivery_objects == 3


def test_a_job_that_was_cancelled_during_its_delivery_records_no_objects(
    shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = delivering(shop)
    shop.do(jobs.cancel, job.job_no)
    with flow_settings(monkeypatch, database_url):
        delivery.finish(job.job_id, [DeliveredObject("part-00000.jsonl", 1, 1, "ab" * 32)])
    assert shop.value("select count(*) from delivered_objects") == 0
