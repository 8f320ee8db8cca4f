"""Whether the database takes writes."""

import random

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("write_checks")
_SLOTS = 64


def write(tx: Transaction) -> None:
    """Write what an annotator's label needs to be written: a row, and more bytes of a file.

    Raises what the driver raises where one of them cannot be had.
    """
    tx.execute(_SQL["keep_little_in_memory"])
    tx.execute(_SQL["fill_a_file"])
    tx.execute(_SQL["write"], {"slot": random.randrange(_SLOTS)})  # noqa: S311 - no secret
