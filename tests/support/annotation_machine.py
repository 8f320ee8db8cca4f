"""Steps of annotators and customers on the store and on a model of it, and what must hold."""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)
from psycopg.rows import dict_row

from blocks.domain.ids import new_id
from blocks.domain.model import SkipReason
from blocks.secrets.vault import Vault
from blocks.store import annotation, customers, jobs, label_changes, leases
from blocks.store.annotation import Label
from blocks.store.database import Database, Transaction
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from tests.support.books import check_books
from tests.support.labelling import Job, Labelling
from tests.support.side import WAIT_S, Side
from tests.support.store_shop import Shop

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
thresholds = st.integers(1, 4)
skips_max = st.integers(1, 3)
reasons = st.sampled_from(SkipReason)
kinds = st.sampled_from(["label", "skip", "replace", "replace", "withdraw"])
changes = st.lists(st.tuples(kinds, picks, options, reasons), min_size=1, max_size=4)
Change = tuple[str, int, str, SkipReason]
"""What is done to a task, and what is said of it where that is a label or a skip."""


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


class Steps(RuleBasedStateMachine):
    """What can be done to the store, and told to the model."""

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

    def _job(self, which: int) -> Job:
        made = list(self.model.jobs.values())
        return made[which % len(made)]

    def _finish_ingestion(self, job: Job) -> None:
        self.world.do(jobs.finish_ingestion, job.job_no)
        if job.is_open and not job.is_ingested:
            job.is_ingested = True
            job.settle()

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
            select distinct task_id(j.job_id, v.task_no) as id
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
        said = [Label(*label) for label in labels]

        def act(tx: Transaction) -> list[str]:
            return list(annotation.submit(tx, annotator, said))

        def tell(model: Labelling, outcomes: list[str], alone: bool) -> None:
            assert outcomes == model.enter(annotator, said)

        return act, tell

    def _skip_held(self, annotator: int, why: Sequence[SkipReason]) -> Step:
        held = list(self.model.held[annotator])
        return self._change(annotator, [Skip(*pair) for pair in zip(held, why, strict=False)])

    def _change_any(self, annotator: int, said: Sequence[Change]) -> Step:
        mine = [task.task_id for task in self.model.tasks.values() if annotator in task.labels]
        entries: list[Entry] = []
        for kind, which, option, reason in said:
            # Mostly what the annotator has labelled, or else somebody was handed.
            id_ = mine[which % len(mine)] if mine and which % 3 else self._task_id(which)
            match kind:
                case "skip":
                    entries.append(Skip(self._task_id(which), reason))
                case "withdraw":
                    entries.append(Withdrawal(id_))
                case "replace":
                    entries.append(Replacement(id_, option))
                case _:
                    entries.append(Label(self._task_id(which), option))
        return self._change(annotator, entries)

    def _change(self, annotator: int, entries: Sequence[Entry]) -> Step:
        def act(tx: Transaction) -> list[str]:
            return list(label_changes.submit(tx, annotator, entries))

        def tell(model: Labelling, outcomes: list[str], alone: bool) -> None:
            assert outcomes == model.enter(annotator, entries)

        return act, tell

    def _release(self, annotator: int, task_ids: list[str]) -> Step:
        def act(tx: Transaction) -> set[str]:
            return annotation.release(tx, annotator, task_ids)

        def tell(model: Labelling, released: set[str], alone: bool) -> None:
            assert released == model.release(annotator, task_ids)

        return act, tell

    def _renew(self, annotator: int, task_ids: list[str]) -> Step:
        def act(tx: Transaction) -> set[str]:
            return set(leases.renew(tx, annotator, task_ids, lease_s=1200))

        def tell(model: Labelling, renewed: set[str], alone: bool) -> None:
            assert renewed == model.renew(annotator, task_ids)

        return act, tell


class Checks(Steps):
    """What holds after every step, and what can be had from every state."""

    # What holds after every step

    @invariant()
    def agrees_with_the_model(self) -> None:
        self._check_leases()
        self._check_labels()
        self._check_skips_and_changes()
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
            select l.annotator_no, task_id(j.job_id, unnest(l.task_nos)) as id,
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
            select task_id(j.job_id, l.task_no) as id, l.annotator_no, j.options[l.option] as option
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

    def _check_skips_and_changes(self) -> None:
        query = """
            select task_id(j.job_id, s.task_no) as id, s.annotator_no, s.reason
            from skips s join jobs j using (job_no) where j.customer_id = %s
        """
        skips = {
            (row["id"], row["annotator_no"]): SkipReason.of_number(row["reason"])
            for row in self.world.run(query, self.world.customer_id)
        }
        assert skips == {
            (task.task_id, annotator): reason
            for task in self.model.tasks.values()
            for annotator, reason in task.skips.items()
        }
        query = """
            select task_id(j.job_id, c.task_no) as id, c.annotator_no, j.options[c.option] as option,
                   j.options[c.new_option] as new_option
            from label_changes c join jobs j using (job_no)
            where j.customer_id = %s order by c.change_no
        """
        found = [tuple(row.values()) for row in self.world.run(query, self.world.customer_id)]
        assert sorted(found, key=str) == sorted(self.model.changes, key=str)

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
        assert row["settled"] == sum((outcome or 0) > 0 for outcome in outcomes)
        assert row["failed"] == sum(outcome is not None and outcome <= 0 for outcome in outcomes)
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
        active = self.model.granted.intersection(crew)
        for task in self.model.tasks.values():
            able = len(active - task.skips.keys())
            if task.has_unasked or able < task.job.consensus_threshold:
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
