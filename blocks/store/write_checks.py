"""Check whether the database takes writes."""

import random

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("write_checks")
_SLOTS = 64


def write(tx: Transaction) -> None:
    """Write what a label of an annotator needs: a row, and more bytes of a file.

    Raise the driver's error where that cannot be written.
    """
    tx.execute(_SQL["keep_little_in_memory"])
    tx.execute(_SQL["fill_a_file"])
    tx.execute(_SQL["write"], {"slot": random.randrange(_SLOTS)})  # noqa: S311 - no secret
