"""The names under which Prefect knows what we deploy, as they stand in `prefect.yaml`."""

PROCESS_JOB = "process-job/default"
DELIVER_JOB = "deliver-job/default"
"""`<flow>/<deployment>`."""

WORK_POOL = "refinery"
