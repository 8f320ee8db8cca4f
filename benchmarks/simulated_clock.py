"""A database whose time can be moved on: what it takes for now is as much later as it is told.

PostgreSQL looks names up in `public` before it looks into its own `pg_catalog`, so that all statements,
defaults and functions that say `now()` get ours.
"""

from datetime import timedelta

from benchmarks.servers import Databases
from blocks.store.migrations import migrate

_CLOCK = """
create table simulated_clock (ahead interval not null);
insert into simulated_clock values ('0');
create function public.now() returns timestamptz language sql stable
    return pg_catalog.now() + (select ahead from public.simulated_clock);
create function public.clock_timestamp() returns timestamptz language sql volatile
    return pg_catalog.clock_timestamp() + (select ahead from public.simulated_clock);
"""


class SimulatedDatabase:
    """A database of its own, with our schema in it."""

    def __init__(self, databases: Databases, name: str) -> None:
        databases.make_database(name)
        self._databases = databases
        self.url = databases.database_url_of(name)
        with databases.connect_to(name) as connection:
            connection.execute(f"alter database {name} set search_path = public, pg_catalog")
        # Only sessions from now on find names in this order.
        with databases.connect_to(name) as connection:
            connection.execute(_CLOCK)
        migrate(self.url)
        self.connection = databases.connect_to(name)

    def move_on(self, time: timedelta) -> None:
        """Let so much time go by."""
        self.connection.execute("update simulated_clock set ahead = ahead + %s", [time])
