"""Removing what is left of deleted jobs."""

from blocks import housekeeping
from tests.support.store_shop import Shop


def remove_all(shop: Shop) -> int:
    """Remove all that can be removed now; return in how many steps."""
    return housekeeping.remove_deleted(shop.database, steps_max=10_000)
