"""Set going again whatever should have happened and did not, when the API finds it or a run crashes.

Requires: nothing. Any number of runs may overlap; the next one does what this one could not.
"""

from typing import Any

import msgspec
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.prefect import reconciler
from blocks.prefect.api import PrefectApi
from blocks.prefect.reconciler import Reconciled
from flows.running.monitor import run_log, ui_update
from flows.running.policy import NETWORK_TASK
from flows.running.resources import database, settings


@flow(name="reconcile", flow_run_name="reconcile")
def reconcile() -> State[Any]:
    """Mend runs that died and jobs without a run, and tidy leases and keys that have run out."""
    done = reconcile_once()
    if done.has_done_anything:
        show(done)
    run_log().info("reconcile.done", **msgspec.structs.asdict(done))
    return Completed(message=str(done) if done.has_done_anything else "There was nothing to do.")


@ui_update
def show(done: Reconciled) -> None:
    """Make a table in the Prefect UI of what was done."""
    create_table_artifact(
        key="reconcile",
        table=[{"what": k, "rows": v} for k, v in msgspec.structs.asdict(done).items()],
        description="What reconcile found to do, the latest time that there was something.",
    )


@task(task_run_name="reconcile", **NETWORK_TASK)
def reconcile_once() -> Reconciled:
    """Make one pass, in bounded batches."""
    with PrefectApi(settings()) as prefect:
        return reconciler.reconcile(database(), prefect, settings())
