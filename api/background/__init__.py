"""Threads of the API that nobody asks for: runs are launched, webhooks sent, the house kept.

Any number of processes may have them: whose turn it is, is decided in the database.
"""
