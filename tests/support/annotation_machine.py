"""Steps of annotators and customers on the store and on a model of it, and what must hold."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
)

from blocks.domain.ids import new_id
from blocks.domain.model import SkipReason
from blocks.secrets.vault import Vault
from blocks.store import (
    annotation,
    customers,
    jobs,
    label_changes,
    labelling,
    lease_returns,
    leases,
    reviews,
)
from blocks.store.database import Database, Transaction
from blocks.store.label_changes import Entry, Replacement, Skip, Withdrawal
from blocks.store.labelling import Label
from blocks.store.reviews import Decision
from tests.support.labelled_tasks import Job
from tests.support.labelling import Labelling
from tests.support.side import WAIT_S, Side
from tests.support.store_shop import LastingShop

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
review_rules = st.sampled_from(
    [frozenset[str](), frozenset({"all"}), frozenset({"no_consensus", "flagged"})]
)
verdicts = st.lists(
    st.tuples(picks, st.sampled_from([*OPTIONS, UNKNOWN, "back", "back", "fail"])),
    min_size=1,
    max_size=3,
)
kinds = st.sampled_from(["label", "skip", "replace", "replace", "withdraw"])
changes = st.lists(st.tuples(kinds, picks, options, reasons), min_size=1, max_size=4)
Change = tuple[str, int, str, SkipReason]
"""What is done to a task, and what is said of it where that is a label or a skip."""


class World(LastingShop):
    """A store, and everybody who labels."""

    def __init__(self, database: Database, url: str, vault: Vault) -> None:
        super().__init__(database, url, vault)
        self.people = self.annotators(CREW + FRESH)

    def begin(self) -> None:
        """A new customer, whose tasks alone everybody is handed."""
        self.customer_id = self.do(customers.add_customer, "Acme")
        self.run("update annotators set customer_ids = array[%s]", self.customer_id)

    def end(self) -> None:
        """Leave nothing to be handed out."""
        for row in self.run("select job_no from jobs where customer_id = %s", self.customer_id):
            self.do(jobs.cancel, row["job_no"])
        self.run("delete from leases")
        self.run("update reviews set state = 'dropped', decided_at = now() where state = 'open'")

    def wait_for_end_or_lock(self, side: Side) -> None:
        """Go on when the side has ended, or waits for a lock of another."""
        query = (
            "select count(*) from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        )
        deadline = time.monotonic() + WAIT_S
        while not side.wait(POLL_S) and not self.value(query):
            assert time.monotonic() < deadline, "it neither ends nor waits"


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
        self.world.do(lease_returns.return_leases, limit=1000)
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
            select distinct task_id(j.job_id, j.task_key, v.task_no) as id
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
            return list(labelling.submit(tx, annotator, said))

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

    def _claim_reviews(self, reviewer: int, limit: int) -> Step:
        def act(tx: Transaction) -> list[str]:
            found = reviews.claim(tx, reviewer, limit=limit, lease_s=600)
            return [each.task.task_id for each in found]

        def tell(model: Labelling, claimed: list[str], alone: bool) -> None:
            model.claim_reviews(reviewer, claimed, limit=limit, alone=alone)

        return act, tell

    def _decide(self, reviewer: int, said: Sequence[tuple[int, str]]) -> Step:
        mine = [id_ for id_, who in self.model.reviewing.items() if who == reviewer]
        decisions = []
        for which, word in said:
            # Mostly what the reviewer holds, or else any task.
            id_ = mine[which % len(mine)] if mine and which % 4 else self._task_id(which)
            is_label = word in [*OPTIONS, UNKNOWN]
            decisions.append(
                Decision(id_, word if is_label else None, 0 if word == "fail" else None)
            )

        def act(tx: Transaction) -> list[str]:
            return list(reviews.decide(tx, reviewer, decisions))

        def tell(model: Labelling, outcomes: list[str], alone: bool) -> None:
            assert outcomes == model.review(reviewer, decisions)

        return act, tell

    def _reviewer(self, who: int) -> int:
        """One of those who hold tasks under review, if there are any."""
        holders = [each for each in self.world.people if each in self.model.reviewing.values()]
        return holders[who % len(holders)] if holders else self.crew[who % CREW]

    def _able_reviewer(self, who: int) -> int:
        """Mostly somebody who has labelled and skipped nothing: the crew has had most tasks."""
        return self.fresh[-2 - who % 2] if who else self.crew[0]

    def _time_out(self) -> Step:
        self.world.run("update reviews set due_at = now() - interval '1 s' where state = 'open'")

        def act(tx: Transaction) -> int:
            return reviews.time_out(tx, limit=1000)

        def tell(model: Labelling, ended: int, alone: bool) -> None:
            assert ended == model.time_out()

        return act, tell
