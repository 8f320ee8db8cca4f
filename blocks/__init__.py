"""What both sides stand on: values, secrets, buckets, the database, Prefect.

Imports neither `api` nor `flows`.
"""
