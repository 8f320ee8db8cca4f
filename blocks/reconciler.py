"""Whatever should have happened and did not: found in the database, and set going again.

Any number may run at once, and each at any time: every step is a batch of bounded size, passes over
what others hold, and changes nothing that is as it should be. A run that is merely slow is left alone.
"""

from collections.abc import Callable

import msgspec

from blocks import logs
from blocks.prefect_api import UNDER_WAY, PrefectApi, PrefectUnavailable, RunState
from blocks.settings import Settings
from blocks.store import annotation, counts, jobs, outbox, runs, webhooks
from blocks.store.database import Database, Transaction
from blocks.store.runs import Launched
from blocks.stuck_runs import end_stuck_runs

logger = logs.get_logger("refinery.reconcile")

_BATCH = 500
_BATCHES_MAX = 20
_RUNS_PAGE = 200  # what Prefect answers at once
_SETTLED_MAX = 10  # each locks its job
_NOTIFICATIONS_KEPT_DAYS = 30
_COUNTS_MAX = 50_000


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
    added = _in_batches(database, lambda tx: runs.add_missing(tx, limit=_BATCH), _BATCH)
    settled = _in_batches(
        database, lambda tx: jobs.settle_forgotten(tx, limit=_SETTLED_MAX), _SETTLED_MAX
    )
    leases = _in_batches(database, lambda tx: annotation.return_leases(tx, limit=_BATCH), _BATCH)
    keys = _in_batches(database, lambda tx: jobs.purge_idempotency_keys(tx, limit=_BATCH), _BATCH)
    wiped = _in_batches(
        database,
        lambda tx: jobs.wipe_old_credentials(tx, keep_s=settings.credentials_keep_s, limit=_BATCH),
        _BATCH,
    )
    notifications = _in_batches(
        database,
        lambda tx: webhooks.purge(tx, days=_NOTIFICATIONS_KEPT_DAYS, limit=_BATCH),
        _BATCH,
    )
    with database.transaction() as tx:
        counts.fold(tx, limit=_COUNTS_MAX)
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
        leases_returned=leases,
        keys_purged=keys,
        credentials_wiped=wiped,
        notifications_purged=notifications,
        prefect_reachable=reachable,
    )
    if relaunched or added:
        with database.transaction() as tx:
            outbox.wake(tx)
    if done.anything:
        logger.info("reconcile.done", **msgspec.structs.asdict(done))
    return done


def _in_batches(database: Database, step: Callable[[Transaction], int], size: int) -> int:
    total = 0
    for _ in range(_BATCHES_MAX):
        with database.transaction() as tx:
            count = step(tx)
        total += count
        if count < size:
            break
    return total


def _look_after_runs(database: Database, prefect: PrefectApi) -> tuple[int, int]:
    """How many are relaunched, and how many an operator has stopped."""
    relaunched = stopped = 0
    page: list[Launched] = []
    while True:
        with database.transaction() as tx:
            after = page[-1].run_no if page else 0
            page = list(runs.under_way(tx, after=after, limit=_RUNS_PAGE))
        if not page:
            return relaunched, stopped
        states = prefect.states([run.flow_run_id for run in page if run.flow_run_id])
        for run in page:
            state = states.get(run.flow_run_id) if run.flow_run_id else None
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


def _see_pause(database: Database, run: Launched, state: RunState | None) -> None:
    is_paused = state is not None and state.type == "PAUSED"
    if is_paused != run.is_paused:
        with database.transaction() as tx:
            runs.pause(tx, run, is_paused=is_paused)


def _why_not_live(run: Launched, state: RunState | None) -> str | None:
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
    return min(runs.RELAUNCH_DELAY_S * 2.0 ** (launches - 2), runs.RELAUNCH_DELAY_S_MAX)
