"""Use Prefect from outside: its HTTP API, our block types, and what mends runs that died.

Flows themselves are in `flows`. Imports all other rooms of blocks.
"""
