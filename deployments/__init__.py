"""Run Refinery: its registration with Prefect, the worker, and `embedded`, all of it on one machine."""
