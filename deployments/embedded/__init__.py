"""PostgreSQL, SeaweedFS, Prefect, a worker and the API as processes of one machine, looked after.

For `refinery up`, the demo, tests and benchmarks. What serves many machines imports nothing from here.
"""
