"""Bodies that callers send, with every rule on them, and all faults told at once.

The API checks requests with them, and a stream of manifests its parameters. Imports `domain`
and `store`.
"""
