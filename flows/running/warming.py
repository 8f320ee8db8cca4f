"""Connect to the database and to a job's store while Prefect sets up its run."""

import threading

from blocks import logs
from flows.running.resources import database, load_job, manifest_of

logger = logs.get_logger("refinery.warming")


def warm_up(job_id: str) -> None:
    """Begin to connect to what reading the job's manifest needs, in a thread, and return at once.

    Nothing is changed, and no error is raised: the run meets it again, and decides what it means.
    """
    database()  # made in this thread, so that the run and the other thread have one pool
    threading.Thread(target=_connect, args=(job_id,), name="warm up", daemon=True).start()


def _connect(job_id: str) -> None:
    try:
        job = load_job(job_id)
        if job.ingested_at or job.status.has_ended:
            return
        bucket, url = manifest_of(job)
        bucket.stat(url.key)  # its answer is thrown away: the connection is kept
    except Exception as error:  # noqa: BLE001 - the run decides about it
        logger.debug("warming.failed", job_id=job_id, reason=repr(error))
