"""The API as a process: `python -m api --host 0.0.0.0 --port 8000`, with every option of uvicorn."""

import sys

import uvicorn

from blocks.settings import Settings
from blocks.store import migrations
from blocks.store.database import DatabaseUnavailable
from blocks.store.migrations import MigrationChanged
from blocks.store.schema_versions import WrongSchema

# Without this protocol half-sent requests would keep their connections for ever.
ARGUMENTS = ("--factory", "api.app:from_environment", "--http", "api.http.server:TimedProtocol")


def check_schema() -> None:
    """End the process with a sentence where this version does not work with the database's schema.

    One that cannot be reached is waited for, as at any other time.
    """
    try:
        migrations.check(Settings.from_environment().database_url)
    except (WrongSchema, MigrationChanged) as error:
        sys.exit(f"error: {error}")
    except DatabaseUnavailable:
        pass


if __name__ == "__main__":
    check_schema()
    uvicorn.main([*ARGUMENTS, *sys.argv[1:]], prog_name="python -m api")
