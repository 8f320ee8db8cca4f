"""Import, in the fork server of `deployments.worker`, what its runs need.

Nothing here may start a thread that a run needs, for the fork would not have it: Polars is imported and
not used.
"""

# ruff: noqa: F401
import gc
import logging
import traceback

try:
    import anyio._backends._asyncio
    import prefect.concurrency.services
    import prefect.engine
    import prefect.flow_engine
    import prefect.task_engine
    import prefect.utilities.visualization
    import s3fs

    import deployments.cli
    import deployments.worker
    import flows.deliver_job
    import flows.process_job
    import flows.reconcile
    import flows.small_jobs
    import flows.submit_manifests
    from blocks import tracing
    from blocks.buckets import s3_session

    s3_session.load()
    tracing.check()
except Exception:  # noqa: BLE001 - the fork server would end, and every run with it, or hide the error
    # Each run imports what is missing, or fails by itself.
    traceback.print_exc()
# Prefect keeps the log of each run, so the worker's log must not repeat it.
for name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(name).propagate = False
# The garbage collector of a run need not look at any of this.
gc.collect()
gc.freeze()
