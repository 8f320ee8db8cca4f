"""Annotators and customers who do anything in any order, beside a model of what ought to come of it."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row

from blocks.domain.ids import new_id, parse_task_id, task_id
from blocks.domain.model import Pin, TaskType
from blocks.secrets.vault import Vault
from blocks.store import annotation, chunks, customers, jobs, tasks
from blocks.store.database import Database, Transaction
from blocks.store.tasks import NewTask, Rule
from tests.support.books import check_books
from tests.support.labelling import Job, Labelling
from tests.support.side import WAIT_S, Side
from tests.support.store_shop import DELIVERY, LINE_BYTES, Shop, make_chunk

pytestmark = [
    pytest.mark.integration,
    # Threads use `random` beside hypothesis: those of the pool of connections, and Prefect's that other tests leave.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

CREW = 5
# New annotators end every task alone: they give the labels of twice the largest threshold, and some of them only
# carry a cursor on.
FRESH = 16
JOBS_MAX = 3
CHUNK_BYTES = 10_000
POLL_S = 0.002
# A task fails by labels that are all different, or all in pairs; of fewer options it never does.
OPTIONS = ["cat", "dog", "fox", "owl", "elk"]
UNKNOWN = "cow"

people = st.integers(0, CREW - 1)
PICKS = 24

picks = st.integers(0, PICKS - 1)
options = st.sampled_from([*OPTIONS, *OPTIONS[:2], *OPTIONS[:2], UNKNOWN])
few = st.integers(1, 4)
thresholds = st.integers(2, 4)


class World(Shop):
    """A store whose one connection beside the pool serves all looks into it, and everybody who labels."""

    def __init__(self, database: Database, url: str, vault: Vault) -> None:
        super().__init__(database, url, vault)
        self._connection = psycopg.connect(url, row_factory=dict_row, autocommit=True)
        self.people = self.annotators(CREW + FRESH)

    def run(self, statement: str, *values: object) -> list[dict[str, Any]]:
        cursor = self._connection.execute(cast(Any, statement), values)
        return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        """A new customer, whose tasks alone everybody is handed."""
        self.customer_id = self.do(customers.add_customer, "Acme")
        self.run("update annotators set customer_ids = array[%s]", self.customer_id)

    def end(self) -> None:
        """Leave nothing to be handed out."""
        for row in self.run("select job_no from jobs where customer_id = %s", self.customer_id):
            self.do(jobs.cancel, row["job_no"])
        self.run("delete from leases")

    def wait_for_end_or_lock(self, side: Side) -> None:
        """Go on when the side has ended, or waits for a lock of another."""
        query = (
            "select count(*) from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        )
        deadline = time.monotonic() + WAIT_S
        while not side.wait(POLL_S) and not self.value(query):
            assert time.monotonic() < deadline, "it neither ends nor waits"

    def close(self) -> None:
        self._connection.close()


Act = Callable[[Transaction], Any]
Tell = Callable[[Labelling, Any, bool], None]
"""Tells the model of the result, and whether nothing else was under way; fails if it cannot be."""
Step = tuple[Act, Tell]


class Annotation(RuleBasedStateMachine):
    """The store and the model, step by step."""

    leaves_nothing = True
    """Whether a job that has ended has no open places and no cursors."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.world.begin()
        self.crew, self.fresh = world.people[:CREW], world.people[CREW:]
        self.model = Labelling(world.people)
        self.is_sound = False
        self.over: set[str] = set()

    # What customers do

    @initialize(
        threshold=thresholds,
        stop_early=st.booleans(),
        sizes=st.lists(few, min_size=1, max_size=2),
        claims=st.lists(st.tuples(people, few), max_size=8),
    )
    def begin(
        self, threshold: int, stop_early: bool, sizes: list[int], claims: list[tuple[int, int]]
    ) -> None:
        self._post(threshold, stop_early, has_delivery=False, sizes=sizes)
        for who, limit in claims:
            self._take(self._claim(self.crew[who], limit, None))

    @precondition(lambda self: len(self.model.jobs) < JOBS_MAX)
    @rule(
        threshold=thresholds,
        stop_early=st.booleans(),
        has_delivery=st.booleans(),
        sizes=st.lists(few, max_size=2),
    )
    def post(self, threshold: int, stop_early: bool, has_delivery: bool, sizes: list[int]) -> None:
        self._post(threshold, stop_early, has_delivery, sizes)

    def _post(self, threshold: int, stop_early: bool, has_delivery: bool, sizes: list[int]) -> None:
        # No two have the same priority: which came first would be a throw of dice.
        priority = (6, 4, 8)[len(self.model.jobs)]
        made = self.world.submit(
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
            priority=priority,
            delivery=DELIVERY if has_delivery else None,
        )
        self.world.do(jobs.begin, made.job_no)
        self.world.do(jobs.pin, made.job_no, Pin(1_000_000, '"etag"'), CHUNK_BYTES)
        job = Job(
            job_no=made.job_no,
            job_id=made.job_id,
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
            priority=priority,
            has_delivery=has_delivery,
        )
        self.model.jobs[job.job_id] = job
        for size in sizes:
            self._commit_chunk(job, size, bad=0)

    @rule(which=picks, size=st.integers(0, 4), bad=st.integers(0, 1))
    def commit_chunk(self, which: int, size: int, bad: int) -> None:
        job = self._job(which)
        if job.is_open and not job.is_ingested:
            self._commit_chunk(job, size, bad)

    def _commit_chunk(self, job: Job, size: int, bad: int) -> None:
        chunk_no = self.world.value("select count(*) from chunks where job_no = %s", job.job_no)
        start = chunk_no * CHUNK_BYTES
        chunk = make_chunk(size, bad=bad, start=start)
        assert self.world.do(chunks.commit, job.job_no, chunk_no, chunk, None)
        for n in range(size):
            offset = start + n * LINE_BYTES
            self.model.add_task(job, task_id(job.job_id, offset), offset, chunk_no)

    @rule(which=picks)
    def finish_ingestion(self, which: int) -> None:
        self._finish_ingestion(self._job(which))

    def _finish_ingestion(self, job: Job) -> None:
        self.world.do(jobs.finish_ingestion, job.job_no)
        if job.is_open and not job.is_ingested:
            job.is_ingested = True
            job.settle()

    @rule(threshold=st.integers(2, 3), stop_early=st.booleans(), count=st.integers(1, 2))
    def post_inline(self, threshold: int, stop_early: bool, count: int) -> None:
        job = next((job for job in self.model.jobs.values() if job.is_inline), None)
        if job and (job.consensus_threshold, job.stop_early) != (threshold, stop_early):
            return  # that would be another container
        asked = Rule(
            task_type=TaskType.SENTIMENT,
            question="How does it feel?",
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
        )
        new = NewTask(
            rule=asked,
            data_url="https://img.example.com/1.jpg",
            metadata=None,
            callback_url=None,
            idempotency_key=None,
            body_hash=b"",
        )
        made = self.world.do(tasks.create, self.world.customer_id, [new] * count, self.world.vault)
        job = job or self._new_container(made[0].task_id, threshold, stop_early)
        for each in made:
            self.model.add_task(job, each.task_id, len(job.tasks), 0)

    def _new_container(self, of_task: str, threshold: int, stop_early: bool) -> Job:
        key = parse_task_id(of_task)
        assert key
        job_id, _ = key
        self.model.jobs[job_id] = Job(
            job_no=self.world.value("select job_no from jobs where job_id = %s", job_id),
            job_id=job_id,
            options=OPTIONS,
            consensus_threshold=threshold,
            stop_early=stop_early,
            priority=5,
            is_inline=True,
            is_ingested=True,
        )
        return self.model.jobs[job_id]

    @rule(which=picks, sure=st.integers(0, 3), fails=st.booleans())
    def end_job(self, which: int, sure: int, fails: bool) -> None:
        if not sure:  # or few examples would come to an end
            self._take(self._end_job(which, fails=fails))

    def _end_job(self, which: int, *, fails: bool) -> Step:
        made = [job for job in self.model.jobs.values() if not job.is_inline]
        job = made[which % len(made)]

        def fail(tx: Transaction) -> None:
            jobs.fail(tx, job.job_no, "manifest_changed", "It changed.")

        def tell_of_failure(model: Labelling, _: None, alone: bool) -> None:
            if model.jobs[job.job_id].is_open and not job.is_ingested:
                model.jobs[job.job_id].status = "failed"

        def cancel(tx: Transaction) -> bool:
            return jobs.cancel(tx, job.job_no)

        def tell_of_cancel(model: Labelling, is_cancelled: bool, alone: bool) -> None:
            assert is_cancelled == model.jobs[job.job_id].is_open
            if is_cancelled:
                model.jobs[job.job_id].status = "cancelled"

        return (fail, tell_of_failure) if fails else (cancel, tell_of_cancel)

    def _job(self, which: int) -> Job:
        made = list(self.model.jobs.values())
        return made[which % len(made)]

    # What annotators do

    @rule(who=people, limit=few | st.just(100), of=st.none() | picks)
    def claim(self, who: int, limit: int, of: int | None) -> None:
        self._take(self._claim(self.crew[who], limit, of))

    @rule(who=people, said=st.lists(options, min_size=1, max_size=4))
    def label_what_is_held(self, who: int, said: list[str]) -> None:
        self._take(self._label_held(self._holder(who), said))

    @rule(who=people, said=st.lists(st.tuples(picks, options), min_size=1, max_size=3))
    def label_anything(self, who: int, said: list[tuple[int, str]]) -> None:
        self._take(self._label_any(self.crew[who], said))

    @rule(who=people, limit=few | st.just(100), said=st.lists(options, min_size=1, max_size=3))
    def claim_and_label(self, who: int, limit: int, said: list[str]) -> None:
        annotator = self.crew[who]
        self._take(self._claim(annotator, limit, None))
        self._take(self._label_held(annotator, said * len(self.model.tasks)))

    @rule(who=people, count=few, others=st.lists(picks, max_size=2))
    def release(self, who: int, count: int, others: list[int]) -> None:
        annotator = self._holder(who)
        held = list(self.model.held[annotator])[:count]
        self._take(self._release(annotator, held + [self._task_id(each) for each in others]))

    @rule(who=people)
    def let_leases_expire(self, who: int) -> None:
        self._expire(self._holder(who))

    @rule()
    def return_leases(self) -> None:
        self._return_leases()

    @rule(who=people)
    def withdraw_or_grant(self, who: int) -> None:
        annotator = self.crew[who]
        name = self.world.value("select name from annotators where annotator_no = %s", annotator)
        if annotator in self.model.granted:
            customer_ids = [self.world.customer_id]
            _, returned = self.world.do(customers.withdraw, name, customer_ids)
            assert returned == self.model.withdraw(annotator)
        else:
            self.world.do(customers.grant, name, [self.world.customer_id])
            self.model.granted.add(annotator)

    def _expire(self, annotator: int) -> None:
        self.world.run(
            "update leases set expires_at = now() - interval '1 second' where annotator_no = %s",
            annotator,
        )
        self.model.expire(annotator)

    def _return_leases(self) -> None:
        self.world.do(annotation.return_leases, limit=1000)
        self.model.return_leases()

    def _take(self, step: Step) -> None:
        self.is_sound = False
        act, tell = step
        tell(self.model, self.world.do(act), True)

    def _holder(self, who: int) -> int:
        """One of those who hold something, if there are any."""
        holders = [annotator for annotator in self.crew if self.model.held[annotator]]
        return holders[who % len(holders)] if holders else self.crew[who % CREW]

    def _task_id(self, which: int) -> str:
        """Mostly a task that somebody was handed; now and then another one, or none at all."""
        handed: list[str] = []
        fresh = [f"{new_id('tsk')}0", "rubbish"]
        for task in self.model.tasks.values():
            (handed if task.handed_to else fresh).append(task.task_id)
        if handed and which < PICKS - 4:
            return handed[which % len(handed)]
        return fresh[which % len(fresh)]

    def _claim(self, annotator: int, limit: int, of: int | None) -> Step:
        job_id = None if of is None else self._job(of).job_id

        def act(tx: Transaction) -> list[str]:
            claimed = annotation.claim(tx, annotator, limit=limit, lease_s=600, job_id=job_id)
            return [task.task_id for task in claimed]

        def tell(model: Labelling, claimed: list[str], alone: bool) -> None:
            model.claim(annotator, claimed, limit=limit, job_id=job_id, alone=alone)
            if alone and len(claimed) < limit:
                self._check_vacancies(annotator, claimed, job_id)

        return act, tell

    def _check_vacancies(self, annotator: int, claimed: Sequence[str], job_id: str | None) -> None:
        """Nothing that is open to the annotator is left to them who wanted more."""
        query = """
            select distinct task_id(j.job_id, v.byte_offset) as id
            from vacancies v join jobs j using (job_no)
            where j.job_id = %s or %s::text is null
        """
        for row in self.world.run(query, job_id, job_id):
            task = self.model.tasks.get(row["id"])
            if task and self.model.may_have(annotator, task):
                assert claimed, f"{annotator} came back empty beside {row['id']}"
                assert annotator in task.let_go_by or task.has_unasked

    def _label_held(self, annotator: int, said: Sequence[str]) -> Step:
        held = list(self.model.held[annotator])
        return self._label(annotator, list(zip(held, said, strict=False)))

    def _label_any(self, annotator: int, said: Sequence[tuple[int, str]]) -> Step:
        return self._label(annotator, [(self._task_id(which), option) for which, option in said])

    def _label(self, annotator: int, labels: Sequence[tuple[str, str]]) -> Step:
        def act(tx: Transaction) -> list[str]:
            said = [annotation.Label(*label) for label in labels]
            return list(annotation.submit(tx, annotator, said))

        def tell(model: Labelling, outcomes: list[str], alone: bool) -> None:
            assert outcomes == model.label(annotator, labels)

        return act, tell

    def _release(self, annotator: int, task_ids: list[str]) -> Step:
        def act(tx: Transaction) -> set[str]:
            return annotation.release(tx, annotator, task_ids)

        def tell(model: Labelling, released: set[str], alone: bool) -> None:
            assert released == model.release(annotator, task_ids)

        return act, tell

    # What holds after every step

    @invariant()
    def agrees_with_the_model(self) -> None:
        self._check_leases()
        self._check_labels()
        for job in self.model.jobs.values():
            self._check_job(job)
            # Of a job that is over nothing changes any more.
            was_over = job.job_id in self.over
            self.over -= {job.job_id}
            if job.is_settled or not job.is_open:
                self.over.add(job.job_id)
            if not was_over or job.job_id not in self.over:
                check_books(self.world, job)
        self.is_sound = True

    def _check_leases(self) -> None:
        query = """
            select l.annotator_no, task_id(j.job_id, unnest(l.byte_offsets)) as id,
                   l.expires_at < now() as is_overdue
            from leases l join jobs j using (job_no)
        """
        held: dict[int, dict[str, bool]] = {annotator: {} for annotator in self.world.people}
        for row in self.world.run(query):
            assert row["id"] not in held[row["annotator_no"]], "held twice"
            held[row["annotator_no"]][row["id"]] = row["is_overdue"]
        assert held == self.model.held
        for task in self.model.tasks.values():
            holders = {annotator for annotator, tasks in held.items() if task.task_id in tasks}
            assert not holders & task.labels.keys(), "somebody holds what they have labelled"

    def _check_labels(self) -> None:
        query = """
            select task_id(j.job_id, l.byte_offset) as id, l.annotator_no, j.options[l.option] as option
            from labels l join jobs j using (job_no) where j.customer_id = %s
        """
        rows = self.world.run(query, self.world.customer_id)
        found = {(row["id"], row["annotator_no"]): row["option"] for row in rows}
        assert len(rows) == len(found)
        assert found == {
            (task.task_id, annotator): option
            for task in self.model.tasks.values()
            for annotator, option in task.labels.items()
        }

    def _check_job(self, job: Job) -> None:
        query = """
            select j.status, j.settled_at is not null as is_settled, coalesce(sum(c.tasks), 0) as tasks,
                   coalesce(sum(c.settled), 0) as settled, coalesce(sum(c.failed), 0) as failed,
                   (select count(*) from lanes l where l.job_no = j.job_no)
                   + (select count(*) from vacancies v where v.job_no = j.job_no) as to_be_had
            from jobs j left join chunks c using (job_no)
            where j.job_no = %s group by j.job_no
        """
        (row,) = self.world.run(query, job.job_no)
        outcomes = [task.outcome for task in job.tasks]
        assert row["status"] == job.status
        assert row["is_settled"] == job.is_settled
        assert row["tasks"] == len(outcomes)
        assert row["settled"] == sum(bool(outcome) for outcome in outcomes)
        assert row["failed"] == outcomes.count(0)
        if self.leaves_nothing and (job.is_settled or not job.is_open):
            assert row["to_be_had"] == 0

    # What can be had from every state

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self._end_well()
        finally:
            self.world.end()

    def _end_well(self) -> None:
        for annotator in self.world.people:
            self._expire(annotator)
        self._return_leases()
        self._work(self.crew)
        self._check_that_nothing_is_left_to(self.crew)
        fresh = iter(self.fresh)
        while any(job.is_open and not job.has_ended for job in self.model.jobs.values()):
            newcomer = next(fresh, None)
            assert newcomer, "new annotators do not end every task"
            self._claim_and_label(newcomer)
        for job in self.model.jobs.values():
            self._finish_ingestion(job)
            assert job.is_settled or not job.is_open
        self._take(self._claim(self.fresh[-1], 1, None))
        self.agrees_with_the_model()

    def _work(self, crew: Sequence[int]) -> None:
        """Claim and label until all of them come back empty."""
        idle = 0
        while idle < len(crew):
            for annotator in crew:
                idle = 0 if self._claim_and_label(annotator) else idle + 1

    def _check_that_nothing_is_left_to(self, crew: Sequence[int]) -> None:
        """A crew that is large enough for a job lacks nobody for what was labelled in turn.

        In one that is not, or after an unasked label, the place may be of a cursor that is nobody's.
        """
        active = len(self.model.granted.intersection(crew))
        for task in self.model.tasks.values():
            if task.has_unasked or active < task.job.consensus_threshold:
                continue
            waiting = [who for who in crew if self.model.may_have(who, task)]
            assert not waiting, f"{task.task_id} could be labelled by {waiting}"

    def _claim_and_label(self, annotator: int) -> bool:
        self._take(self._claim(annotator, 100, None))
        held = list(self.model.held[annotator])
        if held:
            # Of every first task the same, of the others more and less.
            said = [OPTIONS[annotator * n % len(OPTIONS)] for n in range(len(held))]
            self._take(self._label_held(annotator, said))
        return bool(held)


Intent = tuple[str, int, Any]
"""What somebody is going to do, whom it comes from, and the rest of it."""

intents: st.SearchStrategy[Intent] = st.one_of(
    st.tuples(st.just("claim"), people, few | st.just(100)),
    st.tuples(st.just("label"), people, st.lists(options, min_size=1, max_size=4)),
    st.tuples(
        st.just("label_any"), people, st.lists(st.tuples(picks, options), min_size=1, max_size=3)
    ),
    st.tuples(st.just("release"), people, few),
    st.tuples(st.just("end_job"), picks, st.none()),
)


class AnnotationAtOnce(Annotation):
    """The same, with two who do something at once.

    The second begins when the first has done all but the commit, and ends, or waits for a lock, before
    that: so the same steps always meet in the same way. What comes of the two is what would have come
    of one after the other.
    """

    leaves_nothing = (
        False  # a release beside the end of its job leaves places that nobody is handed
    )

    @rule(first=intents, second=intents, is_same=st.booleans())
    def do_two_things_at_once(self, first: Intent, second: Intent, is_same: bool) -> None:
        self.is_sound = False
        kind, who, more = second
        act, tell = self._step(*first)
        act_beside, tell_beside = self._step(kind, first[1] if is_same else who, more)
        with self.world.held() as tx:
            result = act(tx)
            beside = Side(lambda: self.world.do(act_beside))
            self.world.wait_for_end_or_lock(beside)
        told = [(tell, result), (tell_beside, beside.join())]
        try:
            self.model = self._told(told)
        except AssertionError:
            self.model = self._told(told[::-1])
        # A claim passes over leases that somebody is just labelling.
        self._return_leases()
        self._label_again()

    def _label_again(self) -> None:
        """Have annotators label what they were handed while a label of theirs for it was counted."""
        query = """
            select l.annotator_no, task_id(j.job_id, unnest(l.byte_offsets)) as id
            from leases l join jobs j using (job_no)
        """
        for row in self.world.run(query):
            annotator, task = row["annotator_no"], self.model.tasks[row["id"]]
            if annotator in task.labels:
                task.has_unasked = True
                label = (task.task_id, OPTIONS[0])
                assert self.world.label(annotator, label) == ["duplicate"]

    def _told(self, told: Sequence[tuple[Tell, Any]]) -> Labelling:
        """What the model comes to by the results in this order."""
        model = copy.deepcopy(self.model)
        for tell, result in told:
            tell(model, result, False)
        return model

    def _step(self, kind: str, who: int, more: Any) -> Step:
        annotator = self.crew[who % CREW]
        match kind:
            case "claim":
                return self._claim(annotator, more, None)
            case "label":
                return self._label_held(self._holder(who), more)
            case "label_any":
                return self._label_any(annotator, more)
            case "release":
                holder = self._holder(who)
                return self._release(holder, list(self.model.held[holder])[:more])
            case _:
                return self._end_job(who, fails=False)


@pytest.fixture
def world(
    database: Database, database_url: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(annotation, "_WINDOW_TASKS", 3)  # so that a claim looks more than once
    found = World(database, database_url, vault)
    yield found
    found.close()


def chosen(max_examples: int) -> settings:
    """So many examples, always the same, and no search for a smaller one, which takes minutes.

    With `--hypothesis-profile=long` what that says.
    """
    if settings.get_current_profile_name() == "long":
        return settings(suppress_health_check=list(HealthCheck))
    return settings(
        max_examples=max_examples,
        stateful_step_count=25,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def run(machine: Callable[[World], Annotation], world: World, max_examples: int) -> None:
    factory = cast(type[RuleBasedStateMachine], lambda: machine(world))
    run_state_machine_as_test(factory, settings=chosen(max_examples))


def test_annotators_and_customers_may_do_anything_in_any_order(world: World) -> None:
    run(Annotation, world, 18)


def test_two_things_at_once_come_to_what_one_after_the_other_would(world: World) -> None:
    run(AnnotationAtOnce, world, 10)
