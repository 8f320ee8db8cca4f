"""PostgreSQL and the API alone, for what needs neither Prefect nor an object store."""

import contextlib
import dataclasses
from collections.abc import Iterator

from rich.console import Console

from benchmarks.servers import Databases, data_folder
from blocks.store.migrations import migrate
from deployments.loopback_http import get_status
from deployments.private_files import private_folder
from deployments.stack import Stack

_HTTP_OK = 200


class BareStack(Stack):
    """The same two programs with the same settings as in the stack, so durable as well.

    Prefect would take its share of the processors. Without it the API is never "ready", only
    "live", and its launcher says every now and then that it could not start a run.
    """

    def _start(self, clock: object) -> None:
        del clock
        private_folder(self.log_folder)
        self._supervisor.start_guard()
        postgres, _ = self._configure()
        database = self._supervisor.spawn(postgres.program())
        database.wait_ready()
        postgres.create_databases()
        migrate(self.database_url)
        is_live = f"{self.api_url}/health/live"
        program = dataclasses.replace(
            self._api_program(), is_ready=lambda: get_status(is_live) == _HTTP_OK
        )
        self._supervisor.spawn(program).wait_ready()


@contextlib.contextmanager
def running(console: Console) -> Iterator[Databases]:
    """A new one with an empty database, in a folder that is gone afterwards."""
    with data_folder() as folder, BareStack(folder) as stack:
        with console.status("Starting PostgreSQL and the API"):
            stack.start()
        yield Databases(stack)
