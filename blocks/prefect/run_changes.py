"""Decide what has to change about work whose run Prefect was asked for. No I/O."""

import msgspec

from blocks.domain.backoff import backoff_s
from blocks.prefect.api import UNDER_WAY, RunState
from blocks.store import runs
from blocks.store.runs import LaunchedRun


class NextLaunch(msgspec.Struct, frozen=True):
    """Nothing will come of the run any more, so another one is due in `delay_s` seconds.

    `delay_s` is None where an operator has cancelled the run: the work waits until one retries it.
    """

    reason: str
    delay_s: float | None


class PauseChange(msgspec.Struct, frozen=True):
    """An operator has paused the run, or has resumed it."""

    is_paused: bool


def change_of(run: LaunchedRun, state: RunState | None) -> NextLaunch | PauseChange | None:
    """Return what has to change about a run; None if all is as it should be.

    `state` is Prefect's; None where it does not know the run.
    """
    reason = _why_not_live(run, state)
    if reason is None:
        is_paused = state is not None and state.type == "PAUSED"
        return PauseChange(is_paused) if is_paused != run.is_paused else None
    is_cancelled = state is not None and state.type == "CANCELLED"
    return NextLaunch(reason, None if is_cancelled else _delay_s(run.launches))


def _why_not_live(run: LaunchedRun, state: RunState | None) -> str | None:
    """Return why nothing will come of a run any more; None where something may."""
    if run.flow_run_id is None:
        return "The launcher that asked Prefect for a run has died." if run.is_old else None
    if state is None:
        return "Prefect does not know the run."
    if state.is_stranded:
        return "The work pool of the run was deleted."
    return None if state.type in UNDER_WAY else f"The run ended as {state.type}."


def _delay_s(launches: int) -> float:
    # The first crash may have an outer cause, such as a machine that was shut down. Work that crashes
    # again and again waits.
    if launches == 1:
        return 0.0
    return backoff_s(launches - 1, first_s=runs.RELAUNCH_DELAY_S, max_s=runs.RELAUNCH_DELAY_S_MAX)
