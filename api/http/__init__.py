"""The layer between a socket and a route: limits, bodies, errors, streams, headers.

Knows no job and no customer's data. Imports no other room of the API.
"""
