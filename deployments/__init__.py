"""How it is run: what Prefect is told, the worker, and in `embedded` all of it on one machine."""
