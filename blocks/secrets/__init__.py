"""Customers' credentials: sealed, opened, and sent to no address that is not allowed.

Nothing of what is in here may reach a log, an event or an answer. Imports `domain`.
"""
