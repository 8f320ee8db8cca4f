"""Run PostgreSQL and the API alone, for measurements without Prefect and an object store."""

import contextlib
from collections.abc import Iterator

from rich.console import Console

from benchmarks.servers import Databases, data_folder
from blocks.store.migrations import migrate
from deployments.embedded.private_files import private_folder
from deployments.embedded.stack import Stack


class BareStack(Stack):
    """Run the two programs with their settings of the whole stack, so durable as well.

    Prefect would take its share of the processors. Without it the API's launcher logs now and then that
    it could not start a run.
    """

    def _start(self) -> None:
        private_folder(self.log_folder)
        postgres, _ = self._configure()
        self._supervisor.start()
        self._supervisor.keep(postgres.program()).wait_first_try()
        postgres.create_databases()
        migrate(self.database_url)
        self._supervisor.keep(self._api_program(postgres)).wait_first_try()


@contextlib.contextmanager
def running(console: Console) -> Iterator[Databases]:
    """Run a new stack with an empty database, in a folder that is removed afterwards."""
    with data_folder() as folder, BareStack(folder) as stack:
        with console.status("Starting PostgreSQL and the API"):
            stack.start()
        yield Databases(stack)
