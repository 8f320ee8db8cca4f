"""Define the flows that Prefect runs, a module each.

Their steps are in the rooms below: finding (which manifests), reading (bytes to tasks), writing
(results to bytes), running (what every run needs). Imports `blocks`, never `api`.
"""
