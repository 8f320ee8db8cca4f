"""The words of the service as values: jobs and their states, ids, URLs, metadata, errors.

Pure: no I/O, no framework, and no import from another room.
"""
