"""The ground of API and flows: values, secrets, buckets, the database, Prefect.

Imports neither `api` nor `flows`.
"""
