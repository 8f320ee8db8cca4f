"""Whatever should have happened and did not: found in the database, and set going again.

Any number may run at once, and each at any time: every step is a batch of bounded size, passes over
what others hold, and changes nothing that is as it should be. A run that is merely slow is left alone.
"""

from collections.abc import Iterator

import msgspec

from blocks import housekeeping, logs
from blocks.domain.backoff import backoff_s
from blocks.housekeeping import in_batches
from blocks.prefect.api import UNDER_WAY, PrefectApi, PrefectUnavailable, RunState
from blocks.prefect.stuck_runs import end_stuck_runs, find_stuck_runs
from blocks.settings import Settings
from blocks.store import jobs, outbox, runs
from blocks.store.database import Database
from blocks.store.runs import LaunchedRun

logger = logs.get_logger("refinery.reconcile")

_BATCH = 500
_RUNS_PAGE = 200  # what Prefect answers at once
_SETTLED_MAX = 10  # each locks its job


class Reconciled(msgspec.Struct, frozen=True):
    """What was done, in numbers of rows."""

    runs_relaunched: int = 0
    """Runs that crashed, failed or were lost, and whose work is not done: another one is started."""
    runs_stopped: int = 0
    """Runs that an operator has cancelled: their jobs wait until one is retried."""
    runs_ended: int = 0
    """Runs, of whatever flow, that no worker was going to begin or to stop any more."""
    runs_added: int = 0
    """Jobs that had nothing to bring them on."""
    jobs_settled: int = 0
    """Jobs of which every task had ended."""
    leases_returned: int = 0
    """Claims that have run out."""
    keys_purged: int = 0
    """Idempotency keys that are a day old."""
    credentials_wiped: int = 0
    """Jobs that ended a grace period ago and still held credentials."""
    notifications_purged: int = 0
    """Webhook notifications that ended a month ago."""
    prefect_reachable: bool = True

    def __str__(self) -> str:
        done = [f"{name}={value}" for name, value in msgspec.structs.asdict(self).items()]
        return " ".join(done)

    @property
    def anything(self) -> bool:
        return self != Reconciled()


def reconcile(database: Database, prefect: PrefectApi, settings: Settings) -> Reconciled:
    """One pass.

    Raises:
        DatabaseUnavailable: nothing that was done before is lost.
    """
    added = in_batches(database, lambda tx: runs.add_missing(tx, limit=_BATCH), _BATCH)
    settled = in_batches(
        database, lambda tx: jobs.settle_forgotten(tx, limit=_SETTLED_MAX), _SETTLED_MAX
    )
    kept = housekeeping.keep_house(database, settings)
    ended = relaunched = stopped = 0
    reachable = True
    try:
        ended = end_stuck_runs(prefect, pending_s_max=settings.pending_s_max)
        relaunched, stopped = _look_after_runs(database, prefect)
    except PrefectUnavailable as error:
        reachable = False
        logger.warning("reconcile.prefect_unavailable", reason=error.message)
    done = Reconciled(
        runs_relaunched=relaunched,
        runs_stopped=stopped,
        runs_ended=ended,
        runs_added=added,
        jobs_settled=settled,
        leases_returned=kept.leases_returned,
        keys_purged=kept.keys_purged,
        credentials_wiped=kept.credentials_wiped,
        notifications_purged=kept.notifications_purged,
        prefect_reachable=reachable,
    )
    if relaunched or added:
        with database.transaction() as tx:
            outbox.wake(tx)
    if done.anything:
        logger.info("reconcile.done", **msgspec.structs.asdict(done))
    return done


def is_needed(database: Database, prefect: PrefectApi, settings: Settings) -> bool:
    """Return whether jobs or runs need a pass; changes nothing.

    Raises:
        DatabaseUnavailable, PrefectUnavailable: that cannot be told now.
    """
    with database.transaction() as tx:
        if runs.is_any_missing(tx) or jobs.is_any_forgotten(tx):
            return True
    if find_stuck_runs(prefect, pending_s_max=settings.pending_s_max):
        return True
    return any(
        _why_not_live(run, state) or _is_paused(state) != run.is_paused
        for run, state in _launched_runs(database, prefect)
    )


def _look_after_runs(database: Database, prefect: PrefectApi) -> tuple[int, int]:
    """How many are relaunched, and how many an operator has stopped."""
    relaunched = stopped = 0
    for run, state in _launched_runs(database, prefect):
        reason = _why_not_live(run, state)
        if reason is None:
            _see_pause(database, run, state)
            continue
        is_stopped = state is not None and state.type == "CANCELLED"
        delay_s = None if is_stopped else _delay_s(run.launches)
        with database.transaction() as tx:
            changed = runs.wait_again(tx, run, error=reason, delay_s=delay_s)
        stopped += changed and is_stopped
        relaunched += changed and not is_stopped
    return relaunched, stopped


def _launched_runs(
    database: Database, prefect: PrefectApi
) -> Iterator[tuple[LaunchedRun, RunState | None]]:
    page: list[LaunchedRun] = []
    while True:
        with database.transaction() as tx:
            after = page[-1].run_no if page else 0
            page = list(runs.list_under_way(tx, after=after, limit=_RUNS_PAGE))
        if not page:
            return
        states = prefect.states([run.flow_run_id for run in page if run.flow_run_id])
        for run in page:
            yield run, states.get(run.flow_run_id) if run.flow_run_id else None


def _see_pause(database: Database, run: LaunchedRun, state: RunState | None) -> None:
    if _is_paused(state) != run.is_paused:
        with database.transaction() as tx:
            runs.set_paused(tx, run, is_paused=_is_paused(state))


def _is_paused(state: RunState | None) -> bool:
    return state is not None and state.type == "PAUSED"


def _why_not_live(run: LaunchedRun, state: RunState | None) -> str | None:
    """Why nothing will come of a run any more; None where something may."""
    if run.flow_run_id is None:
        return "Whoever asked Prefect for a run has died." if run.is_old else None
    if state is None:
        return "Prefect does not know the run."
    return None if state.type in UNDER_WAY else f"The run ended as {state.type}."


def _delay_s(launches: int) -> float:
    # The first crash may be anybody's: a machine that was shut down. What crashes again and again waits.
    if launches == 1:
        return 0.0
    return backoff_s(launches - 1, first_s=runs.RELAUNCH_DELAY_S, max_s=runs.RELAUNCH_DELAY_S_MAX)
