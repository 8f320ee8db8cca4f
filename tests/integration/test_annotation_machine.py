"""Annotators and customers who do anything in any order, beside a model of what ought to come of it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from blocks.secrets.vault import Vault
from blocks.store import annotation
from blocks.store.database import Database
from tests.support.annotation_machine import (
    CREW,
    OPTIONS,
    Step,
    Tell,
    World,
)
from tests.support.annotation_rules import REVIEWS, Annotation, Intent, intents
from tests.support.labelling import Labelling
from tests.support.side import Side

pytestmark = [
    pytest.mark.integration,
    # Threads use `random` beside hypothesis: those of the pool of connections, and Prefect's that other tests leave.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]


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
            select l.annotator_no, task_id(j.job_id, j.task_key, unnest(l.task_nos)) as id
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

    def _step(self, kind: str, who: int, more: Any) -> Step:  # noqa: PLR0911 - a case each
        annotator = self.crew[who % CREW]
        if kind in REVIEWS:
            return self._step_of_reviewers(kind, who, more)
        match kind:
            case "claim":
                return self._claim(annotator, more, None)
            case "label":
                return self._label_held(self._holder(who), more)
            case "label_any":
                return self._label_any(annotator, more)
            case "skip":
                return self._skip_held(self._holder(who), more)
            case "change":
                return self._change_any(annotator, more)
            case "release":
                holder = self._holder(who)
                return self._release(holder, list(self.model.held[holder])[:more])
            case "renew":
                holder = self._holder(who)
                return self._renew(holder, list(self.model.held[holder])[:more])
            case _:
                return self._end_job(who, fails=False)

    def _step_of_reviewers(self, kind: str, who: int, more: Any) -> Step:
        if kind == "claim_reviews":
            return self._claim_reviews(self._able_reviewer(who), more)
        return self._decide(self._reviewer(who), more) if kind == "decide" else self._time_out()


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
