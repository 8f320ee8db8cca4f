"""Name our deployments and work pool as `prefect.yaml` does, without importing anything."""

PROCESS_JOB = "process-job/process-job"
DELIVER_JOB = "deliver-job/deliver-job"
SMALL_JOBS = "small-jobs/small-jobs"
RECONCILE = "reconcile/reconcile"
"""`<flow>/<deployment>`."""

WORK_POOL = "refinery"
WORKER_TYPE = "refinery"
