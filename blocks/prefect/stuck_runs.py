"""End runs of our flows that Prefect takes for under way though nobody works on them.

A worker that dies between taking a run and starting its process leaves it Pending or Submitting, and
one that dies before it has stopped a run leaves it Cancelling; Prefect leaves them so for ever. A worker
of the pool type `refinery` takes up its own runs again when it is back. This is for workers that do not
come back, and for those of other pools.
"""

from datetime import UTC, datetime, timedelta

from blocks import logs
from blocks.prefect.api import PrefectApi, UnendedRun

logger = logs.get_logger("refinery.stuck_runs")

POOL_TYPE = "refinery"
"""The type of the pools whose workers fork their runs."""
FLOWS = ("process-job", "deliver-job", "small-jobs", "reconcile", "submit-manifests", "after-job")
# A fork takes half a second; on a loaded machine it may take twenty.
_FORK_MAX = timedelta(seconds=60)


def end_stuck_runs(prefect: PrefectApi, *, pending_s_max: int) -> int:
    """End runs that were taken too long ago to begin; return how many.

    Raises:
        PrefectUnavailable: runs that were ended before stay so.
    """
    stuck = find_stuck_runs(prefect, pending_s_max=pending_s_max)
    for run in stuck:
        _end(prefect, run)
    return len(stuck)


def find_stuck_runs(prefect: PrefectApi, *, pending_s_max: int) -> list[UnendedRun]:
    """Return runs that were taken too long ago to begin.

    `pending_s_max`, in seconds, is for pools of other types than `refinery`, which may pull an image.

    Raises:
        PrefectUnavailable: nothing is known.
    """
    now = datetime.now(UTC)
    old = [
        run
        for run in prefect.unended_runs(FLOWS, ("PENDING", "CANCELLING"))
        if now - run.since > _FORK_MAX
    ]
    if not old:
        return []
    forking = prefect.pools_of_type(POOL_TYPE)
    slow_max = max(timedelta(seconds=pending_s_max), _FORK_MAX)
    return [run for run in old if run.pool in forking or now - run.since > slow_max]


def _end(prefect: PrefectApi, run: UnendedRun) -> None:
    since = f"{run.since:%Y-%m-%dT%H:%M:%SZ}"
    if run.type == "CANCELLING":
        state = "CANCELLED"
        message = f"The run was to be cancelled at {since}, and no worker was there to stop it."
    else:
        state = "CRASHED"
        message = (
            f"A worker took the run at {since} and never began it: it died, or cannot start it."
        )
    prefect.set_state(run.id, state, message)
    logger.warning("stuck_run.ended", flow_run_id=str(run.id), name=run.name, state=state)
