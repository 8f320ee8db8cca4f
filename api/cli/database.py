"""The database that the operator's commands work on."""

from blocks.settings import Settings
from blocks.store.database import Database

_CONNECTIONS = 1


def open_database() -> Database:
    """Return the database that the environment names."""
    return Database(Settings.from_environment().database_url, connections_max=_CONNECTIONS)
