"""Threads that work without a request: they launch runs, send webhooks and keep house.

Any number of processes may have them: the database decides whose turn it is.
"""
