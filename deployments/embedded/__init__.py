"""Run and supervise PostgreSQL, SeaweedFS, Prefect, a worker and the API on one machine.

For `refinery up`, the demo, tests and benchmarks. Code for several machines imports nothing from here.
"""
