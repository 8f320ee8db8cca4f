"""PostgreSQL: the only room that runs SQL, which is in `sql/`; the schema is `schema.sql`.

Functions take a transaction and leave committing to their caller. Imports `domain` and `secrets`.
"""
