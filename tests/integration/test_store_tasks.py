"""Inline tasks in the store: many at once, and among annotators who claim meanwhile."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest

from blocks.domain.errors import IdempotencyConflict, Transient
from blocks.domain.model import LabelOutcome, TaskStatus, TaskType
from blocks.store import annotation, customers, labelling, tasks
from blocks.store.tasks import CreatedTask, NewTask, Rule
from tests.support.books import check_books
from tests.support.side import Side, at_once
from tests.support.store_shop import OPTIONS, Shop

pytestmark = pytest.mark.integration

QUESTIONS = 12


class Container(msgspec.Struct, frozen=True):
    """What inline tasks hang on."""

    job_no: int
    options: list[str]
    consensus_threshold: int
    stop_early: bool


def rule(**changes: Any) -> Rule:
    default = Rule(
        task_type=TaskType.MODERATION,
        question="Is it fine?",
        options=OPTIONS,
        consensus_threshold=3,
        stop_early=False,
    )
    return msgspec.structs.replace(default, **changes)


def task(key: str | None = None, *, body: bytes = b"body", **changes: Any) -> NewTask:
    return NewTask(
        rule=rule(**changes),
        data_url="https://img.example.com/x",
        metadata=None,
        callback_url=None,
        idempotency_key=key,
        body_hash=body,
    )


def append(shop: Shop, *new: NewTask) -> list[CreatedTask]:
    created: list[CreatedTask] = shop.do(tasks.create, shop.customer_id, new, shop.vault)
    return created


def ids(created: list[CreatedTask]) -> list[str]:
    return [each.task_id for each in created]


def container_of(shop: Shop, id_: str) -> Container:
    job_id, _ = shop.find_task(id_)
    (row,) = shop.run(
        "select job_no, options, consensus_threshold, stop_early from jobs where job_id = %s",
        job_id,
    )
    return Container(**row)


def status(shop: Shop, id_: str) -> TaskStatus:
    found: tasks.Task = shop.do(tasks.get, id_, customer_id=shop.customer_id)
    return found.status


def lanes(shop: Shop) -> int:
    return int(shop.value("select count(*) from lanes"))


def open_jobs(shop: Shop) -> int:
    return int(shop.value("select count(*) from jobs where status = 'processing'"))


# Keys, at once


def test_the_same_key_at_once_makes_one_task(shop: Shop) -> None:
    made = set()
    for round_ in range(5):
        created = at_once(*[partial(append, shop, task(f"key {round_}"))] * 6)
        made |= {id_ for each in created for id_ in ids(each)}
        assert len(made) == round_ + 1
        assert sorted(each.replayed for (each,) in created) == [False] + [True] * 5
    assert len(shop.tasks()) == 5
    check_books(shop, container_of(shop, made.pop()))


def test_the_same_key_for_two_tasks_at_once_makes_one_and_a_conflict(shop: Shop) -> None:
    def attempt(body: bytes) -> str:
        with suppress(IdempotencyConflict):
            return append(shop, task("k", body=body))[0].task_id
        return "conflict"

    answers = at_once(*[partial(attempt, bytes([n])) for n in range(4)])
    assert Counter(answers)["conflict"] == 3
    assert len(shop.tasks()) == 1


def test_batches_with_keys_in_opposite_order_at_once_do_not_wait_in_a_circle(shop: Shop) -> None:
    for round_ in range(5):
        batch = [task(f"{round_}.{n}", question=f"{round_}.{n}") for n in range(QUESTIONS)]
        one, two = at_once(partial(append, shop, *batch), partial(append, shop, *reversed(batch)))
        assert ids(one) == ids(two)[::-1]
        assert {each.replayed for each in one} != {each.replayed for each in two}


def test_a_key_whose_request_was_undone_is_free_again(shop: Shop) -> None:
    with shop.given_up() as tx:
        tasks.create(tx, shop.customer_id, [task("k")], shop.vault)
        waiting = Side(partial(append, shop, task("k", body=b"another")))
        shop.wait_for_waiters(1)
    (created,) = waiting.join()
    assert not created.replayed
    assert len(shop.tasks()) == 1


def test_two_customers_with_the_same_key_do_not_wait_for_each_other(shop: Shop) -> None:
    other = shop.do(customers.add_customer, "Other")
    with shop.held() as tx:
        tasks.create(tx, other, [task("k")], shop.vault)
        assert append(shop, task("k"))


# Rules, at once


def test_a_new_rule_at_once_makes_one_place_for_its_tasks(shop: Shop) -> None:
    created = at_once(*[partial(append, shop, *[task()] * 10)] * 6)
    assert len({id_ for each in created for id_ in ids(each)}) == 60
    assert shop.value("select count(*) from jobs") == 1
    check_books(shop, container_of(shop, created[0][0].task_id))


def test_batches_over_new_rules_in_opposite_order_at_once_are_no_deadlock(shop: Shop) -> None:
    for round_ in range(8):
        batch = [task(question=f"{round_}.{n}") for n in range(QUESTIONS)]
        at_once(partial(append, shop, *batch), partial(append, shop, *reversed(batch)))
    assert shop.value("select count(*) from jobs") == 8 * QUESTIONS
    assert shop.run("select from chunks where tasks <> 2") == []


def test_batches_over_known_rules_in_opposite_order_at_once_are_no_deadlock(shop: Shop) -> None:
    batch = [task(question=f"{n}") for n in range(QUESTIONS)]
    append(shop, *batch[::2], *batch[1::2])

    def append_often(*new: NewTask) -> None:
        for _ in range(8):
            append(shop, *new)

    at_once(partial(append_often, *batch), partial(append_often, *reversed(batch)))
    assert shop.run("select from chunks where tasks <> 17") == []


def test_a_batch_over_several_rules_locks_in_the_order_of_jobs_as_labels_do(shop: Shop) -> None:
    batch = [task(question=f"{n}") for n in range(QUESTIONS)]
    batch.sort(key=lambda each: tasks._inline_key(each.rule), reverse=True)
    job_nos = [container_of(shop, append(shop, each)[0].task_id).job_no for each in batch]
    assert job_nos == sorted(job_nos)
    with shop.held() as tx:
        lock = "select from chunks where job_no = %s for update"
        tx.execute(lock, [job_nos[0]])
        appending = Side(partial(append, shop, *batch))
        shop.wait_for_waiters(1)
        for job_no in job_nos[1:]:
            tx.execute(lock, [job_no])
    assert len(appending.join()) == QUESTIONS


def test_each_part_of_the_rule_makes_another_place(shop: Shop) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"question": "?"},
        {"options": OPTIONS[::-1]},
        {"consensus_threshold": 4},
        {"stop_early": True},
        {"skips_max": 4},
        {"task_type": TaskType.SENTIMENT},
    ]
    for _ in range(2):
        append(shop, *(task(**change) for change in changes))
    assert shop.value("select count(*) from jobs") == len(changes)
    assert shop.run("select from chunks where tasks <> 2") == []


def test_a_batch_that_was_undone_leaves_nothing_behind(shop: Shop) -> None:
    with shop.given_up() as tx:
        tasks.create(tx, shop.customer_id, [task(), task("k"), task(question="?")], shop.vault)
    for table in ("jobs", "chunks", "lanes", "pages", "inline_tasks"):
        assert shop.value(f"select count(*) from {table}") == 0


def test_a_key_cannot_stand_for_two_tasks_even_if_the_code_were_wrong(shop: Shop) -> None:
    append(shop, task("k"), task("other"))
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.run("update inline_tasks set idempotency_key = 'k'")


# Among annotators


def test_tasks_that_are_appended_are_handed_out_after_those_before_them(shop: Shop) -> None:
    first = ids(append(shop, task(), task()))
    annotator = shop.annotator()
    assert [each.task_id for each in shop.claim(annotator, 1)] == first[:1]
    second = ids(append(shop, task(), task()))
    assert [each.task_id for each in shop.claim(annotator)] == first[1:] + second
    check_books(shop, container_of(shop, first[0]))


def test_where_all_was_handed_out_appended_tasks_begin_anew(shop: Shop) -> None:
    people = shop.annotators(3)
    labelled = Counter[str]()
    for round_ in range(3):
        new = ids(append(shop, *[task()] * (round_ + 1)))
        assert lanes(shop) == 1
        assert [status(shop, id_) for id_ in new] == ["pending"] * len(new)
        for annotator in people:
            claimed = [each.task_id for each in shop.claim(annotator)]
            assert claimed == new
            labelled.update(claimed)
            shop.label(annotator, *((id_, "cat") for id_ in claimed))
        assert lanes(shop) == 0
        check_books(shop, container_of(shop, new[0]))
    assert set(labelled.values()) == {3}
    assert {status(shop, id_) for id_ in labelled} == {"settled"}


def test_claims_do_not_look_at_rules_of_which_all_tasks_have_ended(shop: Shop) -> None:
    (old,) = ids(append(shop, task(consensus_threshold=2)))
    one, two = shop.annotators(2)
    shop.answer(one, "cat")
    assert open_jobs(shop) == 1
    shop.answer(two, "cat")
    assert open_jobs(shop) == 0
    (new,) = ids(append(shop, task(consensus_threshold=2)))
    assert open_jobs(shop) == 1
    assert [each.task_id for each in shop.claim(one)] == [new]
    assert (status(shop, old), status(shop, new)) == ("settled", "in_progress")
    check_books(shop, container_of(shop, new))


@pytest.mark.parametrize("labels_first", [True, False], ids=["labels first", "append first"])
def test_who_appends_beside_the_last_label_has_his_task_handed_out(
    shop: Shop, labels_first: bool
) -> None:
    (old,) = ids(append(shop, task(consensus_threshold=2)))
    one, two = shop.annotators(2)
    shop.answer(one, "cat")
    shop.claim(two)
    with shop.held() as tx:
        if labels_first:
            assert labelling.submit(tx, two, [labelling.Label(old, "cat")]) == ["settled"]
            other = Side(partial(append, shop, task(consensus_threshold=2)))
        else:
            tasks.create(tx, shop.customer_id, [task(consensus_threshold=2)], shop.vault)
            other = Side(partial(shop.label, two, (old, "cat")))
        shop.wait_for_waiters(1)
    other.join()
    assert open_jobs(shop) == 1
    (new,) = shop.claim(one)
    shop.label(one, (new.task_id, "cat"))
    assert shop.answer(two, "cat") == ["settled"]
    assert open_jobs(shop) == 0
    check_books(shop, container_of(shop, old))


def test_new_annotators_get_appended_tasks_and_not_those_that_were_handed_out(shop: Shop) -> None:
    append(shop, task(), task())
    for annotator in shop.annotators(3):
        shop.claim(annotator)
    new = ids(append(shop, task()))
    for annotator in shop.annotators(3):
        assert [each.task_id for each in shop.claim(annotator)] == new
    assert shop.claim(shop.annotator()) == []
    check_books(shop, container_of(shop, new[0]))


@pytest.mark.parametrize("last_claim", [False, True], ids=["goes on", "was the last"])
def test_who_appends_beside_a_claim_waits_for_it_and_forgets_nothing(
    shop: Shop, last_claim: bool
) -> None:
    first = ids(append(shop, task(consensus_threshold=2), task(consensus_threshold=2)))
    one, two, three = shop.annotators(3)
    if last_claim:
        shop.claim(one)
    with shop.held() as tx:
        claimed = annotation.claim(tx, two, limit=10, lease_s=60)
        assert [each.task_id for each in claimed] == first
        appending = Side(partial(append, shop, task(consensus_threshold=2)))
        shop.wait_for_waiters(1)
    new = ids(appending.join())
    expected = new if last_claim else first + new
    assert [each.task_id for each in shop.claim(three)] == expected
    assert [each.task_id for each in shop.claim(two)] == new
    check_books(shop, container_of(shop, new[0]))


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "undone"])
def test_who_claims_beside_an_append_waits_for_it_and_passes_over_nothing(
    shop: Shop, committed: bool
) -> None:
    (old,) = ids(append(shop, task()))
    annotator = shop.annotator()
    with shop.held() if committed else shop.given_up() as tx:
        new = ids(tasks.create(tx, shop.customer_id, [task()], shop.vault))
        claiming = Side(partial(shop.claim, annotator))
        shop.wait_for_waiters(1)
    found = [each.task_id for each in claiming.join()]
    assert found == ([old, *new] if committed else [old])
    if not committed:
        assert ids(append(shop, task())) == new  # the number was never seen outside
        assert [each.task_id for each in shop.claim(annotator)] == new
    check_books(shop, container_of(shop, old))


def test_a_task_that_is_not_committed_takes_no_label(shop: Shop) -> None:
    append(shop, task())
    annotator = shop.annotator()
    shop.claim(annotator)
    with shop.given_up() as tx:
        (id_,) = ids(tasks.create(tx, shop.customer_id, [task()], shop.vault))
        assert shop.label(annotator, (id_, "cat")) == ["unknown_task"]


class Crowd:
    """Annotators who claim and label until nothing comes any more."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self._shop = shop
        self._random = random.Random(seed)
        self.no_more_to_come = threading.Event()
        self.outcomes = Counter[LabelOutcome]()
        self.handed_out: list[tuple[int, str]] = []

    def work(self, annotator: int) -> None:
        while True:
            was_last = self.no_more_to_come.is_set()
            claimed = self._shop.claim(annotator, self._random.randint(1, 9))
            if was_last and not claimed:
                return
            self.handed_out += ((annotator, each.task_id) for each in claimed)
            kept = [each.task_id for each in claimed if self._random.random() < 0.9]
            labels = [(id_, self._random.choice(OPTIONS[:2])) for id_ in kept]
            self.outcomes.update(self._shop.label(annotator, *labels))
            self._shop.release(annotator, *{each.task_id for each in claimed} - set(kept))


@pytest.mark.parametrize("stop_early", [False, True])
def test_tasks_that_are_appended_while_annotators_work_are_all_labelled_and_none_too_often(
    shop: Shop, stop_early: bool
) -> None:
    rules: list[dict[str, Any]] = [
        {"consensus_threshold": n, "stop_early": stop_early} for n in (2, 3)
    ]
    crowd = Crowd(shop, seed=7)
    appended: list[str] = []

    def append_all(draw: random.Random) -> None:
        for _ in range(12):
            new = [task(**draw.choice(rules)) for _ in range(draw.randint(1, 8))]
            appended.extend(ids(append(shop, *new)))

    def append_and_tell() -> None:
        at_once(partial(append_all, random.Random(1)), partial(append_all, random.Random(2)))
        crowd.no_more_to_come.set()

    people = shop.annotators(6)
    jobs: list[Callable[[], None]] = [partial(crowd.work, who) for who in people[:4]]
    at_once(append_and_tell, *jobs)
    for id_ in {id_[:26]: id_ for id_ in appended}.values():
        check_books(shop, container_of(shop, id_))
    for who in people[4:]:
        crowd.work(who)
    for who in shop.annotators(4):  # of a tie
        crowd.work(who)
    found = Counter(status(shop, id_) for id_ in appended)
    assert set(found) <= {TaskStatus.SETTLED, TaskStatus.FAILED}, found
    assert len(set(appended)) == len(appended)
    assert {id_ for _, id_ in crowd.handed_out} == set(appended)
    # Each label counted: nobody was handed what was not needed when it was handed out.
    expected = {LabelOutcome.ACCEPTED, LabelOutcome.SETTLED}
    assert set(crowd.outcomes) - {LabelOutcome.ALREADY_SETTLED if stop_early else None} == expected
    for id_ in {id_[:26]: id_ for id_ in appended}.values():
        check_books(shop, container_of(shop, id_))


def test_a_deadlock_would_be_seen_by_these_tests(shop: Shop) -> None:
    batch = [task(question=f"{n}") for n in range(2)]
    job_nos = [container_of(shop, id_).job_no for id_ in ids(append(shop, *batch))]
    lock = "select from chunks where job_no = %s for update"

    def wait_in_a_circle() -> None:
        with shop.held() as tx:
            tx.execute(lock, [max(job_nos)])
            appending = Side(partial(append, shop, *batch))
            shop.wait_for_waiters(1)
            tx.execute(lock, [min(job_nos)])
        appending.join()

    with pytest.raises(Transient, match="deadlock"):
        wait_in_a_circle()
