"""Find in the database whatever should have happened and did not, and set it going again.

Any number of passes may run at once, and at any time: every step is a batch of bounded size, skips the
rows that others hold, and changes nothing that is as it should be. A run that is merely slow is left
alone.
"""

from collections.abc import Iterator

import msgspec

from blocks import housekeeping, logs
from blocks.housekeeping import in_batches
from blocks.prefect.api import PrefectApi, PrefectUnavailable, RunState
from blocks.prefect.run_changes import NextLaunch, PauseChange, change_of
from blocks.prefect.stuck_runs import end_stuck_runs, find_stuck_runs
from blocks.settings import Settings
from blocks.store import jobs, outbox, passes, runs
from blocks.store.database import Database
from blocks.store.runs import LaunchedRun

logger = logs.get_logger("refinery.reconcile")

_BATCH = 500
_RUNS_PAGE = 200  # as many as Prefect answers at once
_SETTLED_MAX = 10  # each of them locks its job


class Reconciled(msgspec.Struct, frozen=True):
    """Count what a pass has done, in rows."""

    runs_relaunched: int = 0
    """Runs that crashed, failed or were lost, and whose work is not done: another one is started."""
    runs_stopped: int = 0
    """Runs that an operator has cancelled: their jobs wait until one is retried."""
    runs_ended: int = 0
    """Runs, of any flow, that no worker was going to begin or to stop any more."""
    runs_added: int = 0
    """Jobs that had no row in `runs` and needed one."""
    jobs_settled: int = 0
    """Jobs of which every task had ended."""
    leases_returned: int = 0
    """Claims whose leases have run out."""
    keys_purged: int = 0
    """Idempotency keys older than a day."""
    credentials_wiped: int = 0
    """Jobs that ended longer than the grace period ago and still held credentials."""
    notifications_purged: int = 0
    """Webhook notifications that ended more than a month ago."""
    tasks_archived: int = 0
    """Tasks of jobs that are over, whose labels were moved to the archive."""
    prefect_reachable: bool = True

    def __str__(self) -> str:
        done = [f"{name}={value}" for name, value in msgspec.structs.asdict(self).items()]
        return " ".join(done)

    @property
    def has_done_anything(self) -> bool:
        return self != Reconciled()


def reconcile(database: Database, prefect: PrefectApi, settings: Settings) -> Reconciled:
    """Make one pass, and return what it has done; without Prefect only what needs none of it.

    Raises:
        DatabaseUnavailable: every step that was committed before stays.
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
        relaunched, stopped = _mend_runs(database, prefect)
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
        tasks_archived=kept.tasks_archived,
        prefect_reachable=reachable,
    )
    if relaunched or added:
        with database.transaction() as tx:
            outbox.wake(tx)
    if reachable:
        with database.transaction() as tx:
            passes.record(tx, "reconcile")
    if done.has_done_anything:
        logger.info("reconcile.done", **msgspec.structs.asdict(done))
    return done


def is_needed(database: Database, prefect: PrefectApi, settings: Settings) -> bool:
    """Return whether jobs or runs need a pass; changes nothing.

    Raises:
        DatabaseUnavailable, PrefectUnavailable: that cannot be found out now.
    """
    with database.transaction() as tx:
        if runs.is_any_missing(tx) or jobs.is_any_forgotten(tx):
            return True
    if find_stuck_runs(prefect, pending_s_max=settings.pending_s_max):
        return True
    return any(change_of(run, state) for run, state in _launched_runs(database, prefect))


def _mend_runs(database: Database, prefect: PrefectApi) -> tuple[int, int]:
    """Return how many runs are followed by another, and how many an operator has stopped."""
    relaunched = stopped = 0
    for run, state in _launched_runs(database, prefect):
        match change_of(run, state):
            case NextLaunch(reason, delay_s):
                with database.transaction() as tx:
                    changed = runs.wait_again(tx, run, error=reason, delay_s=delay_s)
                stopped += changed and delay_s is None
                relaunched += changed and delay_s is not None
                if changed and state is not None and state.is_stranded and run.flow_run_id:
                    prefect.set_state(run.flow_run_id, "CANCELLED", reason)
            case PauseChange(is_paused):
                with database.transaction() as tx:
                    runs.set_paused(tx, run, is_paused=is_paused)
    return relaunched, stopped


def _launched_runs(
    database: Database, prefect: PrefectApi
) -> Iterator[tuple[LaunchedRun, RunState | None]]:
    """Yield the rows whose run was asked for, each with the state that Prefect has the run in."""
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
