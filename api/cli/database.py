"""The database that the operator's commands work on."""

import os
import pwd

from blocks.settings import Settings
from blocks.store.audit import Actor
from blocks.store.database import Database

_CONNECTIONS = 1


def open_database() -> Database:
    """Return the database that the environment names."""
    return Database(Settings.from_environment().database_url, connections_max=_CONNECTIONS)


def operator() -> Actor:
    """Return who acts at this command line, by the account that it runs as, for the audit log."""
    try:
        return Actor(None, pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:  # as in a container, whose account has no name
        return Actor(None, f"uid {os.getuid()}")
