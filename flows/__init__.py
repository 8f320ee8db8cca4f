"""What Prefect runs. Each flow is a module here, and its steps are in the rooms below it:

finding (which manifests), reading (bytes to tasks), writing (results to bytes), running (what every run
needs). Imports `blocks`, never `api`.
"""
