"""What becomes of work whose run has ended, was lost, or was paused, whatever Prefect says of it."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from blocks.prefect.api import UNDER_WAY, RunState
from blocks.prefect.run_changes import NextLaunch, PauseChange, change_of
from blocks.store.runs import RELAUNCH_DELAY_S_MAX, LaunchedRun

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIVE = [kind for kind in UNDER_WAY if kind != "PAUSED"]


def launched(
    *, launches: int = 1, is_old: bool = False, is_paused: bool = False, is_asked: bool = True
) -> LaunchedRun:
    return LaunchedRun(
        run_no=1,
        kind="process_job",
        flow_run_id=uuid4() if is_asked else None,
        launched_at=NOW,
        launches=launches,
        is_old=is_old,
        is_paused=is_paused,
    )


def state(kind: str) -> RunState:
    return RunState(kind, NOW)


@pytest.mark.parametrize("kind", LIVE)
def test_a_run_that_is_under_way_is_left_alone(kind: str) -> None:
    assert change_of(launched(is_old=True), state(kind)) is None


@pytest.mark.parametrize("kind", LIVE)
def test_one_that_goes_on_after_a_pause_takes_its_place_again(kind: str) -> None:
    assert change_of(launched(is_paused=True), state(kind)) == PauseChange(is_paused=False)


def test_one_that_is_paused_gives_its_place_back_once() -> None:
    assert change_of(launched(), state("PAUSED")) == PauseChange(is_paused=True)
    assert change_of(launched(is_paused=True), state("PAUSED")) is None


@pytest.mark.parametrize("kind", ["CRASHED", "FAILED", "COMPLETED"])
def test_one_that_ended_before_its_work_was_done_is_followed_by_another(kind: str) -> None:
    assert change_of(launched(), state(kind)) == NextLaunch(f"The run ended as {kind}.", 0)


def test_one_whose_work_pool_was_deleted_is_followed_by_another() -> None:
    stranded = RunState("SCHEDULED", NOW, is_stranded=True)
    assert change_of(launched(), stranded) == NextLaunch("The work pool of the run was deleted.", 0)


def test_one_that_an_operator_cancelled_is_followed_by_none() -> None:
    assert change_of(launched(launches=5), state("CANCELLED")) == NextLaunch(
        "The run ended as CANCELLED.", None
    )


def test_one_that_prefect_does_not_know_is_followed_by_another() -> None:
    assert change_of(launched(), None) == NextLaunch("Prefect does not know the run.", 0)


def test_a_launch_without_an_answer_is_waited_for_until_it_is_old() -> None:
    assert change_of(launched(is_asked=False), None) is None
    change = change_of(launched(is_asked=False, is_old=True), None)
    assert isinstance(change, NextLaunch)
    assert "launcher" in change.reason


def test_work_that_crashes_again_and_again_waits_longer_each_time_within_a_bound() -> None:
    changes = [change_of(launched(launches=n), state("CRASHED")) for n in range(1, 12)]
    delays_s = [change.delay_s for change in changes if isinstance(change, NextLaunch)]
    assert delays_s[:4] == [0, 10, 20, 40]
    assert delays_s[-1] == RELAUNCH_DELAY_S_MAX
