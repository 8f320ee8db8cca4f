"""What the fork server of `deployments.worker` has ready before a run is forked from it.

Nothing here may start a thread that a run needs, for it would not be there in the fork: Polars is
imported and not used.
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
    from blocks.buckets import s3_session

    s3_session.load()
except Exception:  # noqa: BLE001 - the fork server would end, and every run with it, or swallow it
    # Each run does what is missing, or fails by itself.
    traceback.print_exc()
# What a run says is kept by Prefect. In the log of the worker it would be a second time.
for name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(name).propagate = False
# A run's collector has no need to look at any of this.
gc.collect()
gc.freeze()
